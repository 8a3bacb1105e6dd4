#!/usr/bin/env python3
"""bench/peers.py [BUILD_DIR] - vmsight beside drgn, whole programs on the same guest memory.

drgn (Debian's package) needs a core with a VMCOREINFO note and the kernel's debug symbols; the lab
fetches those into its cache (about 400 MB, once), and `vmsight snapshot` writes the core. Both read
the same file, and vmsight the live guest too. Best of three runs each.
"""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib import kernels  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402
from vmlab_lib.symbols import debug_symbols  # noqa: E402

KERNEL = "6.1-cloud"
RUNS = 3

DRGN = {
    "ps": """
from drgn.helpers.linux import for_each_task
for task in for_each_task(prog): print(task.pid.value_(), task.comm.string_())
""",
    "lsof": """
from drgn.helpers.linux import for_each_task, for_each_file, d_path
for task in for_each_task(prog):
    if task.files:
        for fd, file in for_each_file(task): print(task.pid.value_(), fd, d_path(file.f_path))
""",
    "dmesg": "from drgn.helpers.linux import get_dmesg; print(get_dmesg(prog))",
}


def best(command):
    """(seconds, peak MiB) of the best of some runs."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{done.stderr}failed: {' '.join(map(str, command))}")
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak_mib(command):
    pid = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command])
    usage = os.wait4(pid, 0)[2]
    return usage.ru_maxrss / 1024


def main():
    build = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build").resolve()
    symbols = debug_symbols(kernels.fetch(KERNEL).release)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, \
            Guest(kernel=KERNEL, backend="memfd", name="bench-peers") as guest:
        guest.puppet("reference")
        core = f"{folder}/guest.core"
        subprocess.run([build / "vmsight", "snapshot", str(guest.pid), core], check=True)
        print(f"{'task':8} {'drgn, core':>18} {'vmsight, core':>18} {'vmsight, live':>18} {'drgn/vmsight':>13}")
        for task, script in DRGN.items():
            source = Path(folder) / f"{task}.py"
            source.write_text(script)
            rows = [["drgn", "-c", core, "-s", str(symbols), str(source)],
                    [str(build / "vmsight"), task, core], [str(build / "vmsight"), task, str(guest.pid)]]
            results = [(best(row), peak_mib(row)) for row in rows]
            cells = [f"{seconds:.3f} s {mib:.0f} MiB" for seconds, mib in results]
            print(f"{task:8} {cells[0]:>18} {cells[1]:>18} {cells[2]:>18} {results[0][0] / results[2][0]:12.1f}x")


if __name__ == "__main__":
    main()
