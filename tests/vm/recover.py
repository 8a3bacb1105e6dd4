#!/usr/bin/env python3
"""recover.py - vmsight, its guard and its front are killed in the midst of a view: the journal undoes what is left.

Once by `doctor --recover`, once by just opening the VM; and a guard alone needs neither.
"""
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import remains
from harness import Guest, VMSIGHT, expect, main, run, vmsight

RECORDS = Path("/run/vmsight") if os.geteuid() == 0 else Path(os.environ["XDG_RUNTIME_DIR"]) / "vmsight"


def records(guest):
    return sorted(RECORDS.glob(f"{guest.pid}-*.json"))


def status(guest):
    with guest.qmp() as qmp:
        return qmp.command("query-status")["status"]


def group_of_ours(guest):
    """The cgroup (v2, or the v1 freezer) that we have put a thread of QEMU into, or None."""
    for task in Path(f"/proc/{guest.pid}/task").iterdir():
        for line in (task / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "/vmsight-" in path:
                kind = "cgroup2" if not controllers else "freezer"
                mount = next(m for m in Path("/proc/self/mountinfo").read_text().splitlines()
                             if kind in m.partition(" - ")[2])
                return Path(mount.split()[4] + path)
    return None


def copies(guest):
    """QEMU's children: it has none of its own."""
    tasks = Path(f"/proc/{guest.pid}/task").iterdir()
    return "".join((task / "children").read_text() for task in tasks).split()


def is_left(guest):
    """The guest stands, or a copy of it is there."""
    if copies(guest):
        return True
    if group := group_of_ours(guest):
        state = next(file for file in ("cgroup.events", "freezer.state") if (group / file).exists())
        return any(word in (group / state).read_text() for word in ("frozen 1", "FROZEN"))
    return status(guest) == "paused"


def children(pid):
    """And theirs: what reads by a connection to QEMU is a process of vmsight's own, and starts the guard."""
    try:
        own = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return own + [grandchild for child in own for grandchild in children(child)]


def freeze_in_the_act(guest, technique):
    """vmsight, stopped at a moment at which its record is there and the guest stands."""
    for _ in range(200):
        reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "100000", "--technique",
                                   technique], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        reader.stdout.readline()
        drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            found = records(guest)
            if not found:
                continue
            time.sleep(random.uniform(0, 0.01))  # the change follows the record
            os.kill(reader.pid, signal.SIGSTOP)
            try:
                record = json.loads(found[0].read_text())
            except FileNotFoundError:
                os.kill(reader.pid, signal.SIGCONT)
                continue
            return reader, drain, record
        reader.kill()
        reader.wait()
        drain.wait()
    raise AssertionError(f"{technique}: no record seen")


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended with the one before


def kill_both(guest, technique):
    """Until something is left: a record is there a moment before and after the change too."""
    for _ in range(60):
        reader, drain, record = freeze_in_the_act(guest, technique)
        ours = [reader.pid, *children(reader.pid)]
        expect(record["vm"]["pid"] == guest.pid and record["author"]["pid"] in ours, f"record: {record}, not of {ours}")
        for pid in (record["guard"]["pid"], record["author"]["pid"]):
            os.kill(pid, signal.SIGKILL)
        kill_all(ours)
        reader.wait()
        drain.wait()
        if is_left(guest):
            return record
        vmsight("doctor", "--recover", guest.pid)
    raise AssertionError(f"{technique}: never killed in the act")


def check_recovery(guest, technique, kind):
    kill_both(guest, technique)
    said = json.loads(vmsight("doctor", "--recover", guest.pid, "--json"))
    expect([(one["kind"], one["undone"]) for one in said["recovered"]] == [(kind, True)], f"said {said}")
    expect(status(guest) == "running", f"{technique}: doctor --recover leaves the guest {status(guest)}")
    expect(not group_of_ours(guest), f"{technique}: QEMU is in {group_of_ours(guest)}")
    expect(not copies(guest), f"{technique}: QEMU has children: {copies(guest)}")
    expect(not records(guest), f"{technique}: records are left: {records(guest)}")
    expect("nothing to undo" in vmsight("doctor", "--recover", guest.pid), "it is undone twice")
    guest.puppet("sh true")


def check_opening_recovers(guest, technique):
    kill_both(guest, technique)
    done = run("ps", guest.pid)
    expect(done.returncode == 0 and b"left by a killed vmsight" in done.stderr, f"ps says: {done.stderr}")
    expect(status(guest) == "running" and not records(guest), "opening the VM does not undo what was left")
    expect(not copies(guest), f"{technique}: QEMU has children: {copies(guest)}")
    guest.puppet("sh true")


def check_nothing_is_left(guest, technique, kills=5):
    """There is no record and no need of one: the kernel undoes it when the attendant ends."""
    chance = random.Random(technique)
    for _ in range(kills):
        reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "100000", "--technique",
                                   technique], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        reader.stdout.readline()
        drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 0.3))
        os.kill(reader.pid, signal.SIGSTOP)
        attendants = children(reader.pid)
        expect(attendants, f"{technique} has no attendant")
        kill_all([*reversed(attendants), reader.pid])
        reader.wait()
        drain.wait()
        deadline = time.monotonic() + 1
        while remains.of_process(guest.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        expect(not remains.of_process(guest.pid), f"{technique}: {remains.of_process(guest.pid)}")
        expect(not records(guest) and "nothing to undo" in vmsight("doctor", "--recover", guest.pid), "a record is left")
        expect(status(guest) == "running", f"{technique} leaves the guest {status(guest)}")
        guest.puppet("sh true")


def recover():
    with Guest(kernel="6.1-cloud", backend="anon", cpus=2, name="recover") as guest:
        check_recovery(guest, "halt-read:stop", "stopped")
        check_recovery(guest, "halt-interface:gdbstub", "gdbstub")
        check_recovery(guest, "halt-read:freezer", "frozen")
        check_recovery(guest, "live-snap:fork", "fork")
        for technique in ("halt-read:stop", "halt-read:freezer", "live-snap:fork"):
            check_opening_recovers(guest, technique)
        check_nothing_is_left(guest, "live-snap:uffd")


if __name__ == "__main__":
    main(recover)
