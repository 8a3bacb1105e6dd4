#!/usr/bin/env python3
"""bench/sandbox.py [BUILD_DIR] [RUNS] - what the sandbox costs: `ps` of a known kernel with it and without, in turns.

The lab's `reference` guest, by mapping and by reads; then views of a program that goes on (`monitor`), which the sandbox
should not make slower. Medians with quartiles; of `ps` the difference of each pair.
"""
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402

WAYS = {"with": [], "without": ["--no-sandbox"]}


def quartiles(values):
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def once(vmsight, guest, technique, options):
    begun = time.monotonic()
    subprocess.run([vmsight, "ps", str(guest.pid), "--technique", technique, *options], stdout=subprocess.DEVNULL, check=True)
    return (time.monotonic() - begun) * 1000


def views_ms(vmsight, guest, technique, options):
    """Of 300 views."""
    said = subprocess.run([vmsight, "monitor", str(guest.pid), "--technique", technique, "--rate", "1000", "-n", "300", *options],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True).stderr.decode()
    number, unit = re.search(r"views, ([0-9.]+) (ms|us) each", said).groups()
    return float(number) / (1000 if unit == "us" else 1)


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    vmsight = str(build / "vmsight")
    print("technique | ps with, ms           | without               | more                  | a view with | without")
    for technique, backend in (("live-map", "memfd"), ("live-read", "anon")):
        with Guest(kernel="6.1-cloud", backend=backend, cpus=2, name="bench-sandbox") as guest:
            guest.puppet("reference")
            times = {way: [] for way in WAYS}
            for _ in range(runs):
                for way, options in WAYS.items():
                    times[way].append(once(vmsight, guest, technique, options))
            more = [one - other for one, other in zip(times["with"], times["without"])]
            views = {way: [] for way in WAYS}
            for _ in range(5):
                for way, options in WAYS.items():
                    views[way].append(views_ms(vmsight, guest, technique, options))
            print(f"{technique:9} | {quartiles(times['with']):21} | {quartiles(times['without']):21} | {quartiles(more):21} | "
                  f"{statistics.median(views['with']):11.2f} | {statistics.median(views['without']):.2f}", flush=True)


if __name__ == "__main__":
    main()
