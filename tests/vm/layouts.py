#!/usr/bin/env python3
"""layouts.py - RAM that is not one block below 4 GiB; with the monitor and while another client holds it.

The layout that is derived then must equal the monitor's, and the truth must come out of both. (For guests
that have no monitor see qemu_version.py and reboots.py.)
"""
import contextlib
import json
import socket

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


def size(text):
    return int(text[:-1]) << {"M": 20, "G": 30}[text[-1]]


@contextlib.contextmanager
def held_monitor(guest):
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.qmp_path))
        other.recv(4096)  # QEMU serves nobody else from here on
        yield


def layout(guest, expected_source, given):
    check_truth(guest)
    info = json.loads(vmsight("info", guest.pid, "--json"))
    source = info["vm"]["ram_source"]
    expect(source == expected_source, f"the layout is {source}, expected {expected_source}")
    listed = {vm["pid"]: vm for vm in json.loads(vmsight("list", "--json"))["vms"]}
    memory = (listed[guest.pid]["memory_bytes"], info["vm"]["memory_bytes"])
    expect(memory == (given, given), f"list and info say {memory} bytes, the guest has {given}")
    return above_firmware(info["vm"]["ram"])


def layouts():
    for number, case in enumerate(CASES):
        with Guest(kernel="6.1-cloud", cpus=2, name=f"layout-{number}", **case) as guest:
            guest.puppet("workers 3")
            given = size(case["mem"]) + size(case.get("dimm", "0M"))
            told = layout(guest, "monitor", given)
            with held_monitor(guest):
                derived = layout(guest, "derived", given)
        expect(told == derived, f"{case}: the monitor says {told}, derived {derived}")


if __name__ == "__main__":
    main(layouts)
