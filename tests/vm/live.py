#!/usr/bin/env python3
"""live.py [STATES] - reading while the guest forks constantly.

1,000 whole states of a guest that forks and execs without a pause: none fails, none is silently
wrong. What does not change in the guest (its workers) must be whole in every one of them.
"""
import json
import subprocess

from harness import Guest, VMSIGHT, expect, main, truth


STEADY = ("processes", "open_files", "memory_maps")


def only(document, pids):
    """All that a document says of processes that the guest leaves alone."""
    return {part: [record for record in document[part] if record["pid"] in pids] for part in STEADY}


def live(states="1000", kernel="6.12", backend="memfd", technique="live-map"):
    with Guest(kernel=kernel, backend=backend, cpus=2, name=f"live-{kernel}-{technique}") as guest:
        guest.puppet("workers 40")
        quiet = guest.report()
        pids = {p["pid"] for p in quiet["processes"] if not p["kernel_thread"] and p["pid"] != 1}
        expect(len(pids) >= 40, f"the guest has only {len(pids)} workers")
        expected = only(quiet, pids)
        guest.puppet("fork-storm on")
        reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", states,
                                   "--technique", technique], stdout=subprocess.PIPE)
        seen, torn, storm, right = 0, 0, set(), None
        for line in reader.stdout:
            document = json.loads(line)
            seen += 1
            right = judge(document, pids, expected, right)
            torn += sum(p["validity"] == "torn" for p in document["processes"])
            storm |= {p["pid"] for p in document["processes"]} - pids
        expect(reader.wait() == 0, "vmsight failed")
        expect(seen == int(states), f"{seen} of {states} states")
        expect(len(storm) > 100, "the guest did not fork")
        print(f"{seen} states, {len(storm)} short-lived processes seen, {torn} records torn and said so")


def judge(document, pids, expected, right):
    """What the document says of the steady processes. What equals the last that was `right` is right."""
    present = [p["pid"] for p in document["processes"]]
    expect(len(present) == len(set(present)), "a PID appears twice")
    steady = only(document, pids)
    if steady != right:
        comparison = truth.compare(expected, steady, expected, STEADY)
        expect(comparison, f"a process that did not change is wrong:\n{comparison}")
    for process in document["processes"]:
        expect(process["comm"] is not None or process["validity"] == "torn",
               f"an unreadable process that is not called torn: {process}")
    return steady


if __name__ == "__main__":
    main(live)
