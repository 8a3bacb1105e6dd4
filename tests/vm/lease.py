#!/usr/bin/env python3
"""lease.py TIMES SEED TECHNIQUE|probes... - vmsight is blocked in the midst of its views, and the guest runs.

Its reader does not read, its terminal is stopped by Ctrl-S, it gets SIGTSTP or SIGSTOP, a debugger holds
it: each TIMES times at random moments. Within the lease of the technique and half a second the guest
answers, no thread of QEMU is stopped, traced or frozen, and a second monitor says `running`. A view whose
lease ran out is an error, never an answer. When vmsight has ended, its journal is empty.
"""
import concurrent.futures
import ctypes
import json
import os
import pty
import random
import signal
import subprocess
import tempfile
import termios
import time
from pathlib import Path

import remains
from harness import VMSIGHT, expect, main, run, state
from techniques import on_their_guests

GRACE = 0.5
PATIENCE = 10  # until QEMU has noticed that a client is gone
MEMORY_MIB = 256
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
LIBC = ctypes.CDLL(None, use_errno=True)


SHORT = 0.5  # --max-halt of all rounds but the first, in seconds


def lease(technique, short=False):
    """Seconds, as docs/techniques.md has them; what halts long by nature keeps its own."""
    if short and is_default(technique):
        return SHORT
    if technique.startswith("halt-snap:"):
        return 1 + 0.005 * MEMORY_MIB
    return {"halt-interface:xp": 10, "halt-interface:gdbstub": 5, "halt-interface:pmemsave": 5}.get(technique, 1)


def is_default(technique):
    return technique.startswith(("halt-map:", "halt-read:", "live-snap:uffd", "live-snap:fork"))


# QEMU ends no dump, no pmemsave and no last stage of a migration that has begun.
GOES_ON = {"halt-snap:dump": 10.0, "halt-snap:pmemsave": 4.0, "live-snap:mapped-ram": 2.0, "halt-snap:migrate": 2.0}


def is_frozen(thread):
    """Whether it is in a cgroup that freezes it."""
    try:
        groups = (thread / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    for mount in Path("/proc/self/mountinfo").read_text().splitlines():
        at = mount.split()[4]
        for line in groups.splitlines():
            group = line.split(":", 2)[2]
            for file, frozen in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
                path = Path(at + group) / file
                if "/vmsight-" in group and path.exists() and frozen in path.read_text():
                    return True
    return False


def halted(pid):
    """What keeps QEMU's threads from running, or ""."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (thread / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "\nTracerPid:\t0\n" not in status:
            return f"thread {thread.name} is traced"
        if "\nState:\tT" in status or "\nState:\tt" in status:
            return f"thread {thread.name} is stopped"
        if is_frozen(thread):
            return f"thread {thread.name} is frozen"
    return ""


def check_runs(guest, technique, how, short=False):
    """From the moment of the call: seconds until it ran."""
    begun = time.monotonic()
    bound = lease(technique, short) + GOES_ON.get(technique, 0) + GRACE
    while wrong := halted(guest.pid) or not_running(guest):
        expect(time.monotonic() < begun + bound, f"{technique}, {how}: {wrong} after {bound} s")
        time.sleep(0.02)
    guest.puppet("log still here", timeout=max(0.1, begun + bound - time.monotonic()))
    expect(time.monotonic() < begun + bound, f"{technique}, {how}: the guest answers after {bound} s only")
    return time.monotonic() - begun


def not_running(guest):
    with guest.qmp() as qmp:
        status = qmp.command("query-status")["status"]
    return "" if status == "running" else f"its monitor says {status}"


def monitor(guest, technique, stdout, short=False, **options):
    """In a process group of its own, whose parent we are: SIGTSTP stops none whose group has no parent in its session."""
    max_halt = ["--max-halt", str(int(SHORT * 1000))] if short and is_default(technique) else []
    return subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--json", "--rate", "0", "--technique", technique,
                             *max_halt], stdout=stdout, stderr=subprocess.PIPE, process_group=0, **options)


def sleeps_in_write(process):
    """Blocked by its output: one of its threads sleeps in the write, by the host's word, and goes on to."""
    seen = 0
    begun = time.monotonic()
    while seen < 3:
        places = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/wchan")]
        seen = seen + 1 if any("pipe_w" in place or place == "wait_woken" for place in places) else 0
        expect(process.poll() is None and time.monotonic() < begun + 60, f"its output does not block vmsight: {places}")
        time.sleep(0.02)


def full_pipe(guest, technique, chance, short):
    process = monitor(guest, technique, subprocess.PIPE, short)
    sleeps_in_write(process)
    return process


def stopped_terminal(guest, technique, chance, short):
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[0] |= termios.IXON
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    process = monitor(guest, technique, theirs, short, stdin=theirs)
    os.close(theirs)
    os.read(ours, 4096)
    os.write(ours, b"\x13")
    sleeps_in_write(process)
    process.terminal = ours
    return process


def drained(guest, technique, short):
    """One that prints views, and somebody reads them."""
    process = monitor(guest, technique, subprocess.PIPE, short)
    begun = time.monotonic()
    expect(process.stdout.readline(), f"{technique}: vmsight ended")
    process.view = time.monotonic() - begun
    process.drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    return process


def stands(process):
    """Stopped, by the host's word."""
    begun = time.monotonic()
    while "\nState:\tT" not in Path(f"/proc/{process.pid}/status").read_text():
        expect(time.monotonic() < begun + 10, "a signal that stops did not stop vmsight")
        time.sleep(0.002)


def by_signal(number):
    def block(guest, technique, chance, short):
        process = drained(guest, technique, short)
        time.sleep(chance.uniform(0, min(1, process.view)))
        process.send_signal(number)
        stands(process)
        return process
    block.__name__ = signal.Signals(number).name
    return block


def debugger(guest, technique, chance, short):
    process = drained(guest, technique, short)
    time.sleep(chance.uniform(0, min(1, process.view)))
    hold(process)
    return process


WAYS = [full_pipe, stopped_terminal, by_signal(signal.SIGTSTP), by_signal(signal.SIGSTOP), debugger]


def journal_of(pid):
    directory = Path("/run/vmsight")
    return [entry.name for entry in directory.iterdir() if entry.name.startswith(f"{pid}-")] if directory.exists() else []


def end(process):
    process.kill()
    if hasattr(process, "debugger"):
        let_go(process)
    process.wait()
    if hasattr(process, "drain"):
        process.drain.wait()
    if hasattr(process, "terminal"):
        os.close(process.terminal)


def block_once(guest, technique, way, chance, short):
    process = way(guest, technique, chance, short)
    try:
        took = check_runs(guest, technique, way.__name__, short)
        expect(process.poll() is None, f"{technique}, {way.__name__}: vmsight ended before")
    finally:
        end(process)
    begun = time.monotonic()
    while left := journal_of(guest.pid) or remains.of_threads(guest.pid):
        expect(time.monotonic() < begun + PATIENCE, f"{technique}, {way.__name__}: {left} is left")
        time.sleep(0.02)
    return took


def continued(guest, technique, chance):
    """A view that was stopped for longer than its lease says so and prints nothing of it."""
    if not technique.startswith(("halt-map:", "halt-read:")):
        return
    with tempfile.TemporaryFile() as output:
        process = monitor(guest, technique, output)
        for _ in range(500):
            time.sleep(chance.uniform(0, 0.05))
            process.send_signal(signal.SIGSTOP)
            if halted(guest.pid) or not_running(guest):
                break
            process.send_signal(signal.SIGCONT)  # it was between two views
        else:
            process.kill()
            expect(False, f"{technique}: was never stopped while it had halted the guest")
        time.sleep(lease(technique) + GRACE)
        process.send_signal(signal.SIGCONT)
        errors = process.communicate(timeout=30)[1]
        expect(process.returncode == 1 and b"was to be halted for 1000 ms at most" in errors,
               f"{technique}: exit status {process.returncode}: {errors.decode()}")
        output.seek(0)
        for line in output:
            json.loads(line)  # whole views only


def tracer(guest):
    """Probes by the gdbstub, whose hits are told as they come; for their stacks the guest must stand."""
    process = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:do_sys_openat2", "--engine", "gdbstub", "--stack"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not remains_of_gdbstub(guest):
        expect(process.poll() is None and time.monotonic() < deadline, "trace: no probe was armed")
        time.sleep(0.02)
    time.sleep(0.3)
    return process


def remains_of_gdbstub(guest):
    with guest.qmp() as qmp:
        return any(device["label"] == "gdb" for device in qmp.command("query-chardev"))


def hold(process):
    """In the midst of it, by a process of its own, whose end lets go."""
    holds, told = os.pipe()
    process.debugger = os.fork()
    if process.debugger == 0:
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            LIBC.ptrace(PTRACE_SEIZE, int(thread), None, None)
            LIBC.ptrace(PTRACE_INTERRUPT, int(thread), None, None)
        os.write(told, b".")
        signal.pause()
        os._exit(0)
    os.read(holds, 1)
    os.close(holds)
    os.close(told)


def let_go(process):
    os.kill(process.debugger, signal.SIGKILL)
    os.waitpid(process.debugger, 0)
    del process.debugger


# How the tracer is blocked, and how it goes on.
BLOCKED = {"SIGSTOP": (lambda process: process.send_signal(signal.SIGSTOP), lambda process: process.send_signal(signal.SIGCONT)),
           "debugger": (hold, let_go)}


def probes(guest, count, chance):
    """The guest stands at a hit while the tracer is stopped: it runs on without probes."""
    for round in range(count):
        # A reader that does not read never makes the guest wait.
        process = tracer(guest)
        for _ in range(20):
            guest.puppet("sh cat /proc/uptime")
        end(process)
        unprobed(guest)
        for name, (block, free) in BLOCKED.items():
            process = tracer(guest)
            time.sleep(chance.uniform(0, 0.2))
            block(process)
            begun = time.monotonic()
            guest.puppet("sh cat /proc/uptime", timeout=10)
            took = time.monotonic() - begun
            expect(took < 1 + 2 * GRACE, f"probes, {name}: the guest answered after {took:.2f} s")
            free(process)
            errors = process.communicate(timeout=30)[1].decode()
            expect(process.returncode == 1 and "was to be halted for 1000 ms at most" in errors,
                   f"probes, {name}: exit status {process.returncode}: {errors}")
            end(process)
            unprobed(guest)
    print(f"probes: blocked {3 * count} times", flush=True)


def unprobed(guest):
    begun = time.monotonic()
    while left := journal_of(guest.pid) or (remains_of_gdbstub(guest) and "a gdbstub"):
        expect(time.monotonic() < begun + PATIENCE, f"probes: {left} is left")
        time.sleep(0.02)
    guest.puppet("sh cat /proc/uptime", timeout=10)


def lease_of(guest, technique, count, seed):
    chance = random.Random(f"{seed} {technique}")
    if technique == "probes":
        return probes(guest, count, chance)
    before = remains.settings(guest)
    took = [block_once(guest, technique, way, chance, turn > 0) for turn in range(count) for way in WAYS]
    continued(guest, technique, chance)
    expect(state(guest, "--technique", technique)["processes"], f"{technique}: no processes")
    changed = remains.difference(before, remains.settings(guest))
    expect(not changed, f"{technique}: {changed}")
    print(f"{technique}: blocked {len(took)} times; the guest ran after {1000 * max(took):.0f} ms at most",
          flush=True)


def leases(count, seed, *techniques):
    """Two guests at a time: what is waited for, mostly, is that a lease runs out."""
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        for done in [pool.submit(leases_of, int(count), seed, techniques[number::2], f"lease-{number}") for number in (0, 1)]:
            done.result()
    refuse()


def leases_of(count, seed, techniques, name):
    on_their_guests(techniques, lambda guest, technique: lease_of(guest, technique, count, seed),
                    kernel="6.1-cloud", cpus=2, mem=f"{MEMORY_MIB}M", name=name)


def refuse():
    done = run("ps", "no-such-vm", "--max-halt", "0")
    expect(done.returncode == 2, f"--max-halt 0: exit status {done.returncode}")


if __name__ == "__main__":
    main(leases)
