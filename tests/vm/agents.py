#!/usr/bin/env python3
"""agents.py [TECHNIQUE...] - guest memory by the agents in the guest.

The truth through each; vmsight killed while it reads; the agent gone, silent, without its port; a port
that somebody else holds.
"""
import os
import random
import signal
import socket
import subprocess
import sys
import time

from harness import VMSIGHT, Guest, check_truth, expect, main, run, state, vmsight

TECHNIQUES = {"agent:vmsight": ("agent", "vmsight-agent"), "agent:qga": ("qga", "qemu-ga")}  # socket, program
KILLS = 5
SCENE = ["workers 20", "files 30", "sockets", "special", "zombies 1", "container", "log hello from the puppet"]


def fails(done, status, *words):
    said = done.stderr.decode(errors="replace")
    expect(done.returncode == status, f"{done.args}: exit status {done.returncode}, not {status}: {said}")
    for word in words:
        expect(word in said, f"{done.args}: no {word!r} in: {said}")
    expect("hint: " in said, f"{done.args}: no hint in: {said}")


def pid_of(guest, program):
    return int(guest.puppet(f"sh for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {program} ] && "
                            f"echo ${{p#/proc/}}; done; true").split()[0])


def kcore_files(guest, program):
    """How often the agent has kcore open."""
    listing = guest.puppet(f"sh ls -l /proc/{pid_of(guest, program)}/fd")
    return listing.count(b"/proc/kcore")


def settles(condition, seconds, message):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, message)
        time.sleep(0.05)


def killed(guest, technique, program, chance):
    """At any moment of a view, five times in a row; the agent then holds no more files than before."""
    before = kcore_files(guest, program)
    for _ in range(KILLS):
        reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "1000000", "--technique",
                                   technique], stdout=subprocess.PIPE)
        expect(reader.stdout.readline(), f"{technique}: vmsight ended with {reader.poll()}")
        drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 0.6))
        expect(reader.poll() is None, f"{technique}: vmsight ended before it was killed")
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
        drain.wait()
        # At once: what the dead one left in the port must not trouble the next.
        expect(state(guest, "--technique", technique)["processes"], f"{technique}: no view after a kill")
        guest.puppet("sh true")
    settles(lambda: kcore_files(guest, program) <= before, 5, f"{technique}: files are left open in {program}")
    print(f"{technique}: killed {KILLS} times, the next view worked at once", flush=True)


def noise(guest, technique, name, chance):
    """Garbage on the port, and a client that reads no answers: the next one is served."""
    ours = technique == "agent:vmsight"  # qemu-ga answers each byte of garbage with an error, slowly
    for garbage in ([chance.randbytes(300_000), bytes(5000), b"\xa9vmsight" * 5000] if ours else
                    [b"{" * 5000, b'{"execute":"guest-ping"}\n' * 2000]):
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(0.2)
            other.connect(str(guest.home / name))
            try:
                other.sendall(garbage)
            except TimeoutError:
                pass
        expect(state(guest, "--technique", technique)["processes"], f"{technique}: no view after garbage")


def held(guest, technique, name):
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.home / name))
        start = time.monotonic()
        fails(run("ps", guest.pid, "--technique", technique), 1, "held by another client")
        expect(time.monotonic() - start < 20, f"{technique}: slow to notice that the port is held")
    expect(state(guest, "--technique", technique)["processes"], f"{technique}: no view after the port was held")


def paused(guest, technique):
    """A paused guest cannot answer; it stays paused."""
    with guest.qmp() as qmp:
        qmp.command("stop")
        try:
            fails(run("ps", guest.pid, "--technique", technique), 1, "no answer in time", "paused")
            expect(qmp.command("query-status")["status"] == "paused", f"{technique} resumes a paused guest")
        finally:
            qmp.command("cont")


def idle(guest, program):
    """An agent of ours that nobody asks takes no time. (qemu-ga looks at its port ten times a second.)"""
    if program != "vmsight-agent":
        return
    path = f"/proc/{pid_of(guest, program)}"
    ticks = lambda: guest.puppet(f"sh cat {path}/stat").split()[13:15]  # noqa: E731
    before = ticks()
    time.sleep(2)
    expect(ticks() == before, f"{program} works while nobody asks: {before}, {ticks()} ticks")


def gone(guest, technique, program):
    guest.puppet(f"sh kill -9 {pid_of(guest, program)}")
    fails(run("ps", guest.pid, "--technique", technique), 1, "no answer in time", "start")


def plugged(guest):
    """A port that came while QEMU ran is not on its command line; the monitor tells of it."""
    path = str(guest.home / "plugged")
    with guest.qmp() as qmp:
        backend = {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": False}}
        qmp.command("chardev-add", id="plugged", backend=backend)
        device = "device_add virtserialport,chardev=plugged,name=org.vmsight.agent.0"
        qmp.command("human-monitor-command", **{"command-line": device})
    fails(run("ps", guest.pid, "--technique", "agent:vmsight"), 1, "no answer in time", "start vmsight-agent")


def agents(*techniques):
    chance = random.Random(20261124)
    with Guest(kernel="6.1-cloud", cpus=2, net=True, agent=True, name="agents") as guest:
        for command in SCENE:
            guest.puppet(command)
        listing = vmsight("doctor", guest.pid, "--all")
        for technique in techniques or TECHNIQUES:
            expect(f"yes {technique}" in listing, f"doctor: {technique} does not work\n{listing}")
            name, program = TECHNIQUES[technique]
            check_truth(guest, "--technique", technique)
            killed(guest, technique, program, chance)
            noise(guest, technique, name, chance)
            held(guest, technique, name)
            paused(guest, technique)
            check_truth(guest, "--technique", technique)
            idle(guest, program)
            gone(guest, technique, program)
    with Guest(kernel="6.1-cloud", name="no-agents") as guest:
        for technique in techniques or TECHNIQUES:
            fails(run("ps", guest.pid, "--technique", technique), 3, "no such port", "virtserialport")
        listing = vmsight("doctor", guest.pid, "--all")
        expect("no  agent:vmsight" in listing and "no  agent:qga" in listing, f"doctor sees agents that are none:\n{listing}")
        plugged(guest)


if __name__ == "__main__":
    sys.exit(main(agents))
