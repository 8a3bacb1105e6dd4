#!/usr/bin/env python3
"""bench/watch.py [BUILD_DIR] [SECONDS] - what `vmsight watch` costs its host, by the rules that ship.

CPU time (user and system, of all its processes) over that time (60 s), on the lab's `reference` guest, beside a loop
that reads the whole state once a second and writes it nowhere; starting up is in it. All rules about records and
integrity together may take 5 % of a core. Rules with probes cost the guest as docs/probes.md says of its engine: here it
is counted how often their places are hit while the guest works (files, pipes, programs, sockets of its shell).
"""
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib.guest import Guest  # noqa: E402

BOUND = 5.0  # % of a core
WORK = "sh while :; do ls -lR /proc/self /bin | grep busybox | sort | head -3; cat /proc/mounts; true; done > /dev/null 2>&1 &"


def measured(command, seconds):
    """(% of a core, MiB)"""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds / 2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode != 0:
        sys.exit(f"{command}: exit status {process.returncode}")
    anonymous = int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024
    return (usage.ru_utime + usage.ru_stime) / seconds * 100, anonymous


def show(what, cost):
    print(f"{what:<44} {cost[0]:6.2f} % of a core {cost[1]:7.1f} MiB of its own", flush=True)
    return cost[0]


def hits(vmsight, guest, seconds):
    guest.puppet(WORK)
    with subprocess.Popen([vmsight, "watch", str(guest.pid), "--rules", ROOT / "rules/emergency.yaml"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watch:
        time.sleep(seconds)
        said = subprocess.run([vmsight, "watch", "--status", str(guest.pid), "--json"], stdout=subprocess.PIPE, check=True)
        watch.terminate()
    status = json.loads(said.stdout)
    for watched in status["watches"]:
        for vm in watched["vms"]:
            for rule in vm["rules"]:
                print(f"  {rule['rule']:<64} {rule['hits'] / seconds:8.1f} hits/s, {rule['judged'] / seconds:.1f} told",
                      flush=True)


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build")
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    vmsight = build / "vmsight"
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="bench-watch") as guest:
        guest.puppet("reference")
        pid, rules = str(guest.pid), ROOT / "rules"
        show("the whole state, once a second",
             measured([vmsight, "monitor", pid, "--duration", str(seconds)], seconds))
        for name in ("state", "progress", "integrity"):
            show(f"rules/{name}.yaml",
                 measured([vmsight, "watch", pid, "--rules", rules / f"{name}.yaml", "-d", str(seconds)], seconds))
        together = show("rules/state.yaml and rules/integrity.yaml",
                        measured([vmsight, "watch", pid, "--rules", rules / "state.yaml", "--rules",
                                  rules / "integrity.yaml", "-d", str(seconds)], seconds))
        print(f"of which {BOUND} % are allowed: {'met' if together <= BOUND else 'not met'}")
        print("hits of rules/emergency.yaml while the guest works:")
        hits(vmsight, guest, min(seconds, 20))
    sys.exit(together > BOUND)


if __name__ == "__main__":
    main()
