#!/usr/bin/env python3
"""consistent.py [N] KERNEL... - views of one moment without a pause: proven, or said not to be.

idle    of a hundred views at least ninety-nine are proven, by mapping and by reads, and none of those pauses the guest;
        a hundred without a pause; they hold what the guest says
storm   while it forks as fast as it can: some views are proven, and those are whole (whoever is a parent is there, and
        whoever has a file), `--no-pause` fails honestly or is proven, and without it a halt takes over, and it is said why
churns  while two processes of the puppet change without end in a way of which each moment is known: who waits for each
        child has one at most, files are opened and closed in an order. N views of each change, and five times as many of
        forks: none that is proven shows what never was. (The program of the change, lab/puppet/churn.c, is the judge.)
        A process that is torn in a proven view is one whose maps were being changed, as the kernel's own lock says.
"""
import json
import time
from collections import Counter

from harness import Guest, expect, main, run, vmsight

VIEWS = 100
PF_EXITING = 4  # include/linux/sched.h
STORM = "sh (while :; do (sh -c : ; busybox true); done) > /dev/null 2>&1 & (while :; do (sh -c :); done) > /dev/null 2>&1 & :"


def views(guest, *options, count=VIEWS):
    text = vmsight("state", guest.pid, "--json", "--one-line", "--threads", "--repeat", count, "--consistent", *options, timeout=600)
    return [json.loads(line) for line in text.splitlines()]


def is_whole(state):
    """What refers to a process refers to one that is there."""
    pids = {process["pid"] for process in state["processes"]} | {0}
    missing = [f"{process['pid']} {process['comm']} has the parent {process['ppid']}"
               for process in state["processes"] if process["ppid"] not in pids]
    missing += [f"thread {thread['pid']} of {thread['tgid']}" for thread in state.get("threads", []) if thread["tgid"] not in pids]
    missing += [f"file {file['fd']} of {file['pid']}" for file in state["open_files"] if file["pid"] not in pids]
    torn = {process["pid"] for process in state["processes"] if process["validity"] == "torn"} - maps_in_change(state)
    return missing + [f"{pid} is torn: {state['problems']}" for pid in torn]


def maps_in_change(state):
    """Those that were changing their maps at that moment: their kernel holds the lock that says so."""
    return {int(problem["where"].split()[1]) for problem in state["problems"]
            if problem["what"] == "the guest is changing its memory maps, whose lock it holds"}


def said_by(states):
    return Counter(state["view"]["consistency"] for state in states)


def idle(guest, technique):
    time.sleep(2)  # what starts has started
    states = views(guest, "--no-pause")
    expect(said_by(states) == {"proof": VIEWS}, f"{said_by(states)}: {[s['view'] for s in states][-1]}")
    states = views(guest)
    expect(said_by(states)["proof"] >= VIEWS - 1, f"idle: {said_by(states)}, {[s['view']['not_proven'] for s in states]}")
    proven = [state for state in states if state["view"]["consistency"] == "proof"]
    for state in proven:
        view = state["view"]
        expect(view["technique"] == technique and view["pause_ns"] == 0 and not view["paused"], view)
        expect(not is_whole(state), is_whole(state))
    there = {int(line.split()[0]) for line in guest.puppet("sh ps").decode().splitlines()[1:]}
    ours = {process["pid"] for process in views(guest, count=1)[0]["processes"]}
    # Its own shell and ps are there in the one only.
    expect(len(there ^ ours) <= 4 and len(ours) > 10, f"the guest has {there - ours} more, we have {ours - there}")
    tries = Counter(state["view"]["retries"] for state in proven)
    print(f"idle, {technique}: {said_by(states)}, read again {dict(tries)} times", flush=True)


def storm(guest, technique):
    guest.puppet(STORM)
    time.sleep(1)
    states = views(guest)
    for state in states:
        view = state["view"]
        if view["consistency"] == "proof":
            expect(view["pause_ns"] == 0 and view["not_proven"] is None, view)
        else:
            expect(view["consistency"] in ("halt", "snapshot") and "changed at" in view["not_proven"], view)
            continue  # a halt may come in the middle of a change, and cannot wait for its end
        expect(not is_whole(state), f"{view}: {is_whole(state)}")
    expect(said_by(states)["proof"] > 0, f"{technique}: nothing was proven: {states[-1]['view']}")
    refused = 0
    for _ in range(10):
        done = run("state", guest.pid, "--json", "--consistent", "--no-pause")
        if done.returncode == 0:
            state = json.loads(done.stdout)
            expect(state["view"]["consistency"] == "proof" and not is_whole(state), state["view"])
        else:
            said = done.stderr.decode()
            expect(said.startswith("vmsight: read one moment of a guest that runs: ") and "hint: " in said, said)
            refused += 1
    print(f"storm, {technique}: {said_by(states)}; without a pause {refused} of 10 were refused", flush=True)


def one_child(state, worker):
    """Who waits for its child before it makes another."""
    children = [process["pid"] for process in state["processes"] if process["ppid"] == worker]
    return f"children {children}" if len(children) > 1 else None


class FilesInOrder:
    """Eight, by turns one of its own and a program, are opened from the first to the last and closed in the same order. Which
    number the first has is known when the first and the last have been seen."""

    def __init__(self):
        self.seen = {}  # by worker: sets of (number, is the program)

    def __call__(self, state, worker):
        files = {(file["fd"], "busybox" in file["path"]) for file in state["open_files"]
                 if file["pid"] == worker and file["path"] and ("/tmp/churn" in file["path"] or "busybox" in file["path"])}
        if not files:
            return None
        self.seen.setdefault(worker, []).append(files)
        numbers = {number for seen in self.seen[worker] for number, _ in seen}
        first, last = min(numbers), max(numbers)
        if last - first < 7:
            return None
        return next((f"files {sorted(seen)}, of {first} to {last}" for seen in self.seen[worker]
                     if not self.are_right(seen, first, last)), None)

    @staticmethod
    def are_right(files, first, last):
        held = {number for number, _ in files}
        ordered = any(held in (set(range(first, upto)), set(range(upto, last + 1))) for upto in range(first, last + 2))
        return last - first == 7 and ordered and all(program == bool((number - first) % 2) for number, program in files)


def sockets_in_order(state, worker):
    """One, then a pair, which goes first; beside those that every process of the puppet has."""
    held = sorted(file["fd"] for file in state["open_files"] if file["pid"] == worker and file["type"] == "SOCK")
    first = FIRST[worker] = min(FIRST.get(worker, len(held)), len(held))
    return f"sockets {held}, of which {first} are kept" if len(held) - first > 3 else None


def few_threads(state, worker):
    """Itself and one that runs. Who was waited for has begun to exit before, and may take its time about the rest."""
    threads = [thread["pid"] for thread in state["threads"] if thread["tgid"] == worker and not thread["flags"] & PF_EXITING]
    return f"threads {threads}" if not 1 <= len(threads) <= 2 else None


def no_overlap(state, worker):
    maps = [(int(entry["start"], 16), int(entry["end"], 16)) for entry in state["memory_maps"] if entry["pid"] == worker]
    return next((f"maps {one} {other}" for one, other in zip(maps, maps[1:]) if one[1] > other[0]), None)


FIRST = {}  # of a worker: how many sockets it keeps
CHURNS = {"fork": lambda: one_child, "exec": lambda: one_child, "threads": lambda: few_threads,
          "sockets": lambda: sockets_in_order, "files": FilesInOrder, "maps": lambda: no_overlap}


def made(guest):
    return next(int(line.split()[1]) for line in guest.puppet("sh cat /proc/stat").decode().splitlines() if line.startswith("processes"))


def churns(guest, technique, count):
    for kind, judge in CHURNS.items():
        FIRST.clear()
        wrong = judge()
        guest.puppet(f"churn {kind}")
        begun, before, states, changing = time.monotonic(), made(guest), Counter(), 0
        for _ in range(0, count * (5 if kind == "fork" else 1), VIEWS):
            for state in views(guest, count=min(VIEWS, count)):
                states[state["view"]["consistency"]] += 1
                if state["view"]["consistency"] != "proof":
                    continue
                workers = [process["pid"] for process in state["processes"] if process["comm"] == "churn"]
                changing += len(maps_in_change(state))
                found = is_whole(state) + [f"{worker}: {told}" for worker in workers if (told := wrong(state, worker))]
                expect(not found and len(workers) >= 2, f"{technique}, {kind}: {found}, {len(workers)} workers")
        rate = (made(guest) - before) / (time.monotonic() - begun)
        print(f"{kind}, {technique}: {dict(states)}, {rate:.0f} tasks a second, maps in change {changing}", flush=True)
    guest.puppet("churn off")


def test(*kernels):
    count = 20
    if kernels[0].isdigit():
        count, kernels = int(kernels[0]), kernels[1:]
    for kernel in kernels:
        for backend, technique in (("memfd", "live-map"), ("anon", "live-read")):
            with Guest(kernel=kernel, backend=backend, cpus=2, mem="256M") as guest:
                idle(guest, technique)
                churns(guest, technique, count)
                storm(guest, technique)


if __name__ == "__main__":
    main(test)
