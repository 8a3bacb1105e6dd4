#!/usr/bin/python3
"""study/run.py [BUILD_DIR] [--full] - all techniques compared on guests of the lab, and a report.

Quick (the default): one technique of each class, at its maximum rate, two workloads, three interleaved
pairs; done in ten minutes. --full: all techniques and workloads, at maximum and equal rates, on guests with
memfd and with anonymous RAM; takes hours, and goes on with --resume where it was interrupted.

Leaves study.json, study.csv and study.html (one file, all in it) in BUILD_DIR/study.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
sys.dont_write_bytecode = True

import claims  # noqa: E402
import impact  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
import scaling  # noqa: E402
from journal import Journal  # noqa: E402
from taxonomy import CLASSES, class_of  # noqa: E402
from vmlab_lib import workloads  # noqa: E402
from vmlab_lib.errors import LabError  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402

START = time.monotonic()
QUICK_SECONDS = 460   # to be done by then, with the report: building the program takes a while too


def say(text):
    print(f"[{time.monotonic() - START:6.1f} s] {text}", file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", default=HERE.parent / "build", type=Path)
    parser.add_argument("--full", action="store_true", help="all techniques, workloads and rates")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run left")
    parser.add_argument("--out", type=Path, help="default: BUILD_DIR/study")
    parser.add_argument("--kernel", default="6.1-cloud")
    parser.add_argument("--backends", type=words, help="of guest RAM: memfd, anon")
    parser.add_argument("--techniques", type=words, help="names or classes; default: quick one a class, full all")
    parser.add_argument("--workloads", type=words, help=" ".join(workloads.NAMES))
    parser.add_argument("--rates", type=lambda text: [float(word) for word in words(text)], help="equal rates, beside the maximum")
    parser.add_argument("--cpu", type=lambda text: [float(word) for word in words(text)],
                        help="percent of a core that the watcher is held to, at maximum rate, beside all of it")
    parser.add_argument("--vms", type=lambda text: [int(word) for word in words(text)], help="so many VMs watched at once")
    parser.add_argument("--pairs", type=int, help="interleaved pairs")
    parser.add_argument("--seconds", type=float, help="that an undisturbed run takes, about")
    parser.add_argument("--rounds", type=int, help="at maximum rate the best of so many")
    parser.add_argument("--limit", type=float, help="seconds after which no further pair is begun")
    arguments = parser.parse_args()
    defaults = FULL if arguments.full else QUICK
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    arguments.out = arguments.out or arguments.build / "study"
    return arguments


def words(text):
    return [word for word in text.split(",") if word]


QUICK = {"backends": ["memfd"], "techniques": [], "workloads": ["x264", "web"], "rates": [], "cpu": [], "vms": [], "pairs": 3, "seconds": 1.5,
         "rounds": 2, "limit": QUICK_SECONDS - 40.0}
FULL = {"backends": ["memfd", "anon"], "techniques": [], "workloads": [name for name in workloads.NAMES if name != "jitter"],
        "rates": [1.0, 10.0, 100.0], "cpu": [10.0, 25.0, 50.0], "vms": [1, 2, 4], "pairs": 5, "seconds": 8.0, "rounds": 5, "limit": 86400.0}


def boot(arguments, backend):
    guest = Guest(kernel=arguments.kernel, backend=backend, name=f"study-{backend}", workloads=True, agent=True,
                  forward=workloads.free_port())
    say(f"booting a guest with {backend} RAM")
    return guest


def choose(program, guest, arguments):
    """(what the impact of is measured, what is measured at all): names, out of those of `vmsight doctor`."""
    listing = json.loads(subprocess.run([program, "doctor", str(guest.pid), "--json"], check=True, capture_output=True).stdout)
    known = {check["name"]: check["works"] for check in listing["checks"] if class_of(check["name"])}
    usable = [name for name, works in known.items() if works]
    if arguments.techniques:
        usable = [name for name in usable if name in arguments.techniques or name.split(":")[0] in arguments.techniques]
        return usable, usable
    if arguments.full:
        return usable, list(known)
    # Those that cannot be used cost no time, and the report says why.
    return (first_of_each(usable, [entry.members for entry in CLASSES]),
            first_of_each(usable, [(head,) for entry in CLASSES for head in entry.members])
            + [name for name, works in known.items() if not works])


def first_of_each(names, classes):
    """The table of techniques is in order of preference."""
    found = (next((name for name in names if name.split(":")[0] in members), None) for members in classes)
    return [name for name in found if name]


def measure_techniques(program, guest, names, arguments):
    command = [program, "study", "techniques", str(guest.pid), "--json", "--rounds", str(arguments.rounds),
               "--seconds", "1", "--resume", str(arguments.out / "techniques.jsonl")]
    command += ["--techniques", ",".join(names)]
    if arguments.rates:
        command += ["--rates", ",".join(map(str, arguments.rates))]
    if arguments.cpu:
        command += ["--cpu", ",".join(map(str, arguments.cpu))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def paces_of(arguments):
    """(views a second or None, percent of a core or None): at maximum rate, at equal rates, held to parts of a core."""
    return [(None, None), *((rate, None) for rate in arguments.rates), *((None, cpu) for cpu in arguments.cpu)]


def study_vms(program, arguments, backend, done, journal):
    """Several VMs at once, by one technique of each class."""
    most = max(arguments.vms)
    with contextlib.ExitStack() as stack:
        say(f"booting {most} guests with {backend} RAM")
        guests = [stack.enter_context(Guest(kernel=arguments.kernel, backend=backend, name=f"study-{backend}-{number}", agent=True))
                  for number in range(most)]
        for guest in guests:
            guest.puppet("reference")
        works = {row["name"] for one in done["guests"] if one["backend"] == backend for row in one["techniques"] if row["usable"]}
        listing = json.loads(subprocess.run([program, "doctor", str(guests[0].pid), "--json"], check=True, capture_output=True).stdout)
        names = first_of_each([check["name"] for check in listing["checks"] if check["name"] in works],
                              [(head,) for entry in CLASSES for head in entry.members])
        say("several VMs: " + " ".join(names))
        done["vms"] += scaling.study(program, [guest.pid for guest in guests], backend, names, arguments.vms,
                                     [None, *(rate for rate in arguments.rates if rate == 10.0)],
                                     {"seconds": min(2.0, arguments.seconds), "pairs": arguments.pairs,
                                      "deadline": START + arguments.limit}, journal, say)


def study_guest(program, arguments, backend, done, journal):
    """Adds what this guest tells to the document `done`."""
    with boot(arguments, backend) as guest:
        guest.puppet("reference")
        names, measurable = choose(program, guest, arguments)
        say("techniques: " + " ".join(measurable))
        key = ("techniques", backend, arguments.kernel, arguments.rounds, arguments.rates, arguments.cpu, measurable)
        measured = journal.get(*key) or journal.keep(measure_techniques(program, guest, measurable, arguments), *key)
        done["guests"].append({"backend": backend, "kernel": arguments.kernel, **measured})
        seen = {entry["technique"] for entry in done["impact"]}
        works = {row["name"] for row in measured["techniques"] if any("error" not in one for one in row["measurements"])}
        best = {row["name"]: one["rate"] for row in measured["techniques"] for one in row["measurements"]
                if results.is_most(one)}
        names = [name for name in names if name in works and name not in seen]
        plan = {"seconds": arguments.seconds, "pairs": arguments.pairs, "deadline": START + arguments.limit,
                "jitter_seconds": min(1.5, arguments.seconds), "best_rates": best}
        loads = [workloads.find(name) for name in arguments.workloads]
        done["impact"] += [results.summarize(entry) for entry in
                           impact.study(program, guest, backend, loads, names, paces_of(arguments), plan, journal, say)]
        plan["pairs"] = 1 if not arguments.full else arguments.pairs
        plan["deadline"] += 20
        done["jitter"] += impact.jitter(program, guest, backend, workloads.find("jitter"), names, plan, journal, say)


def main():
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    program = arguments.build.resolve() / "vmsight"
    journal = Journal(arguments.out / "pairs.jsonl", arguments.resume)
    done = {"schema": "vmsight.study/1", "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "kind": "full" if arguments.full else "quick",
            "options": {key: value for key, value in vars(arguments).items() if key not in ("build", "out", "resume")},
            "guests": [], "impact": [], "jitter": [], "vms": []}
    try:
        for backend in arguments.backends:
            study_guest(program, arguments, backend, done, journal)
            if arguments.vms:
                try:
                    study_vms(program, arguments, backend, done, journal)
                except LabError as error:  # the rest is worth a report
                    say(f"several VMs: {error}")
    except (LabError, subprocess.CalledProcessError) as error:
        print(f"study: {error}\nhint: {getattr(error, 'hint', None) or 'its words are above'}", file=sys.stderr)
        return 1
    done["seconds"] = time.monotonic() - START
    done["claims"] = claims.evaluate(results.Results(done))
    report.write(done, arguments.out)
    say(f"report: {arguments.out / 'study.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
