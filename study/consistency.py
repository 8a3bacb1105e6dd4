#!/usr/bin/python3
"""study/consistency.py [BUILD_DIR] - how far views can be believed while a guest changes, by way of reading, and a report.

Guests of the lab under one kind of change each (idle, fork, exec, threads, sockets, files, maps, modules, a build), viewed in
turns: naively, live, proven, halted, by snapshot. What was seen and not seen is held against what the paper observed. --resume
goes on where it was interrupted.

Leaves consistency.json, consistency.csv and consistency.html in BUILD_DIR/study.
"""
import argparse
import csv
import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
sys.dont_write_bytecode = True

import observations  # noqa: E402
from journal import Journal  # noqa: E402
from report import STYLE, claim_table, number, table, text  # noqa: E402
from vmlab_lib.errors import LabError  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402

START = time.monotonic()
# Commands of the puppet; what is put in the background ends with the guest.
LOOP = "sh (while :; do {}; done) > /dev/null 2>&1 &"
CHURNS = {
    "idle": [],
    **{kind: [f"churn {kind}"] for kind in ("fork", "exec", "threads", "sockets", "files", "maps")},
    "modules": [LOOP.format("insmod /modules/nbd.ko || insmod /modules/zram.ko; rmmod nbd || rmmod zram")],
    # What a parallel build is made of: shells that start programs, which read and write files.
    "build": [LOOP.format(f"busybox seq 2000 | busybox gzip > /tmp/part{i}; busybox gunzip -c /tmp/part{i} | busybox wc -l")
              for i in range(4)],
}
COLUMNS = ["kernel", "churn", "forks_a_second", "way", "technique", "views", "failed", "processes", "view_ms", "view_ms_q1", "view_ms_q3",
           "pause_ms", "pause_ms_q1", "pause_ms_q3", "kind", "what", "in_views", "in_records", "note"]


def say(what):
    print(f"[{time.monotonic() - START:6.1f} s] {what}", file=sys.stderr, flush=True)


def words(line):
    return [word for word in line.split(",") if word]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", nargs="?", default=HERE.parent / "build", type=Path)
    parser.add_argument("--views", type=int, default=2000, help="of each way, under each kind of change")
    parser.add_argument("--kernels", type=words, default=["6.1-cloud", "7.2-cloud"])
    parser.add_argument("--churns", type=words, default=list(CHURNS), help=" ".join(CHURNS))
    parser.add_argument("--backend", default="memfd", help="of guest RAM: memfd, anon")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted run left")
    parser.add_argument("--out", type=Path, help="default: BUILD_DIR/study")
    arguments = parser.parse_args()
    unknown = [churn for churn in arguments.churns if churn not in CHURNS]
    if unknown:
        parser.error(f"no such change: {' '.join(unknown)}; there are {' '.join(CHURNS)}")
    arguments.out = arguments.out or arguments.build / "study"
    return arguments


def forks(guest):
    lines = guest.puppet("sh cat /proc/stat").decode().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes"))


def measure(program, guest, churn, views):
    for command in CHURNS[churn]:
        guest.puppet(command)
    time.sleep(1)
    before, begun = forks(guest), time.monotonic()
    done = subprocess.run([program, "study", "consistency", str(guest.pid), "--views", str(views), "--json"], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    rate = (forks(guest) - before) / (time.monotonic() - begun)
    return {**json.loads(done.stdout), "churn": churn, "forks_a_second": rate}


def rows_of(document):
    """One for each class of each way."""
    for run in document["runs"]:
        for way in run["ways"]:
            head = {"kernel": run["kernel"], "churn": run["churn"], "forks_a_second": run["forks_a_second"], "way": way["way"],
                    "technique": way["technique"], "views": way["views"], "failed": way["failed"], "processes": way["processes"],
                    "note": way["error"] or ""}
            for name in ("view", "pause"):
                spread = way[f"{name}_ns"]
                head |= {f"{name}_ms": spread["median"] / 1e6, f"{name}_ms_q1": spread["q1"] / 1e6, f"{name}_ms_q3": spread["q3"] / 1e6}
            for kind in ("extrinsic", "intrinsic", "contradictions"):
                for what, seen in way[kind].items():
                    yield head | {"kind": kind, "what": what, "in_views": seen["views"], "in_records": seen["records"]}


def listed(occurrences):
    return ", ".join(f"{number(seen['records'])} {what}" for what, seen in occurrences.items() if seen["records"]) or "–"


def way_table(runs):
    rows = []
    for run in runs:
        for way in run["ways"]:
            head = [text(run["churn"]) if way is run["ways"][0] else "", number(run["forks_a_second"]) if way is run["ways"][0] else "",
                    text(way["way"]), f"<code>{text(way['technique'])}</code>"]
            if not way["views"] and not way["failed"]:
                rows.append(head + ["–"] * 7 + [text(way["error"] or "")])
                continue
            view, pause = way["view_ns"], way["pause_ns"]
            rows.append(head + [
                number(way["views"], 5), number(way["failed"], 5), f"{number(view['median'] / 1e6)} ({number(view['q1'] / 1e6)} – {number(view['q3'] / 1e6)})",
                f"{number(pause['median'] / 1e6)} ({number(pause['q1'] / 1e6)} – {number(pause['q3'] / 1e6)})" if pause["median"] else "0",
                listed(way["extrinsic"]), listed(way["intrinsic"]), listed(way["contradictions"]), text(way["error"] or "")])
    return table(["Change", "forks a second", "Way", "technique", "views", "failed", "view ms (quartiles)", "pause ms", "noticed while it was read",
                  "of the guest itself", "said against itself", ""], rows, numeric=(1, 4, 5, 6, 7))


def lasting_table(runs):
    rows = [[text(run["kernel"]), text(run["churn"]), text(way["way"]), number(way["intrinsic_lasted_ns"]["n"]),
             *(number(way["intrinsic_lasted_ns"][key] / 1e6) for key in ("median", "q3", "max"))]
            for run in runs for way in run["ways"] if way["way"] == "live" and way["intrinsic_lasted_ns"]["n"]]
    return table(["Kernel", "Change", "Way", "states", "median ms", "three quarters ms", "longest ms"], rows, numeric=(3, 4, 5, 6))


def facts(document):
    run = document["runs"][0]
    return (f"Study of {document['time']}; host: {run['host']['cores']} cores, {run['host']['cpu'] or 'CPU not named'}, Linux {run['host']['kernel']}; guests: "
            f"{' and '.join(dict.fromkeys(one['kernel'] for one in document['runs']))}, {run['vm']['vcpus']} vCPUs, {run['vm']['accelerator']}, "
            f"{document['options']['backend']} RAM. {document['options']['views']} views of each way under each kind of change.")


def page(document):
    kernels = dict.fromkeys(run["kernel"] for run in document["runs"])
    tables = "".join(f"<h2>Linux {text(kernel)}</h2>{way_table([run for run in document['runs'] if run['kernel'] == kernel])}" for kernel in kernels)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>vmsight: how far views can be believed</title><style>{STYLE}</style></head><body>
<h1>How far a view can be believed</h1>
<p class="facts">{text(facts(document))}</p>
<p>What Suneja et al., <em>Exploring VM Introspection: Techniques and Trade-offs</em> (VEE 2015), observed of the consistency of views, looked at again on
stock QEMU. A view is a whole state with threads. All ways are read in turns, 25 views of each.</p>
<h2>The paper's observations</h2>{claim_table(document["claims"])}
{tables}
<p class="faint">Naive: nothing is proven or read again. Noticed: records that died, changed or were unreadable while they were read. Of the guest itself: its own
states, which no way of reading mends. Said against itself: records whose process is not in the view, counts that differ. Numbers are records, of all views.</p>
<h2>How long the guest's own states last</h2>{lasting_table(document["runs"])}
<p class="faint">From the first to the last of consecutive views that show a process in the state: 0 where only one view did.</p>
</body></html>
"""


def write(document, folder):
    (folder / "consistency.json").write_text(json.dumps(document, indent=1) + "\n")
    with open(folder / "consistency.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows_of(document))
    (folder / "consistency.html").write_text(page(document))


def main():
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    program = arguments.build.resolve() / "vmsight"
    journal = Journal(arguments.out / "consistency.jsonl", arguments.resume)
    document = {"schema": "vmsight.study.consistency.report/1", "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "options": {"views": arguments.views, "backend": arguments.backend}, "runs": []}
    try:
        for kernel in arguments.kernels:
            for churn in arguments.churns:
                say(f"{kernel}: {churn}")
                run = journal.get(kernel, churn, arguments.views, arguments.backend)
                if not run:
                    with Guest(kernel=kernel, backend=arguments.backend, cpus=2, name="study-consistency") as guest:
                        guest.puppet("workers 40")
                        run = journal.keep(measure(program, guest, churn, arguments.views), kernel, churn, arguments.views, arguments.backend)
                document["runs"].append({**run, "kernel": kernel})
    except (LabError, subprocess.CalledProcessError) as error:
        print(f"study: {error}\nhint: {getattr(error, 'hint', None) or 'its words are above'}", file=sys.stderr)
        return 1
    document["claims"] = observations.evaluate(document["runs"])
    write(document, arguments.out)
    for one in document["claims"]:
        print(f"{one['verdict']:12} {one['claim']}: {one['figure']}")
    say(f"report: {arguments.out / 'consistency.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
