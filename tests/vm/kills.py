#!/usr/bin/env python3
"""kills.py KILLS SEED TECHNIQUE... - vmsight is killed at random moments of its views.

After each SIGKILL the guest answers within a second and no thread of QEMU is stopped or traced; soon
after QEMU's settings and descriptors are what they were, and the next vmsight works.
"""
import os
import random
import signal
import statistics
import subprocess
import time

import remains
from harness import VMSIGHT, expect, main, state
from techniques import on_their_guests

SECOND = 1.0
PATIENCE = 10  # QEMU closes a dead client's connections, and ends a migration of its own, when it gets to it
# QEMU ends no dump, no pmemsave and no last stage of a migration that has begun: the guest runs again when
# the file is written.
GOES_ON = {"halt-snap:dump": 10.0, "halt-snap:pmemsave": 10.0, "live-snap:mapped-ram": 3.0}


def wait(wrong, seconds, what):
    """Until wrong() says "" no more; how long that took."""
    begun = time.monotonic()
    while said := wrong():
        expect(time.monotonic() < begun + seconds, f"{what}: {said} after {seconds} s")
        time.sleep(0.01)
    return time.monotonic() - begun


def kill_once(guest, technique, chance):
    """Seconds until the guest answered."""
    reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "100000",
                               "--technique", technique], stdout=subprocess.PIPE)
    begun = time.monotonic()
    expect(reader.stdout.readline(), f"{technique}: vmsight ended")
    view = time.monotonic() - begun
    drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
    delay = chance.uniform(0, max(0.2, min(view, 2)))
    time.sleep(delay)
    expect(reader.poll() is None, f"{technique}: vmsight ended before it was killed")
    os.kill(reader.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    wait(lambda: remains.of_threads(guest.pid), SECOND, f"{technique}, killed after {delay:.4f} s")
    guest.puppet("log still here")
    answered = time.monotonic() - killed_at
    expect(answered < GOES_ON.get(technique, SECOND),
           f"{technique}, killed after {delay:.4f} s: the guest answered after {answered:.2f} s")
    reader.wait()
    drain.wait()
    return answered


def descriptors(guest):
    return len(os.listdir(f"/proc/{guest.pid}/fd"))


def kill_often(guest, technique, count, chance):
    before, opened = remains.settings(guest), descriptors(guest)
    state(guest, "--technique", technique)
    answers = []
    for _ in range(count):
        answers.append(kill_once(guest, technique, chance))
        wait(lambda: remains.of_process(guest.pid) or remains.difference(before, remains.settings(guest)),
             PATIENCE, f"{technique}, killed")
    wait(lambda: f"{descriptors(guest)} descriptors, not {opened}" if descriptors(guest) > opened else "",
         PATIENCE, technique)
    expect(state(guest, "--technique", technique)["processes"], f"{technique}: no processes")
    print(f"{technique}: {count} kills; the guest answered after {1000 * statistics.median(answers):.0f} ms, "
          f"at most {1000 * max(answers):.0f} ms", flush=True)


def kills(count, seed, *techniques):
    on_their_guests(techniques,
                    lambda guest, technique: kill_often(guest, technique, int(count), random.Random(f"{seed} {technique}")),
                    kernel="6.1-cloud", cpus=2, mem="256M", name="kills")


if __name__ == "__main__":
    main(kills)
