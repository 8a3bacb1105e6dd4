#!/usr/bin/env python3
"""consistent.py KERNEL... - views of one moment without a pause: proven, or said not to be.

idle    of a hundred views at least ninety-nine are proven, by mapping and by reads, and none of those pauses the guest;
        a hundred without a pause; they hold what the guest says
storm   while it forks as fast as it can: some views are proven, and those are whole (whoever is a parent is there, and
        whoever has a file), `--no-pause` fails honestly or is proven, and without it a halt takes over, and it is said why
"""
import json
import time
from collections import Counter

from harness import Guest, expect, main, run, vmsight

VIEWS = 100
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
    torn = [process["pid"] for process in state["processes"] if process["validity"] == "torn"]
    return missing + [f"{pid} is torn: {state['problems']}" for pid in torn]


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


def test(*kernels):
    for kernel in kernels:
        for backend, technique in (("memfd", "live-map"), ("anon", "live-read")):
            with Guest(kernel=kernel, backend=backend, cpus=2, mem="256M") as guest:
                idle(guest, technique)
                storm(guest, technique)


if __name__ == "__main__":
    main(test)
