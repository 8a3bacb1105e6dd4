#!/usr/bin/env python3
"""crash_core.py - `crash` opens a core of `snapshot` of a 6.1 guest and finds every task in it."""
import re
import subprocess
import tempfile
from pathlib import Path

from harness import Guest, expect, main, vmsight
from vmlab_lib import kernels
from vmlab_lib.symbols import crash, debug_symbols


def tasks_of(output):
    """{pid: name} of crash's `ps`: PID PPID CPU TASK ST %MEM VSZ RSS COMM."""
    lines = re.finditer(r"^>?\s+(\d+)\s+\d+\s+\d+\s+[0-9a-f]{16}\s+\w+\s.*?(\S+)$", output, re.M)
    return {int(line[1]): line[2].strip("[]") for line in lines}


def crash_core():
    vmlinux = debug_symbols(kernels.fetch("6.1-cloud").release)
    with tempfile.TemporaryDirectory() as home, \
         Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="crash-core") as guest:
        core = Path(home) / "core"
        guest.puppet("workers 5")
        before = guest.report()
        vmsight("snapshot", guest.pid, core, "--consistent")
        processes = {p["pid"] for p in before["processes"]} & {p["pid"] for p in guest.report()["processes"]}
        done = subprocess.run([*crash(), "--no_crashrc", "-s", vmlinux, core], input="ps\nquit\n",
                              capture_output=True, text=True, errors="replace", timeout=900, check=False)
        tasks = tasks_of(done.stdout)
        missing = processes - tasks.keys()
        expect(not missing, f"crash misses {sorted(missing)} of {len(processes)}:\n{done.stdout[-2000:]}\n"
               f"{done.stderr[-1000:]}")
        print(f"crash lists {len(tasks)} tasks, all {len(processes)} processes among them")


if __name__ == "__main__":
    main(crash_core)
