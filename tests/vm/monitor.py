#!/usr/bin/env python3
"""monitor.py - periodic views of one guest.

Changes that the guest makes are told once each, at the right rate; ticks that cannot be kept are
counted; a warm reboot is survived; memory does not grow with the number of views.
"""
import json
import re
import subprocess
import time

from harness import Guest, VMSIGHT, expect, main


def user_processes(guest):
    return {p["pid"] for p in guest.report()["processes"] if not p["kernel_thread"]}


def changes_are_told(guest):
    present = user_processes(guest)
    watcher = subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--changes", "--json", "--rate",
                                "20", "--duration", "8", "--technique", "live-read"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)  # the watcher has its first view; what follows is a change
    guest.puppet("workers 3")
    output, account = watcher.communicate(timeout=120)
    expect(watcher.returncode == 0, f"monitor failed: {account}")
    events = [json.loads(line) for line in output.splitlines()]
    workers = user_processes(guest) - present
    expect(len(workers) >= 3, f"the guest has only {len(workers)} workers")
    for pid in workers:
        added = [e for e in events if e["part"] == "processes" and e["change"] == "added" and
                 e["record"]["pid"] == pid]
        expect(len(added) == 1, f"worker {pid} was told {len(added)} times")
    expect(re.search(r"\d+ views, .* each; \d+ late, \d+ missed ticks", account), account)
    print(f"{len(events)} changes told, {len(workers)} workers among them")


def ticks_are_counted(guest):
    done = subprocess.run([VMSIGHT, "monitor", str(guest.pid), "--json", "--rate", "100000",
                           "--count", "50", "--parts", "processes,sockets"],
                          capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, done.stderr)
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    expect(len(documents) == 50, f"{len(documents)} of 50 documents")
    last = documents[-1]["tick"]
    expect(last["number"] == len(documents) - 1 + last["missed"], f"ticks do not add up: {last}")
    expect(last["missed"] > 0, "100,000 views a second cannot be had")
    expect("modules" not in documents[0] and "processes" in documents[0], "--parts was ignored")


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return int(re.search(r"^Anonymous:\s+(\d+)", rollup.read(), re.M).group(1))


def memory_stays(guest, views):
    """Our own memory after `views` views is within 1 MB of that after the first hundredth."""
    watcher = subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--json", "--rate", "0", "--count",
                                str(views), "--parts", "processes,open_files,sockets,modules"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    early = 0
    for count, _ in enumerate(watcher.stdout, 1):
        if count == views // 100:
            early = anonymous_kib(watcher.pid)
        if count == views - 1:
            late = anonymous_kib(watcher.pid)
    expect(watcher.wait() == 0, "monitor failed")
    expect(late <= early + 1024, f"{early} KiB after {views // 100} views, {late} KiB after {views}")
    print(f"{early} KiB after {views // 100} views, {late} KiB after {views}")


def monitor(views="2000"):
    with Guest(kernel="6.12", backend="memfd", cpus=2, name="monitor") as guest:
        changes_are_told(guest)
        ticks_are_counted(guest)
        memory_stays(guest, int(views))


if __name__ == "__main__":
    main(monitor)
