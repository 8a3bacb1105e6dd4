#!/usr/bin/env python3
"""reboots.py - after three warm reboots the RAM holds stale kernels; the live one must be chosen."""
import subprocess
import sys
import time

from harness import VMSIGHT, Guest, check_truth, expect, main, vmsight
from vmlab_lib.errors import LabError
from vmlab_lib.guest import lost_by_emulator


def rebooted(guest, times, attempts=3):
    """The guest, after warm reboots; nothing of ours has looked at it yet. Booted anew if the emulator loses it."""
    for attempt in range(1, attempts + 1):
        try:
            for _ in range(times):
                guest.reboot()
            return
        except LabError as error:
            if attempt == attempts or not lost_by_emulator(error):
                raise
            print(f"lab: lost a guest at its boot: {guest.name}, attempt {attempt}\n{error}", file=sys.stderr)
            guest.stop()
            guest.boot()


def reboots():
    for kernel, qmp in (("6.12-cloud", True), ("7.2-cloud", False)):
        with Guest(kernel=kernel, backend="memfd", cpus=2, qmp=qmp, name=f"reboots-{kernel}") as guest:
            rebooted(guest, 3)
            guest.puppet("workers 5")
            check_truth(guest)
            check_truth(guest, "--no-cache")
            listed = vmsight("info", guest.pid)
            expect("live" in listed, f"info does not name the live kernel:\n{listed}")


def reboot_while_watched():
    """A reader that comes back must not go on showing the kernel of before the reboot."""
    for technique in ("live-map", "live-read"):
        with Guest(kernel="6.1-cloud", backend="memfd", name=f"watched-{technique}") as guest:
            watcher = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--technique", technique,
                                        "--repeat", "100000000"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                time.sleep(2)
                expect(watcher.poll() is None, "it ended before the reboot")
                guest.reboot()
                _, said = watcher.communicate(timeout=60)
            finally:
                watcher.kill()
            expect(watcher.returncode != 0 and "attach again" in said,
                   f"exit status {watcher.returncode}, and it says:\n{said}")
            check_truth(guest, "--technique", technique)


def both():
    reboots()
    reboot_while_watched()


if __name__ == "__main__":
    main(both)
