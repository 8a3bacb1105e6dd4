#!/usr/bin/env python3
"""bench/probes.py [BUILD_DIR] [--qemu VERSION] [--kernel 6.1-cloud] - hits a second beside gdb's.

Both stop the same guest at the same function by QEMU's gdbstub and read the same there: who runs
(comm, pid), the arguments, and the file name that one of them points to. In turns, so that a busy
machine slows both.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402

FUNCTION = "do_sys_openat2"
LOAD = "sh (while :; do : < /etc/passwd; done) >/dev/null 2>&1 &"

GDB = """
import gdb, json, os, struct, time
for setting in ("pagination off", "confirm off", "architecture i386:x86-64"):
    gdb.execute("set " + setting)
facts = json.loads(os.environ["FACTS"])
gdb.execute("target remote " + facts["socket"])
memory, hits = gdb.selected_inferior(), []
def read(at, size): return memory.read_memory(at & (1 << 64) - 1, size).tobytes()
def register(name): return int(gdb.parse_and_eval("$" + name)) & (1 << 64) - 1
class Probe(gdb.Breakpoint):
    def stop(self):
        task = struct.unpack("<Q", read(register("gs_base") + facts["current"], 8))[0]
        pid = struct.unpack("<i", read(task + facts["pid"], 4))[0]
        comm = read(task + facts["comm"], 16).split(b"\\0")[0]
        arguments = [register(name) for name in ("rdi", "rsi", "rdx")]
        name = read(arguments[1], 16).split(b"\\0")[0]
        hits.append((time.monotonic(), pid, comm, arguments, name))
        return len(hits) >= facts["hits"]
probe = Probe("*" + facts["address"])
gdb.execute("continue")
assert all(hit[4] == b"/etc/passwd" for hit in hits[-10:]), hits[-1]
print("RATE", (len(hits) - 1) / (hits[-1][0] - hits[0][0]))
probe.delete()
gdb.execute("detach")
"""


def vmsight(build, *arguments):
    return subprocess.run([build / "vmsight", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def facts_of(build, guest):
    def member(path):
        return next(m["offset"] for m in json.loads(vmsight(build, "type", guest.pid, "task_struct", "--json"))["members"] if m["name"] == path)
    symbols = {name: int(vmsight(build, "sym", guest.pid, name).split()[0], 16) for name in ("current_task", FUNCTION)}
    return {"current": symbols["current_task"], "address": hex(symbols[FUNCTION]), "pid": member("pid"), "comm": member("comm")}




def monitor(guest, command):
    with guest.qmp() as qmp:
        qmp.command("human-monitor-command", **{"command-line": command})


def gdb_rate(guest, facts, hits):
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "probe.py"
        script.write_text(GDB)
        facts = facts | {"socket": f"{folder}/stub", "hits": hits}
        monitor(guest, f"gdbserver unix:{facts['socket']},server=on,wait=off")
        done = subprocess.run(["gdb", "-nx", "-q", "-batch", "-x", script], capture_output=True, text=True, timeout=300,
                              env={**os.environ, "FACTS": json.dumps(facts)}, check=False)
        monitor(guest, "gdbserver none")
    rates = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("RATE")]
    if not rates:
        sys.exit(f"gdb: {done.stdout}{done.stderr}")
    return rates[0]


def our_rate(build, guest, hits):
    done = subprocess.run([build / "vmsight", "trace", str(guest.pid), f"kprobe:{FUNCTION}", "--json", "--count", str(hits)],
                          capture_output=True, text=True, timeout=300, check=True)
    events = [json.loads(line) for line in done.stdout.splitlines()][1:-1]
    assert all(event["arguments"]["filename"] == "/etc/passwd" for event in events[-10:]), events[-1]
    return (len(events) - 1) / ((events[-1]["time_ns"] - events[0]["time_ns"]) / 1e9)



def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", nargs="?", default="build", type=Path)
    parser.add_argument("--qemu")
    parser.add_argument("--kernel", default="6.1-cloud")
    parser.add_argument("--hits", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    build = options.build.resolve()
    with Guest(kernel=options.kernel, backend="memfd", name="bench-probes", **({"qemu": options.qemu} if options.qemu else {})) as guest:
        facts = facts_of(build, guest)
        guest.puppet(LOAD)
        rounds = []
        for _ in range(options.rounds):
            gdb = gdb_rate(guest, facts, options.hits)
            ours = our_rate(build, guest, options.hits)
            rounds.append((gdb, ours))
            print(f"gdb {gdb:7.0f} hits/s   vmsight {ours:7.0f} hits/s   ratio {ours / gdb:.2f}", flush=True)
        print(f"median ratio {statistics.median(ours / gdb for gdb, ours in rounds):.2f}, "
              f"QEMU {options.qemu or 'of this machine'}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
