#!/usr/bin/env python3
"""reboots.py - after three warm reboots the RAM holds stale kernels; the live one must be chosen."""
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def remembered_place(cache):
    """Where the kernel was, by the one file about it: `vmsight-place 1 RODATA ...`."""
    places = list(Path(cache).glob("vmsight/*.place"))
    expect(len(places) == 1, f"not one place is remembered: {places}")
    return int(places[0].read_text().split()[2])


def place_after_reboots():
    """Where the kernel was is not believed any more once the guest runs another one."""
    with tempfile.TemporaryDirectory() as cache, Guest(kernel="6.1-cloud", backend="anon", name="places") as guest:
        environment = {"XDG_CACHE_HOME": cache}
        base = None
        for boot in range(3):
            guest.puppet(f"workers {3 * boot + 3}")
            for _ in range(2):  # searched for, then remembered
                state = json.loads(vmsight("state", guest.pid, "--json", environment=environment))
                seen = sum(not process["kernel_thread"] for process in state["processes"]) - 3 * boot
                base = base or seen
                expect(seen == base, f"boot {boot}: {seen} programs beside its workers, {base} at first")
            info = json.loads(vmsight("info", guest.pid, "--json", environment=environment))
            live = [int(c["rodata"], 16) for c in info["kernel"]["candidates"] if c["live"]]
            expect(live == [remembered_place(cache)], f"remembered is another place than {live}")
            guest.reboot()


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
    place_after_reboots()
    reboot_while_watched()


if __name__ == "__main__":
    main(both)
