#!/usr/bin/env python3
"""live_snap.py BACKEND QEMU - live snapshots by system calls injected into QEMU tell the truth.

QEMU is `sandboxed` (its seccomp filter forbids it what we borrow it for) or `unprivileged` (it runs as
nobody, and so may not call userfaultfd). Nothing of ours may be left in the process, also when vmsight is
killed in a view.
"""
import random
import subprocess
import time
from pathlib import Path

from harness import VMSIGHT, Failure, Guest, check_truth, expect, main, run, state

QEMU = {
    "sandboxed": ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    "unprivileged": ("-runas", "nobody"),
}
KILLS = 5


def remains(pid):
    """What of ours is in the process, or ''."""
    process = Path(f"/proc/{pid}")
    for task in (process / "task").iterdir():
        status = (task / "status").read_text()
        if "\nTracerPid:\t0\n" not in status:
            return f"thread {task.name} is traced"
        if "\nState:\tT" in status or "\nState:\tt" in status:
            return f"thread {task.name} is stopped"
        if (task / "children").read_text().strip():
            return f"thread {task.name} has a child"
    for line in (process / "smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and " uw" in line:
            return "memory is registered with a userfaultfd"
    for descriptor in (process / "fd").iterdir():
        if "userfaultfd" in str(descriptor.readlink()):
            return "a userfaultfd is open"
    return ""


def expect_clean(guest, when):
    deadline = time.monotonic() + 1
    while remains(guest.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    expect(not remains(guest.pid), f"{when}: {remains(guest.pid)}")
    guest.puppet("sh true")


def check_kills(guest, technique):
    """Views follow one another without an end; a kill comes at any moment of one."""
    chance = random.Random(f"{technique} 20261124")
    for kill in range(KILLS):
        with subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--technique", technique, "--repeat", "100000"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as monitor:
            time.sleep(1 + chance.random())
            expect(monitor.poll() is None, f"it gave up: {monitor.stderr.read() if monitor.poll() else ''}")
            monitor.kill()
        expect_clean(guest, f"{technique}, kill {kill}")


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
            check_kills(guest, technique)
            state(guest, "--technique", technique)
        if backend != "anon":
            check_refusal(guest)


if __name__ == "__main__":
    main(live_snap)
