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


def layouts():
    for number, case in enumerate(CASES):
        maps = {}
        for qmp in (True, False):
            with Guest(kernel="6.1-cloud", cpus=2, qmp=qmp, name=f"layout-{number}-{qmp}", **case) as guest:
                guest.puppet("workers 3")
                check_truth(guest)
                info = json.loads(vmsight("info", guest.pid, "--json"))
                maps[qmp] = [(r["start"], r["end"]) for r in info["vm"]["ram"]]
        expect(maps[True] == maps[False], f"{case}: the monitor says {maps[True]}, derived {maps[False]}")


if __name__ == "__main__":
    main(layouts)
