#!/usr/bin/env python3
"""recover.py - vmsight and its guard are both killed while the guest stands: the journal undoes it.

Once by `doctor --recover`, once by just opening the VM; and a guard alone needs neither.
"""
import json
import os
import signal
import subprocess
import time
from pathlib import Path

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


def stands(guest):
    if group := group_of_ours(guest):
        state = next(file for file in ("cgroup.events", "freezer.state") if (group / file).exists())
        return any(word in (group / state).read_text() for word in ("frozen 1", "FROZEN"))
    return status(guest) == "paused"


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


def kill_both(guest, technique):
    """Until the guest is left standing: a record is there a moment before and after the stop too."""
    for _ in range(20):
        reader, drain, record = freeze_in_the_act(guest, technique)
        os.kill(record["guard"]["pid"], signal.SIGKILL)
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
        drain.wait()
        expect(record["vm"]["pid"] == guest.pid and record["author"]["pid"] == reader.pid, f"record: {record}")
        if stands(guest):
            return record
        vmsight("doctor", "--recover", guest.pid)
    raise AssertionError(f"{technique}: never killed while the guest stood")


def recover():
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="recover") as guest:
        for technique, kind in (("halt-read:stop", "stopped"), ("halt-interface:gdbstub", "gdbstub"),
                                ("halt-read:freezer", "frozen")):
            kill_both(guest, technique)
            said = json.loads(vmsight("doctor", "--recover", guest.pid, "--json"))
            expect([(one["kind"], one["undone"]) for one in said["recovered"]] == [(kind, True)], f"said {said}")
            expect(status(guest) == "running" and not group_of_ours(guest), f"{technique}: doctor --recover leaves the guest {status(guest)}")
            expect(not records(guest), f"{technique}: records are left: {records(guest)}")
            expect("nothing to undo" in vmsight("doctor", "--recover", guest.pid), "it is undone twice")
            guest.puppet("sh true")
        kill_both(guest, "halt-read:stop")
        done = run("ps", guest.pid)
        expect(done.returncode == 0 and b"left by a killed vmsight" in done.stderr, f"ps says: {done.stderr}")
        expect(status(guest) == "running" and not records(guest), "opening the VM does not undo what was left")
        guest.puppet("sh true")


if __name__ == "__main__":
    main(recover)
