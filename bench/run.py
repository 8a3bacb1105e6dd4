#!/usr/bin/env python3
"""bench/run.py [BUILD_DIR] [--kernel 6.1-cloud] [--json FILE] - every claim of speed, measured.

Boots the lab's `reference` guest and measures beside the limit that no tool can beat: copying the
pages that a state touches, in the same process and the same run. Compare ratios; absolute figures
say as much about this machine as about vmsight.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402


def whole_program(*command, runs=5, environment=None, before=lambda: None):
    """Seconds from start to exit: the best of several runs."""
    best = float("inf")
    for _ in range(runs):
        before()
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
        best = min(best, time.perf_counter() - start)
    return best


def states(build, guest, technique, seconds=1.0):
    output = subprocess.run([build / "bench" / "state_bench", str(guest.pid), "--technique", technique,
                             "--seconds", str(seconds), "--json"], check=True, capture_output=True).stdout
    return json.loads(output)


def first_and_known_ps(build, guest):
    with tempfile.TemporaryDirectory() as cache:
        environment = {"XDG_CACHE_HOME": cache}
        program = [str(build / "vmsight"), "ps", str(guest.pid)]
        first = whole_program(*program, environment=environment,
                              before=lambda: subprocess.run(["rm", "-rf", f"{cache}/vmsight"], check=True))
        known = whole_program(*program, environment=environment, runs=10)
    return {"first_ps_s": first, "known_ps_s": known}


def techniques(build, guest):
    """All techniques that work on this guest: views a second at most, milliseconds a view and of pause."""
    output = subprocess.run([build / "vmsight", "study", "techniques", str(guest.pid), "--json", "--rounds", "5",
                             "--seconds", "0.7"], check=True, stdout=subprocess.PIPE).stdout
    return {row["name"]: one for row in json.loads(output)["techniques"] for one in row["measurements"]
            if "error" not in one}


def show_techniques(title, results):
    print(f"\n{title:<40} views/s    ms    pause ms")
    for name, one in results.items():
        print(f"  {name:<38} {one['rate']:>7.4g} {one['view_ns']['median'] / 1e6:>7.3g} "
              f"{one['pause_ns']['median'] / 1e6:>7.3g}")


def big_guest(build, guest):
    """`ps` of a large guest whose kernel is known: when RAM is searched for it, and when it is where it was."""
    with tempfile.TemporaryDirectory() as cache:
        places = Path(cache) / "vmsight"

        def forget_places():
            for place in places.glob("*.place"):
                place.unlink()

        environment = {"XDG_CACHE_HOME": cache}
        command = (build / "vmsight", "ps", str(guest.pid))
        whole_program(*command, runs=1, environment=environment)  # the kernel is known from here on
        # The rate of the guest's clock follows from two looks that are 20 s apart.
        time.sleep(21)
        searched = whole_program(*command, environment=environment, before=forget_places)
        time.sleep(21)
        whole_program(*command, runs=1, environment=environment)
        known = whole_program(*command, environment=environment)
        return {"searched_ms": searched * 1e3, "where_it_was_ms": known * 1e3}


def show(title, result):
    print(f"\n{title}")
    for key, value in result.items():
        print(f"  {key:<20} {value:.4g}" if isinstance(value, float) else f"  {key:<20} {value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", default=ROOT / "build", type=Path)
    parser.add_argument("--kernel", default="6.1-cloud")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--scale", default="1000,10000", help="process counts for the scaling rows")
    parser.add_argument("--big", metavar="SIZE", help="also a guest with so much RAM (200G; it uses little of it, but "
                        "the host must overcommit: sysctl vm.overcommit_memory=1)")
    arguments = parser.parse_args()
    results = {"kernel": arguments.kernel}

    for backend, technique in (("memfd", "live-map"), ("anon", "live-read")):
        with Guest(kernel=arguments.kernel, backend=backend, name=f"bench-{backend}") as guest:
            guest.puppet("reference")
            results[technique] = states(arguments.build, guest, technique)
            show(f"reference guest, {backend} RAM, {technique}", results[technique])
            results[f"ps {technique}"] = first_and_known_ps(arguments.build, guest)
            show(f"whole program: ps, {backend} RAM", results[f"ps {technique}"])
            results[f"techniques {backend}"] = techniques(arguments.build, guest)
            show_techniques(f"reference guest, {backend} RAM", results[f"techniques {backend}"])

    for count in [int(word) for word in arguments.scale.split(",") if word]:
        with Guest(kernel=arguments.kernel, backend="memfd", mem="3G", name=f"bench-{count}") as guest:
            guest.puppet(f"processes {count}", timeout=300)
            for technique in ("live-map", "live-read"):
                result = states(arguments.build, guest, technique)
                result["us_per_process"] = result["state_us"] / max(result["processes"], 1)
                results[f"{count} {technique}"] = result
                show(f"{count} processes, {technique}", result)
    if arguments.big:
        for backend in ("memfd", "anon"):
            with Guest(kernel=arguments.kernel, backend=backend, mem=arguments.big, name=f"bench-big-{backend}") as guest:
                results[f"big {backend}"] = big_guest(arguments.build, guest)
                show(f"whole program: ps, {arguments.big} of {backend} RAM", results[f"big {backend}"])
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
