"""The study of techniques, end to end and small: the document's schema, and that its figures can be true.

    study.py        the verb
    study.py probes what a hit of a probe costs
    study.py report the runner and its report, one technique, one workload, one pair
    study.py consistency how far views can be believed: the verb, by each way of reading a guest that forks
"""
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import harness
from harness import Guest, expect


def check_measurement(one, rate):
    expect("error" not in one, f"{one.get('technique')}: {one.get('error')}")
    expect(one["views"] > 0 and one["processes"] > 150, f"{one['views']} views of {one['processes']} processes")
    expect(one["problems"] == 0, f"{one['problems']} problems")
    expect(300 < one["pages"]["median"] < 20000, f"{one['pages']} pages a view")
    view = one["view_ns"]
    expect(0 < view["min"] <= view["q1"] <= view["median"] <= view["q3"] <= view["max"], f"view times {view}")
    expect(0 < one["own_cpu_ms_per_view"] <= view["max"] / 1e6 * 2, f"{one['own_cpu_ms_per_view']} ms of CPU a view of {view}")
    expect(1000 < one["own_anonymous_peak_kib"] < 100 * 1024, f"{one['own_anonymous_peak_kib']} KiB of our own")
    if rate:
        expect(one["rate"] <= rate * 1.3, f"{one['rate']} views a second where {rate} were wanted")
        expect(one["reached"] == (one["rate"] >= 0.95 * rate), f"reached: {one['reached']} with {one['rate']} of {rate}")
    else:
        expect(one["rate"] > 5 and one["reached"], f"{one['rate']} views a second at most")


def check_document(guest, journal):
    command = ["study", "techniques", guest.pid, "--json", "--techniques", "live-map,live-read", "--seconds", "0.5",
               "--rounds", "1", "--rates", "5,100000", "--cpu", "20", "--resume", journal]
    with subprocess.Popen([harness.VMSIGHT, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        document = json.loads(process.communicate(timeout=120)[0])
    expect(document["schema"] == "vmsight.study.techniques/1", document["schema"])
    expect(document["vm"]["pid"] == guest.pid, f"another VM: {document['vm']}")
    rows = {row["name"]: row for row in document["techniques"]}
    expect(list(rows) == ["live-map", "live-read"], f"techniques {list(rows)}")
    for row in rows.values():
        expect(row["usable"], row["reason"])
        most, slow, fast, row["held"] = row["measurements"]
        check_measurement(most, None)
        check_measurement(slow, 5)
        expect(not fast["reached"] and fast["wanted_rate"] == 100000, f"a rate out of reach: {fast}")
        expect(most["pause_ns"]["max"] == 0, f"{row['name']} halted the guest: {most['pause_ns']}")
        held = row["held"]
        expect("error" not in held, held)
        expect(held["held_to_cpu_percent"] == 20 and held["rate"] < most["rate"] and held["cpu_percent"] < 30, f"held to 20%: {held}")
    again = harness.run(*command)
    expect(again.returncode == 0 and again.stderr.count(b": known") == 8, again.stderr.decode())
    for row in rows.values():
        del row["held"]
    expect(json.loads(again.stdout)["techniques"] == document["techniques"], "resumed, but with other figures")
    groups = [line.split()[4] for line in open("/proc/self/mountinfo", encoding="ascii") if " - cgroup" in line]
    left = [group for group in groups if (Path(group) / f"vmsight-study-{process.pid}").exists()]
    expect(not left, f"a control group is left in {left}")


def check_loop(guest):
    command = [harness.VMSIGHT, "study", "loop", str(guest.pid), "--technique", "live-read", "--rate", "20"]
    loop = subprocess.Popen(command, stdout=subprocess.PIPE)
    expect(b"ready" in loop.stdout.readline(), "no sign that it has begun")
    guest.puppet("work jitter 1000")
    loop.send_signal(signal.SIGTERM)
    out, _ = loop.communicate(timeout=60)
    told = json.loads(out)
    expect(loop.returncode == 0 and told["schema"] == "vmsight.study.loop/1", f"status {loop.returncode}: {told}")
    expect(3 <= told["views"] <= told["seconds"] * 20 + 2, f"{told['views']} views in {told['seconds']} s at 20/s")
    guest.puppet("sh :")


def check_errors(guest):
    for words, status in ((["techniques", guest.pid, "--techniques", "guessing"], 2), (["frobnicate", guest.pid], 2),
                          (["techniques", 1], 1), (["loop", guest.pid, "--technique", "guessing"], 2)):
        done = harness.run("study", *words)
        expect(done.returncode == status and done.stderr and not done.stdout, f"{words}: {done}")


def call_command(guest):
    """What the guest's own side of `study probes` is here: the puppet, asked by a command."""
    return f"{harness.ROOT}/lab/vmlab puppet {guest.name} work getppid $CALLS"


def check_probe_costs(guest, engines, calls, slow_calls, rounds, timeout=300):
    """The document of `study probes`: every kind was hit as often as the guest called, and tells what it should."""
    document = json.loads(harness.vmsight("study", "probes", guest.pid, "--call", call_command(guest), "--engines", engines,
                                          "--calls", calls, "--slow-calls", slow_calls, "--rounds", rounds, "--json", timeout=timeout))
    expect(document["schema"] == "vmsight.study.probes/1", document["schema"])
    for row in document["probes"]:
        label = f"{row['engine']} {row['kind']}"
        expect(row["error"] is None, f"{label}: {row['error']}")
        expect(row["extra_ns"]["n"] == rounds, f"{label}: {row['extra_ns']}")
        expect(row["calls"] == rounds * (calls if row["engine"] == "kvm" else slow_calls), f"{label}: {row['calls']} calls")
        expect(row["lost"] == 0, f"{label}: {row['lost']} lost")
        seen = row["kind"] not in ("no hits", "rejected: VM", "trap alone")
        expect(row["hits"] >= row["calls"] if seen else row["hits"] == 0, f"{label}: {row['hits']} hits of {row['calls']} calls")
        told = row["kind"] in ("event", "event+string", "entry+return")
        expect(row["told"] == (row["hits"] if told else 0), f"{label}: {row['told']} told of {row['hits']}")
    return document


def check_probe_errors(guest):
    too_few = call_command(guest).replace("$CALLS", "$((CALLS / 2))")
    for call, status, said in (("", 2, "what makes the guest call?"), ("true", 1, "was not hit at all"),
                               ("echo no such guest; exit 3", 1, "exit status 3: no such guest"), (too_few, 1, "times, not 20")):
        done = harness.run("study", "probes", guest.pid, "--call", call, "--slow-calls", "20", "--engines", "gdbstub", "--rounds", "1")
        expect(done.returncode == status and said in done.stderr.decode() and not done.stdout, f"{call}: {done}")
    guest.puppet("sh :")


def probes():
    with Guest(kernel="6.1-cloud", backend="memfd", name="study-probes") as guest:
        document = check_probe_costs(guest, "gdbstub", 1000, 20, 2)
        expect([row["kind"] for row in document["probes"]] == ["event"], f"rows {document['probes']}")
        expect(document["raw_exit_ns"] is None and "TCG" in document["raw_exit_problem"], f"raw exit {document['raw_exit_problem']}")
        check_probe_errors(guest)


def verb():
    with Guest(kernel="6.1-cloud", backend="memfd") as guest, tempfile.TemporaryDirectory() as folder:
        guest.puppet("reference")
        check_document(guest, Path(folder) / "journal")
        check_loop(guest)
        check_errors(guest)


def consistency():
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2) as guest:
        guest.puppet("workers 20")
        guest.puppet("churn exec")
        document = json.loads(harness.vmsight("study", "consistency", guest.pid, "--views", 75, "--json", timeout=300))
        expect(document["schema"] == "vmsight.study.consistency/1", document["schema"])
        ways = {way["way"]: way for way in document["ways"]}
        expect(list(ways) == ["naive", "live", "proven", "halted", "snapshot"], list(ways))
        for name, way in ways.items():
            expect(way["error"] is None and way["views"] + way["failed"] == 75 and way["views"] > 0, f"{name}: {way}")
            halts = name in ("halted", "snapshot")
            expect((way["pause_ns"]["min"] > 0) == halts and (halts or way["pause_ns"]["max"] == 0), f"{name}: pauses {way['pause_ns']}")
            noticed = sum(seen["records"] for seen in way["extrinsic"].values())
            expect(name == "live" or noticed == 0, f"{name}: noticed {way['extrinsic']}")
            expect(way["processes"] > 60 * way["views"], f"{name}: {way['processes']} processes in {way['views']} views")
        states = sum(seen["records"] for way in ways.values() for seen in way["intrinsic"].values())
        expect(states > 0, "no task of a guest that executes without end was fresh, dying or a zombie")
        text = harness.vmsight("study", "consistency", guest.pid, "--views", 5)
        expect("CONTRADICTIONS" in text and text.count("\n") == 6, text)
        for kind in ("fork", "threads", "sockets", "files", "maps", "off"):
            guest.puppet(f"churn {kind}")
            guest.report()


def report():
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "VMSIGHT_LAB_RUN": folder + "/run"}
        done = subprocess.run([harness.ROOT / "study" / "run.py", Path(harness.VMSIGHT).parent, "--out", folder,
                               "--techniques", "live-read", "--workloads", "churn", "--pairs", "1", "--seconds", "1", "--rounds", "1",
                               "--cpu", "20", "--vms", "1,2"],
                              capture_output=True, timeout=400, env=environment, check=False)
        expect(done.returncode == 0, done.stderr.decode())
        document = json.loads((Path(folder) / "study.json").read_text())
        entry, held = document["impact"]
        expect(held["cpu"] == 20 and held["slowdown"]["n"] == 1 and held["achieved_rate"] < entry["achieved_rate"], f"held: {held}")
        alone, two = document["vms"]
        expect((alone["vms"], two["vms"]) == (1, 2) and len(two["runs"][0]["rates"]) == 2 and alone["error"] is None, document["vms"])
        expect(all(rate > 1 for rate in two["runs"][0]["rates"]), two)
        expect(entry["slowdown"]["n"] == 1 and 0.05 < entry["slowdown"]["median"] < 50, f"impact {entry['slowdown']}")
        expect(entry["pairs"][0]["loop"]["views"] > 0, "nobody looked on")
        jitter, = document["jitter"]
        expect(0 < jitter["gap_ms"] < 10000, f"gaps {jitter['gap_ms']}")
        expect({one["verdict"] for one in document["claims"]} == {"not measured"}, "claims of one technique alone")
        page = (Path(folder) / "study.html").read_text()
        expect("Several VMs at once" in page and "Held to a part of a core" in page, "tables are missing")
        expect(page.count("<svg") == 3, f"{page.count('<svg')} charts")
        expect(not re.search(r'\b(src|href)="(?!#)|<link|@import|url\((?!#)', page), "the page needs other files")
        expect("live-read" in (Path(folder) / "study.csv").read_text(), "the table lacks the technique")


if __name__ == "__main__":
    harness.main(lambda kind="verb": {"verb": verb, "report": report, "probes": probes, "consistency": consistency}[kind]())
