#!/usr/bin/env python3
"""bench/probes.py [BUILD_DIR] [--qemu VERSION] [--kernel 6.1-cloud] - hits a second beside gdb's.

All stop the same guest at the same function by QEMU's gdbstub. In turns, so that a busy machine
slows all of them:

commands  gdb, by a breakpoint with commands that end in `continue`: what gdb's manual shows
stop      gdb, by a class in Python with a stop() method, which is the fastest that gdb offers
vmsight   `vmsight trace`, which writes a line of JSON for each hit
bare      nothing is read: a stop, RIP set behind the NOP, and on, in one write. No client of a
          gdbstub can be faster than this

The first three read the same: who runs (comm, pid), the arguments, and the file name that one of
them points to. gdb is told where these are by vmsight: it has no symbols of the guest, and needs
no time for them.
"""
import argparse
import json
import os
import re
import socket
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
def hit():
    task = struct.unpack("<Q", read(register("gs_base") + facts["current"], 8))[0]
    pid = struct.unpack("<i", read(task + facts["pid"], 4))[0]
    comm = read(task + facts["comm"], 16).split(b"\\0")[0]
    arguments = [register(name) for name in ("rdi", "rsi", "rdx")]
    name = read(arguments[1], 16).split(b"\\0")[0]
    hits.append((time.monotonic(), pid, comm, arguments, name))
    return len(hits) >= facts["hits"]
class Probe(gdb.Breakpoint):
    def stop(self): return hit()
def end_or_not():
    if hit(): raise gdb.GdbError("enough")
if facts["way"] == "stop":
    probe = Probe("*" + facts["address"])
else:
    probe = gdb.Breakpoint("*" + facts["address"])
    probe.commands = "silent\\npython end_or_not()\\ncontinue"
try:
    gdb.execute("continue")
except gdb.error:  # end_or_not() ends it so
    if len(hits) < facts["hits"]: raise
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


def gdb_rate(guest, facts, hits, way):
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "probe.py"
        script.write_text(GDB)
        facts = facts | {"socket": f"{folder}/stub", "hits": hits, "way": way}
        monitor(guest, f"gdbserver unix:{facts['socket']},server=on,wait=off")
        done = subprocess.run(["gdb", "-nx", "-q", "-batch", "-x", script], capture_output=True, text=True, timeout=300,
                              env={**os.environ, "FACTS": json.dumps(facts)}, check=False)
        monitor(guest, "gdbserver none")
    rates = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("RATE")]
    if not rates:
        sys.exit(f"gdb: {done.stdout}{done.stderr}")
    return rates[0]


def packet(text):
    return f"${text}#{sum(text.encode()) & 255:02x}".encode()


class Bare:
    """Only what it takes to stop and go on."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.waiting = b""
        for question in ("qSupported:multiprocess+", "QStartNoAckMode"):
            self.ask(question)
        self.socket.sendall(b"+")
        self.ask("qXfer:features:read:target.xml:0,400")  # or QEMU takes no registers

    def receive(self):
        while True:
            begin = self.waiting.find(b"$")
            end = self.waiting.find(b"#", begin)
            if begin >= 0 and 0 <= end <= len(self.waiting) - 3:
                answer, self.waiting = self.waiting[begin + 1:end], self.waiting[end + 3:]
                return answer.decode()
            self.waiting += self.socket.recv(65536)

    def ask(self, *questions):
        self.socket.sendall(b"".join(map(packet, questions)))
        answers = []
        while len(answers) < len(questions):
            answer = self.receive()
            if not re.match(r"T..thread", answer):  # that connecting stopped it
                answers.append(answer)
        return answers[-1]


def bare_rate(guest, facts, hits):
    with tempfile.TemporaryDirectory() as folder:
        monitor(guest, f"gdbserver unix:{folder}/stub,server=on,wait=off")
        stub = Bare(f"{folder}/stub")
        address = int(facts["address"], 16)
        stub.ask(f"Z0,{address:x},1")
        stub.socket.sendall(packet("vCont;c"))
        times, behind = [], None
        while len(times) < hits:
            stop = stub.receive()
            assert stop.startswith("T05"), stop
            times.append(time.monotonic())
            if not behind:  # ftrace's NOP, or endbr64; only now kernel code is surely mapped
                nop = 5 if stub.ask(f"m{address:x},4") in ("0f1f4400", "66666666") else 4
                behind = (address + nop).to_bytes(8, "little").hex()
            thread = stop.split("thread:")[1].split(";")[0]
            last = len(times) == hits
            stub.socket.sendall(b"".join(map(packet, [f"Hg{thread}", f"P10={behind}"] + ([] if last else ["vCont;c"]))))
            assert (stub.receive(), stub.receive()) == ("OK", "OK")
        stub.ask(f"z0,{address:x},1", "D;1")
        monitor(guest, "gdbserver none")
    return (len(times) - 1) / (times[-1] - times[0])


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
            one = {"commands": gdb_rate(guest, facts, options.hits, "commands"),
                   "stop": gdb_rate(guest, facts, options.hits, "stop"),
                   "vmsight": our_rate(build, guest, options.hits),
                   "bare": bare_rate(guest, facts, options.hits)}
            rounds.append(one)
            print("hits/s: " + "   ".join(f"{name} {rate:.0f}" for name, rate in one.items()), flush=True)
        ratio = {name: statistics.median(one["vmsight"] / one[name] for one in rounds) for name in rounds[0]}
        print("vmsight's rate by the others', medians: " + ", ".join(f"{name} {ratio[name]:.2f}" for name in ("commands", "stop", "bare")))
        print(f"QEMU {options.qemu or 'of this machine'}, kernel {options.kernel}, {options.rounds} rounds of {options.hits} hits, "
              f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
