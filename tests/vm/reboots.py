#!/usr/bin/env python3
"""reboots.py - after three warm reboots the RAM holds stale kernels; the live one must be chosen."""
from harness import Guest, check_truth, expect, main, vmsight


def reboots():
    for kernel, qmp in (("6.12-cloud", True), ("7.2-cloud", False)):
        with Guest(kernel=kernel, backend="memfd", cpus=2, qmp=qmp, name=f"reboots-{kernel}") as guest:
            for _ in range(3):
                guest.reboot()
            guest.puppet("workers 5")
            check_truth(guest)
            check_truth(guest, "--no-cache")
            listed = vmsight("info", guest.pid)
            expect("live" in listed, f"info does not name the live kernel:\n{listed}")


if __name__ == "__main__":
    main(reboots)
