#!/usr/bin/env python3
"""bench/probe_costs.py [BUILD_DIR] [--kernel 6.1-cloud] [--host 6.12] - what a hit costs, in instructions.

The lab's nested host runs under a clock that counts instructions: those of the guest, of the host's KVM and of
the eBPF program in it, one a nanosecond. `vmsight study probes` measures there, so a time is a number of
instructions, the same whatever else this machine does. They are instructions of software: what a real CPU
needs to leave a guest and to enter it again counts as one. Costs are shown as multiples of an exit to user
space and back, measured in the same run.

Exit status 1 if a cost is above its target.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib import initramfs, kernels, nested  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402

# (function, the kind of probe, its cost at most). A string is what an event costs more with it.
CALL, NAME = "__x64_sys_getppid", "getname_flags"
WORK = {CALL: "getppid", NAME: "access"}
TARGETS = [
    (CALL, "no hits", 0.01), (CALL, "trap alone", None), (CALL, "rejected: VM", 0.95), (CALL, "rejected: address", 0.95),
    (CALL, "rejected: pid", 1.1), (CALL, "rejected: comm", 1.1), (CALL, "count", 1.1), (CALL, "event", 1.3),
    (NAME, "a string", 0.35), (CALL, "entry+return", 2.3),
]


class Caller(threading.Thread):
    """Makes the guest work when a command writes a number into a pipe: cheaper than a program a run."""

    def __init__(self, guest, work, folder):
        super().__init__(daemon=True)
        self.guest, self.work = guest, work
        self.ask, self.answer = Path(folder) / f"{work}-ask", Path(folder) / f"{work}-answer"
        for path in (self.ask, self.answer):
            os.mkfifo(path)
        # Nothing else may run while the guest does: the shell reads the answer itself, and starts no program.
        self.command = f"echo $CALLS > {self.ask}; while read line; do echo $line; done < {self.answer}"

    def run(self):
        while True:
            calls = int(self.ask.read_text())
            time.sleep(0.1)  # until all others wait
            self.answer.write_bytes(self.guest.puppet(f"work {self.work} {calls}", timeout=3600))


def study(build, guest, function, folder, options):
    caller = Caller(guest, WORK[function], folder)
    caller.start()
    command = [build / "vmsight", "study", "probes", str(guest.pid), "--call", caller.command, "--site", f"kprobe:{function}",
               "--engines", "kvm", "--calls", str(options.calls), "--rounds", str(options.rounds), "--timeout", "3600", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def inner(options):
    """On the nested host."""
    with Guest(kernel=options.kernel, backend="memfd", accel="kvm", la57=options.la57, name="probe-costs") as guest, tempfile.TemporaryDirectory() as folder:
        print("DOCUMENT", json.dumps({function: study(options.build, guest, function, folder, options) for function in WORK}), flush=True)


def costs(documents):
    """(function, kind) -> instructions above the call without a probe."""
    found = {(function, row["kind"]): row["extra_ns"]["median"]
             for function, document in documents.items() for row in document["probes"] if row["extra_ns"]}
    if (NAME, "event+string") in found:
        found[NAME, "a string"] = found[NAME, "event+string"] - found[NAME, "event"]
    return found


def show(documents, host, kernel):
    found = costs(documents)
    raw = documents[CALL]["raw_exit_ns"]["median"]
    print(f"host {host} (kernel {documents[CALL]['host']['kernel']}), guest {kernel}; {time.strftime('%Y-%m-%d')}")
    print(f"raw exit {raw:.0f} instructions; a call without a probe {documents[CALL]['call_ns']['median']:.0f}\n")
    print(f"{'case':24}{'instructions':>14}{'x raw':>8}{'target':>8}")
    missed = 0
    for function, kind, target in TARGETS:
        if (function, kind) not in found:
            print(f"{kind:24}{'-':>14}{'-':>8}{target or '':8}  not measured")
            missed += 1
            continue
        extra = found[function, kind]
        above = target is not None and extra / raw > target
        missed += above
        print(f"{kind:24}{extra:14.0f}{extra / raw:8.2f}{target or '':8}{'  above' if above else ''}")
    for function, document in documents.items():
        for row in document["probes"]:
            if row["error"] or row["lost"]:
                print(f"{function} {row['kind']}: {row['error'] or '%d lost' % row['lost']}")
    return missed


def outer(options):
    initramfs.build(kernels.fetch(options.kernel))  # here, where compiling is quick
    words = [Path(__file__).resolve(), options.build, "--kernel", options.kernel, "--calls", options.calls, "--rounds", options.rounds, "--inside"]
    words += {None: [], True: ["--la57"], False: ["--no-la57"]}[options.la57]
    output = bytearray()

    def echo(data):
        output.extend(data)
        if options.verbose:
            sys.stderr.write(data.decode(errors="replace"))

    status, _ = nested.run("python3 " + " ".join(map(str, words)), cpus=1, timeout=options.timeout, kernel=options.host, echo=echo, counted=True)
    lines = [line for line in output.decode(errors="replace").splitlines() if line.startswith("DOCUMENT ")]
    if status != 0 or not lines:
        sys.exit(f"exit status {status} on the nested host\n{output.decode(errors='replace')[-3000:]}")
    documents = json.loads(lines[-1].removeprefix("DOCUMENT "))
    if options.json:
        Path(options.json).write_text(json.dumps(documents, indent=1))
    sys.exit(1 if show(documents, options.host, options.kernel) else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", default=ROOT / "build", type=lambda text: Path(text).resolve())
    parser.add_argument("--kernel", default="6.1-cloud", help="of the guest")
    parser.add_argument("--host", default=nested.KERNEL, help="kernel of the nested host")
    parser.add_argument("--la57", action=argparse.BooleanOptionalAction,
                        help="five-level page tables in the guest, which KVM walks to decode the trap (default: as it likes)")
    parser.add_argument("--calls", type=int, default=5000, help="of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=3600, help="in seconds, for all of it")
    parser.add_argument("--json", metavar="FILE", help="keep what was measured")
    parser.add_argument("--verbose", action="store_true", help="show what the nested host says meanwhile")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    (inner if options.inside else outer)(options)


if __name__ == "__main__":
    main()
