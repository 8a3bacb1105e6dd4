#!/usr/bin/env python3
"""qemu_interfaces.py QEMU [TECHNIQUE...] - the techniques that use interfaces of QEMU itself.

QEMU is "system" or a version; without techniques all are tried.

The truth through each, what they leave behind (nothing), also on a full disk. (For other troubles
see troubles.py, for SIGKILL kills.py.)
"""
import os
import subprocess
import sys
import tempfile

import remains
from harness import Guest, check_truth, expect, main, run
from techniques import SINCE_9

TECHNIQUES = ["live-interface:pmemsave", "live-interface:xp", "halt-interface:gdbstub", "live-snap:background",
              "live-snap:mapped-ram", "halt-snap:dump", "halt-snap:migrate", "halt-snap:pmemsave", "halt-read:stop",
              "halt-interface:pmemsave", "halt-interface:xp"]
SNAPSHOTS = [name for name in TECHNIQUES if "snap" in name]


def unchanged(guest, before, what):
    said = remains.difference(before, remains.settings(guest))
    expect(not said, f"{what} leaves QEMU changed: {said}")


def works(guest, technique):
    """Whether doctor says so; mapped-ram may be missing only where this QEMU lacks it."""
    done = run("state", guest.pid, "--json", "--technique", technique)
    if technique in SINCE_9 and done.returncode == 3 and b"9.0" in done.stderr:
        print(f"{technique}: this QEMU has none")
        return False
    return True


def fails(done, *words):
    said = done.stderr.decode(errors="replace").lower()
    expect(done.returncode in (1, 3), f"{done.args}: exit status {done.returncode}: {said}")
    expect(any(word in said for word in words), f"{done.args}: none of {words} in: {said}")


def full_disk(guest, technique, before):
    """Too small a file system is refused before anything happens; the guest runs on."""
    with tempfile.TemporaryDirectory(prefix="vmsight-full-") as small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], check=True)
        try:
            fails(run("ps", guest.pid, "--technique", technique, environment={"TMPDIR": small}), "no space")
            expect(not os.listdir(small), f"{technique} leaves files on a full disk")
        finally:
            subprocess.run(["umount", small], check=True)
    unchanged(guest, before, f"{technique} on a full disk")


def truths(version, backend, techniques):
    with Guest(kernel="6.1-cloud", backend=backend, cpus=2, net=True, name=f"qemu-interfaces-{version}-{backend}",
               **({} if version == "system" else {"qemu": version})) as guest:
        guest.puppet("workers 5")
        guest.puppet("sockets")
        before = remains.settings(guest)
        usable = [technique for technique in techniques if works(guest, technique)]
        for technique in usable:
            # What QEMU writes to a disk takes as long as the disk does: leases have a test of their own.
            check_truth(guest, "--technique", technique, "--max-halt", "60000")
            unchanged(guest, before, technique)
        for technique in usable:
            if technique in SNAPSHOTS:
                full_disk(guest, technique, before)
        unchanged(guest, before, "all of them")


def qemu_interfaces(version="system", *techniques):
    for backend in ("memfd", "anon"):
        truths(version, backend, techniques or TECHNIQUES)


if __name__ == "__main__":
    sys.exit(main(qemu_interfaces))
