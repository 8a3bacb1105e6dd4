#!/usr/bin/env python3
"""live_snap.py BACKEND QEMU - live snapshots by system calls injected into QEMU tell the truth.

QEMU is `sandboxed` (its seccomp filter forbids it what we borrow it for) or `unprivileged` (it runs as
nobody, and so may not call userfaultfd). Nothing of ours may be left in the process (for SIGKILL: kills.py).
"""
import time

import remains
from harness import Failure, Guest, check_truth, expect, main, run, state

QEMU = {
    "sandboxed": ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    "unprivileged": ("-runas", "nobody"),
}


def expect_clean(guest, when):
    deadline = time.monotonic() + 1
    while remains.of_process(guest.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    expect(not remains.of_process(guest.pid), f"{when}: {remains.of_process(guest.pid)}")
    guest.puppet("sh true")


def check_refusal(guest):
    done = run("state", guest.pid, "--technique", "live-snap:fork")
    expect(done.returncode != 0 and b"shared memory" in done.stderr, f"fork of shared memory: {done.stderr}")


def live_snap(backend, qemu):
    with Guest(kernel="6.1-cloud", backend=backend, cpus=2, net=True, qemu_args=QEMU[qemu],
               name=f"live-snap-{backend}-{qemu}") as guest:
        for command in ("workers 20", "files 30", "sockets", "zombies 1"):
            guest.puppet(command)
        for technique in ("live-snap:uffd", "live-snap:fork") if backend == "anon" else ("live-snap:uffd",):
            ours = check_truth(guest, "--technique", technique)
            if ours["view"]["technique"] != technique or ours["view"]["pause_ns"] <= 0:
                raise Failure(f"the view tells of another technique: {ours['view']}")
            expect_clean(guest, technique)
            state(guest, "--technique", technique)
        if backend != "anon":
            check_refusal(guest)


if __name__ == "__main__":
    main(live_snap)
