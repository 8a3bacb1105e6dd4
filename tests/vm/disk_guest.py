#!/usr/bin/env python3
"""disk_guest.py FIRMWARE - a Debian that GRUB booted from a disk, with systemd and swap."""
from harness import Guest, check_truth, expect, main


def disk_guest(firmware):
    with Guest(kernel="disk", firmware=firmware, mem="1G", backend="memfd", cpus=2,
               name=f"disk-{firmware}") as guest:
        for technique in ("live-map", "live-read"):
            document = check_truth(guest, "--technique", technique)
        comms = {process["comm"] for process in document["processes"]}
        expect({"systemd", "systemd-journal", "kswapd0"} <= comms, f"not a systemd guest: {sorted(comms)}")


if __name__ == "__main__":
    main(disk_guest)
