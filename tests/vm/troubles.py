#!/usr/bin/env python3
"""troubles.py TECHNIQUE... - what may go wrong under a technique: a clear error, and nothing left behind.

Another user, a paused guest, a held monitor, a guest that reboots while it is read, a QEMU that dies.
"""
import os
import signal
import socket
import subprocess
import time

import remains
from harness import VMSIGHT, Guest, expect, main, run, state
from techniques import options_of

JOURNAL = "/run/vmsight"


def says(technique, what, status, said, *words):
    expect(status in (1, 3), f"{technique}, {what}: exit status {status}: {said}")
    lines = [line for line in said.splitlines() if line]
    expect(0 < len(lines) <= 2 and lines[0].startswith("vmsight"), f"{technique}, {what}: not a line and a hint: {said}")
    expect(not words or any(word in said.lower() for word in words), f"{technique}, {what}: none of {words} in: {said}")


def as_nobody(*arguments):
    """vmsight run by another user, who may not be able to look into the folder that it is in."""
    with open(VMSIGHT, "rb") as program:
        return subprocess.run([VMSIGHT, *map(str, arguments)], executable=f"/proc/self/fd/{program.fileno()}",
                              pass_fds=[program.fileno()], user=65534, group=65534, extra_groups=[],
                              capture_output=True, text=True, check=False)


def other_user(guest, technique):
    done = as_nobody("ps", guest.pid, "--technique", technique)
    says(technique, "another user", done.returncode, done.stderr, "permi", "root", "user")


def paused(guest, technique):
    """One that somebody else stopped stays stopped, whether it can be read or not."""
    with guest.qmp() as qmp:
        qmp.command("stop")
    done = run("ps", guest.pid, "--technique", technique)
    with guest.qmp() as qmp:
        stands = qmp.command("query-status")["status"]
        qmp.command("cont")
    expect(stands == "paused", f"{technique} resumes a paused guest: it is {stands}")
    if done.returncode != 0:
        says(technique, "paused", done.returncode, done.stderr.decode(), "paused")


def held_monitor(guest, technique):
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.qmp_path))
        other.recv(4096)
        done = run("ps", guest.pid, "--technique", technique)
    if done.returncode != 0:
        says(technique, "held monitor", done.returncode, done.stderr.decode(), "held by another client",
             "another client holds")


class Reader:
    """One that reads on and on."""

    def __init__(self, guest, technique):
        self.process = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "100000000", "--technique",
                                         technique], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        expect(self.process.stdout.readline(), f"{technique}: no view")
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=subprocess.DEVNULL)

    def ends(self, seconds):
        """Its exit status and what it said."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.drain.wait()
        return self.process.returncode, self.process.stderr.read().decode()


def reboots(guest, technique):
    """The kernel that was read is no more; the guest comes up, and is read as before."""
    reader = Reader(guest, technique)
    guest.reboot()
    status, said = reader.ends(60)
    # An agent in the guest ends with the guest's old life. Whoever asks it waits; what comes up while he does does not
    # know him: vmsight's says nothing to him, qemu-ga says so.
    says(technique, "rebooted", status, said,
         *{"agent:vmsight": ["no answer in time"],
           "agent:qga": ["no answer in time", "qemu-guest-agent was started anew"]}.get(technique, ["attach again"]))
    expect(state(guest, "--technique", technique)["processes"], f"{technique}: nothing after a reboot")


def dies(guest, technique):
    reader = Reader(guest, technique)
    os.kill(guest.pid, signal.SIGKILL)
    status, said = reader.ends(30)
    says(technique, "QEMU dies", status, said, "ended", "gone")


def clean(guest, before, what):
    deadline = time.monotonic() + 10
    while True:
        wrong = remains.of_process(guest.pid) or remains.difference(before, remains.settings(guest)) or journal(guest.pid)
        if not wrong:
            return
        expect(time.monotonic() < deadline, f"{what}: {wrong}")
        time.sleep(0.05)


def no_record(pid, technique):
    """A guard may outlive the vmsight whose VM has gone by a moment."""
    deadline = time.monotonic() + 10
    while left := journal(pid):
        expect(time.monotonic() < deadline, f"{technique}: a record stays of a VM that is gone: {left}")
        time.sleep(0.05)


def journal(pid):
    names = os.listdir(JOURNAL) if os.path.isdir(JOURNAL) else []
    return ", ".join(name for name in names if name.startswith(f"{pid}-"))


def troubles(*techniques):
    for technique in techniques:
        with Guest(kernel="6.1-cloud", mem="256M", name="troubles", agent=technique.startswith("agent:"),
                   **options_of(technique)) as guest:
            before = remains.settings(guest)
            for trouble in (other_user, paused, held_monitor, reboots):
                trouble(guest, technique)
                clean(guest, before, f"{technique}, {trouble.__name__}")
            dies(guest, technique)
            no_record(guest.pid, technique)
        print(f"{technique}: clear errors, nothing left", flush=True)


if __name__ == "__main__":
    main(troubles)
