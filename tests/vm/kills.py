#!/usr/bin/env python3
"""kills.py KILLS SEED TECHNIQUE... - vmsight is killed at random moments of its views.

After each SIGKILL the guest runs again within a second, no thread of QEMU is stopped or traced,
QEMU has the descriptors and children that it had, and the next vmsight works.
"""
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from harness import Guest, VMSIGHT, expect, main, state

SECOND = 1.0


def damage(pid):
    """What is wrong with QEMU's threads, or ""."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines()
                          if ":\t" in line)
            children = (task / "children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a worker thread that ended just now
        if status["TracerPid"].strip() != "0":
            return f"thread {task.name} is traced by {status['TracerPid']}"
        if status["State"][0] in "Tt":
            return f"thread {task.name} is stopped"
        if children:
            return f"QEMU has children: {children}"
    return ""


def recovers(guest, killed_at):
    while wrong := damage(guest.pid):
        if time.monotonic() - killed_at > SECOND:
            return wrong
        time.sleep(0.01)
    return ""


def kill_once(guest, technique, delay):
    reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "100000",
                               "--technique", technique], stdout=subprocess.PIPE)
    first = reader.stdout.readline()  # views have begun
    expect(first, f"{technique}: vmsight ended with {reader.poll()}")
    drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
    time.sleep(delay)
    expect(reader.poll() is None, f"{technique}: vmsight ended before it was killed")
    os.kill(reader.pid, signal.SIGKILL)
    killed_at = time.monotonic()
    wrong = recovers(guest, killed_at)
    expect(not wrong, f"{technique}, killed after {delay:.4f} s: {wrong}")
    reader.wait()
    drain.wait()
    guest.puppet("log still here")  # the guest itself answers


def descriptors(guest):
    return len(os.listdir(f"/proc/{guest.pid}/fd"))


def kills(count, seed, *techniques):
    chance = random.Random(int(seed))
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="kills") as guest:
        for technique in techniques:
            before = descriptors(guest)
            for _ in range(int(count)):
                kill_once(guest, technique, chance.uniform(0, 0.2))
            # QEMU's main loop closes the monitor's connection of a dead client when it gets to it.
            deadline = time.monotonic() + 10
            while descriptors(guest) > before and time.monotonic() < deadline:
                time.sleep(0.05)
            after = descriptors(guest)
            expect(after <= before, f"{technique}: QEMU has {after} descriptors, it had {before}")
            expect(state(guest, "--technique", technique)["processes"], f"{technique}: no processes")
            print(f"{technique}: {count} kills, the guest runs on", flush=True)


if __name__ == "__main__":
    main(kills)
