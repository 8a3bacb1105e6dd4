#!/usr/bin/env python3
"""flips.py KERNEL... - a guest that writes its own kernel's memory to defeat whoever reads it gains nothing but a little time.

Its memory is written from outside, as fast as that goes, while it is read: fields flip back and forth, sequence counts say for
ever that they are being changed, a list goes in a circle, the clock runs backwards. Each view ends within seconds, and says
`torn`, or of which moment it is not; what is not written is as it was. When all is put back the guest lives.
"""
import ctypes
import itertools
import json
import mmap
import os
import re
import signal
import struct
import time
from contextlib import contextmanager

from check import Memory, offset, symbol
from harness import Guest, expect, main, run, vmsight

LONGEST = 10  # seconds of a view, on a host with other work
PR_SET_PDEATHSIG = 1  # linux/prctl.h
FAILED_PROOF = "read one moment of a guest that runs: "


def timed(*words, status=(0,)):
    start = time.monotonic()
    done = run(*words, timeout=120)
    took = time.monotonic() - start
    expect(done.returncode in status, f"{words}: status {done.returncode}: {done.stderr.decode()[-300:]}")
    expect(took < LONGEST, f"{words}: {took:.1f} s")
    return done, took


def seen(guest, *options):
    return json.loads(timed("state", guest.pid, "--json", "--threads", *options)[0].stdout)


def mapped(memory):
    """The guest's RAM, to be written without a call of the host's kernel."""
    maps = open(f"/proc/{memory.guest.pid}/maps", encoding="ascii").read()
    run_of = next(found[1] for found in re.finditer(r"^(\w+-\w+) rw-s .*memfd", maps, re.M)
                  if int(found[1].split("-")[0], 16) == memory.ram)
    file = os.open(f"/proc/{memory.guest.pid}/map_files/{run_of}", os.O_RDWR)
    try:
        return mmap.mmap(file, 0)
    finally:
        os.close(file)


def write_for_ever(ram, slices, counted, processor):
    """In a process of its own, which ends with the test. It has a processor as good as alone: a moment without it would be a
    moment that is proven."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.sched_setaffinity(0, [processor])
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    for number in itertools.count():
        if counted:
            ram[counted] = b"%07d\0" % (number % 10_000_000)
        for turn in (1, 2):
            for place in slices:
                ram[place[0]] = place[turn]


@contextmanager
def flipping(memory, *places, never_twice=None):
    """(address, one value, another): written in turns by a process of its own, without a pause; at `never_twice`, eight bytes
    that are never the same."""
    ram = mapped(memory)
    slices = [(slice(start, start + len(one)), one, other)
              for start, one, other in ((memory.host(address) - memory.ram, one, other) for address, one, other in places)]
    counted = slice(0, 0)
    if never_twice:
        start = memory.host(never_twice) - memory.ram
        counted = slice(start, start + 8)
    before = [(place, ram[place]) for place in [*(place for place, _, _ in slices), counted]]
    processors = sorted(os.sched_getaffinity(0))
    child = os.fork()
    if child == 0:
        try:
            write_for_ever(ram, slices, counted if never_twice else None, processors[-1])
        finally:
            os._exit(1)
    os.sched_setaffinity(0, processors[:1])  # and what reads
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for place, data in before:
            ram[place] = data
        ram.close()


def check_flips(guest, memory, sleeper):
    """One process's name and count of maps. Nobody asks for them while it sleeps."""
    mm = memory.pointer(sleeper["task"] + offset(guest, "task_struct", "mm"))
    count_at = mm + offset(guest, "mm_struct", "map_count")
    count = struct.unpack("<i", memory.read(count_at, 4))[0]
    names = (b"onename\0", b"another\0")
    others = {process["pid"] for process in seen(guest)["processes"]} - {sleeper["pid"]}
    torn = 0
    with flipping(memory, (sleeper["task"] + offset(guest, "task_struct", "comm"), *names),
                  (count_at, struct.pack("<i", count), struct.pack("<i", count + 1))):
        for _ in range(10):
            state = seen(guest)
            mine = [process for process in state["processes"] if process["pid"] == sleeper["pid"]]
            expect(len(mine) == 1 and mine[0]["comm"] in ("onename", "another", "onother", "anename") or mine[0]["validity"] == "torn", mine)
            torn += mine[0]["validity"] == "torn"
            left = {process["pid"] for process in state["processes"] if process["validity"] == "torn"} - {sleeper["pid"]}
            expect(not left, f"torn though nobody writes them: {left}, {state['problems']}")
            expect(len(others - {process["pid"] for process in state["processes"]}) <= 2, "processes are missing")
    expect(torn > 0, "no view met a flip")
    print(f"flips: {torn} of 10 views say torn", flush=True)


def check_never_the_same(guest, memory, sleeper):
    """What is another at each look is proven by nobody."""
    with flipping(memory, never_twice=sleeper["task"] + offset(guest, "task_struct", "comm")):
        torn = 0
        for _ in range(10):
            mine = [process for process in seen(guest)["processes"] if process["pid"] == sleeper["pid"]]
            expect(len(mine) == 1, mine)
            torn += mine[0]["validity"] == "torn"
        expect(torn >= 5, f"{torn} of 10 views say torn")
        refused = []
        for _ in range(10):
            done, took = timed("state", guest.pid, "--json", "--consistent", "--no-pause", status=(0, 1))
            if done.returncode == 0:  # the host gave the writer no processor for some milliseconds
                expect(json.loads(done.stdout)["view"]["consistency"] == "proof", done.stdout[:300])
                continue
            expect(FAILED_PROOF in done.stderr.decode(), done.stderr)
            refused.append(took)
        expect(len(refused) >= 5, f"{len(refused)} of 10 views were refused")
        held = seen(guest, "--consistent")
        expect(held["view"]["consistency"] == "proof" or "changed at" in held["view"]["not_proven"], held["view"])
    print(f"never the same: {torn} of 10 views say torn, {len(refused)} of 10 proofs failed; {max(refused):.1f} s until it is said", flush=True)


def clock_of(guest):
    """(its sequence count, its struct timekeeper): kernel/time/timekeeping.c has `tk_core`, later `timekeeper_data`."""
    if run("type", guest.pid, "tk_data").returncode != 0:  # until 6.13
        return symbol(guest, "tk_core"), symbol(guest, "tk_core") + 8
    name = "tk_core" if run("sym", guest.pid, "tk_core").returncode == 0 else "timekeeper_data"
    return tuple(symbol(guest, name) + offset(guest, "tk_data", member) for member in ("seq", "timekeeper"))


def check_counts(guest, memory):
    """Each of them odd for ever: whoever waits for its writer waits for nobody. The guest's own readers do, too, for so long."""
    for name, at in (("rename_lock", symbol(guest, "rename_lock")), ("mount_lock", symbol(guest, "mount_lock")),
                     ("the clock's count", clock_of(guest)[0])):
        before = struct.unpack("<I", memory.read(at, 4))[0]
        memory.write(at, struct.pack("<I", before | 1))
        try:
            took = []
            for words in (["ps"], ["lsof"], ["findmnt"], ["uname", "-a"], ["state", "--json"], ["state", "--json", "--consistent"]):
                done, seconds = timed(*words[:1], guest.pid, *words[1:])
                expect(len(done.stdout) > 50, f"{name} odd: {words}: {done}")
                took.append(seconds)
            took.append(timed("state", guest.pid, "--json", "--consistent", "--no-pause")[1])
        finally:
            memory.write(at, struct.pack("<I", before & ~1))
        print(f"{name} is odd: {max(took):.1f} s at most", flush=True)


def check_circle(guest, memory, sleeper):
    """The list of processes, from the last back to the first."""
    tasks = offset(guest, "task_struct", "tasks")
    head = symbol(guest, "init_task") + tasks
    first = memory.pointer(head)
    with memory.changed((sleeper["task"] + tasks, struct.pack("<Q", first))):
        state = seen(guest)
        expect(any(problem["where"] == "processes" for problem in state["problems"]), state["problems"])
        expect({1, sleeper["pid"]} <= {process["pid"] for process in state["processes"]}, "it lost what is on the list")
        timed("state", guest.pid, "--json", "--consistent", "--no-pause", status=(0, 1))
    print("a list in a circle: told", flush=True)


def check_clock(guest, memory):
    """Two seconds back, five times a second."""
    at = clock_of(guest)[1] + offset(guest, "timekeeper", "xtime_sec")
    back = 0
    try:
        for _ in range(5):
            memory.write(at, struct.pack("<Q", memory.pointer(at) - 2))
            back += 2
            state = seen(guest)
            expect(len(state["processes"]) > 10, state["problems"])
            timed("ps", guest.pid)
            timed("monitor", guest.pid, "-n", "3", "--rate", "20")
    finally:
        memory.write(at, struct.pack("<Q", memory.pointer(at) + back))
    print("a clock that runs backwards: read on", flush=True)


def test(*kernels):
    for kernel in kernels:
        with Guest(kernel=kernel, backend="memfd", cpus=2, mem="256M") as guest:
            guest.puppet("sh sleep 10000 > /dev/null 2>&1 &")
            time.sleep(1)
            processes = json.loads(vmsight("ps", guest.pid, "--json"))["processes"]
            found = next(process for process in processes if "sleep" in process["cmdline"])
            sleeper = {"pid": found["pid"], "task": int(found["task"], 16)}
            memory = Memory(guest)
            try:
                check_flips(guest, memory, sleeper)
                check_never_the_same(guest, memory, sleeper)
                check_counts(guest, memory)
                check_circle(guest, memory, sleeper)
                check_clock(guest, memory)
            finally:
                memory.close()
            expect(str(sleeper["pid"]) in guest.puppet("sh ps").decode(), "the guest does not answer as before")
            expect(not [process for process in seen(guest)["processes"] if process["validity"] == "torn"], "something is torn for good")
            print(f"{kernel}: done", flush=True)


if __name__ == "__main__":
    main(test)
