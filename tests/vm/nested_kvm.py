#!/usr/bin/env python3
"""nested_kvm.py KERNEL [TECHNIQUE...] - the truth under real, stock KVM, on the lab's nested host.

Runs itself there: the outer part starts the host, the inner one boots a guest with KVM.
"""
import os
import sys
from pathlib import Path

from harness import ROOT, VMSIGHT, Guest, check_truth, expect, main, vmsight
from vmlab_lib import nested


def descriptors(pid):
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield os.readlink(path)
        except FileNotFoundError:
            pass  # closed meanwhile


def inner(kernel, *techniques):
    with Guest(kernel=kernel, backend="memfd", accel="kvm", cpus=2, name="kvm-guest") as guest:
        expect("anon_inode:kvm-vm" in descriptors(guest.pid), "the guest does not run under KVM")
        for scene in ("workers 10", "sockets", "special", "container"):
            guest.puppet(scene, timeout=300)
        expect("kvm" in vmsight("list"), "list does not say kvm")
        for technique in techniques or ("live-map", "live-read"):
            check_truth(guest, "--technique", technique)


def outer(kernel, *techniques):
    command = (f"cd {ROOT} && VMSIGHT={VMSIGHT} VMSIGHT_LAB_BOOT_TIMEOUT=300 "
               f"python3 {Path(__file__).resolve()} {kernel} {' '.join(techniques)} inside")
    status, output = nested.run(command, timeout=1400)
    print(output.decode(errors="replace"))
    expect(status == 0, f"exit status {status} on the nested host")


if __name__ == "__main__":
    inside = sys.argv[-1] == "inside"
    if inside:
        sys.argv.pop()
    main(inner if inside else outer)
