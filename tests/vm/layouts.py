#!/usr/bin/env python3
"""layouts.py - RAM that is not one block below 4 GiB; with a monitor and without one.

The derived layout must equal the monitor's, and the truth must come out of both.
"""
import json

from harness import Guest, check_truth, expect, main, vmsight

CASES = [
    {"backend": "numa", "mem": "1G"},
    {"backend": "memfd", "mem": "512M", "dimm": "256M"},
    {"backend": "file", "mem": "512M"},
    {"backend": "memfd", "mem": "4G", "machine": "microvm"},
    {"backend": "anon", "mem": "3G", "machine": "q35"},
    {"backend": "anon", "mem": "4G", "machine": "q35,max-ram-below-4g=1G"},
]


def above_firmware(ranges):
    """From 1 MiB up: below, the firmware decides what is RAM, and only the monitor knows."""
    pairs = ((int(r["start"], 16), int(r["end"], 16)) for r in ranges)
    return [(max(start, 1 << 20), end) for start, end in pairs if end > 1 << 20]


def layouts():
    for number, case in enumerate(CASES):
        maps = {}
        for qmp in (True, False):
            with Guest(kernel="6.1-cloud", cpus=2, qmp=qmp, name=f"layout-{number}-{qmp}", **case) as guest:
                guest.puppet("workers 3")
                check_truth(guest)
                info = json.loads(vmsight("info", guest.pid, "--json"))
                maps[qmp] = above_firmware(info["vm"]["ram"])
                source = info["vm"]["ram_source"]
                expect(source == ("monitor" if qmp else "derived"), f"the layout is {source}, monitor: {qmp}")
        expect(maps[True] == maps[False], f"{case}: the monitor says {maps[True]}, derived {maps[False]}")


if __name__ == "__main__":
    main(layouts)
