#!/usr/bin/env python3
"""nested_kvm.py KERNEL BACKEND [TECHNIQUE...] - the truth under real, stock KVM, on the lab's nested host.

Runs itself there: the outer part starts the host, the inner one boots a guest with KVM.
"""
import os
from pathlib import Path

from harness import ROOT, VMSIGHT, Failure, Guest, check_truth, expect, main_nested, vmsight
from techniques import SINCE_9
from vmlab_lib import initramfs, nested
from vmlab_lib.kernels import fetch



def descriptors(pid):
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield os.readlink(path)
        except FileNotFoundError:
            pass  # closed meanwhile


def is_agent(technique):
    return technique.startswith("agent:")


def check(kernel, backend, techniques, **options):
    with Guest(kernel=kernel, backend=backend, accel="kvm", cpus=2, name="kvm-guest", **options) as guest:
        expect("anon_inode:kvm-vm" in descriptors(guest.pid), "the guest does not run under KVM")
        for scene in ("workers 10", "sockets", "special", "container"):
            guest.puppet(scene, timeout=300)
        expect("kvm" in vmsight("list"), "list does not say kvm")
        for technique in techniques:
            try:
                check_truth(guest, "--technique", technique)
            except Failure:
                if is_agent(technique):
                    print(guest.puppet("sh ps | grep agent; cat /run/qemu-ga.log; head /sys/class/virtio-ports/*/name").decode())
                raise


def inner(kernel, backend, *techniques):
    check(kernel, backend, [name for name in techniques if name not in SINCE_9 and not is_agent(name)])
    if agents := list(filter(is_agent, techniques)):
        check(kernel, backend, agents, agent=True)
    if newer := [name for name in techniques if name in SINCE_9]:
        check(kernel, backend, newer, qemu="10.0")


def outer(kernel, backend, *techniques):
    command = (f"cd {ROOT} && VMSIGHT={VMSIGHT} VMSIGHT_LAB_BOOT_TIMEOUT=300 "
               f"python3 {Path(__file__).resolve()} {kernel} {backend} {' '.join(techniques)} inside")
    for agents in {False, any(map(is_agent, techniques))}:  # all that takes long is made here
        initramfs.build(fetch(kernel), agents)
    status, output = nested.run(command, timeout=1400)
    print(output.decode(errors="replace"))
    expect(status == 0, f"exit status {status} on the nested host")


if __name__ == "__main__":
    main_nested(outer, inner)
