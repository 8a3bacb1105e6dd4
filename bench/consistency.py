#!/usr/bin/env python3
"""bench/consistency.py [BUILD_DIR] [VIEWS] - what one moment costs, proven and halted, and at which churn proofs fail.

Whole states (500) of the lab's `reference` guest, each way in turns in one run: live without proof, proven
(`--consistent --no-pause`), halted (`--technique halt-map:ptrace`). Beside it more and more processes are forked: by the
guest's own count a second. A view that could not be proven after all attempts is one that failed.
"""
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402

WAYS = {"live": [], "proven": ["--consistent", "--no-pause"], "halted": ["--technique", "halt-map:ptrace"]}
PAUSES_US = (None, 200_000, 40_000, 10_000, 0)  # between forks of each of two loops


def forks(guest):
    text = guest.puppet("sh cat /proc/stat").decode()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("processes"))


def read(vmsight, guest, options, count):
    """(views, failed): the `view` of each document. A proof that fails ends the program, so it is asked again."""
    views, failed = [], 0
    while len(views) + failed < count:
        done = subprocess.run([vmsight, "state", str(guest.pid), "--json", "--one-line", "--repeat", str(count - len(views) - failed),
                               *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        views += [json.loads(line)["view"] for line in done.stdout.splitlines()]
        if done.returncode != 0:
            failed += 1
            if b"read one moment" not in done.stderr:
                sys.exit(done.stderr.decode())
    return views, failed


def churn(guest, pause_us):
    guest.puppet("sh busybox pkill -f 'vmsight[-]churn'; :")
    if pause_us is not None:
        rest = f"busybox usleep {pause_us};" if pause_us else ""
        for _ in range(2):
            guest.puppet(f"sh (: vmsight-churn; exec sh -c 'while :; do (:); {rest} done # vmsight-churn') > /dev/null 2>&1 &")
    time.sleep(1)


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    print("forks a second | way    | median us (quartiles)      | beside live | attempts | failed | halted, us")
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="bench-consistency") as guest:
        guest.puppet("reference")
        for pause_us in PAUSES_US:
            churn(guest, pause_us)
            begun, before = time.monotonic(), forks(guest)
            times, shown = {way: [] for way in WAYS}, {way: [] for way in WAYS}
            lost = dict.fromkeys(WAYS, 0)
            for _ in range(5):
                for way, options in WAYS.items():
                    views, failed = read(build / "vmsight", guest, options, count // 5)
                    times[way] += [view["duration_ns"] / 1000 for view in views]
                    shown[way] += views
                    lost[way] += failed
            rate = (forks(guest) - before) / (time.monotonic() - begun)
            for way in WAYS:
                if len(times[way]) < 4:
                    print(f"{rate:14.0f} | {way:6} | none of {count}", flush=True)
                    continue
                low, median, high = statistics.quantiles(times[way], n=4)
                beside = median / statistics.median(times["live"])
                attempts = statistics.mean(view["retries"] + 1 for view in shown[way]) if way == "proven" else 1
                pause = statistics.median(view["pause_ns"] for view in shown[way]) / 1000
                print(f"{rate:14.0f} | {way:6} | {median:8.0f} ({low:.0f} to {high:.0f})".ljust(55)
                      + f"| {beside:11.2f} | {attempts:8.2f} | {lost[way]:6} | {pause:.0f}", flush=True)


if __name__ == "__main__":
    main()
