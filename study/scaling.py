"""Several VMs at once: one monitor for each, all at maximum rate, then all at an equal rate; beside them one that is alone.

What one monitor costs another is the host's processors only: each looks into a VM of its own. A process of its own for each
VM is what an operator starts.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time

from figures import spread
from impact import ATTACH_SECONDS, WatchError

END_SECONDS = 60       # a view of the slowest interface takes seconds
LONGER_THAN_START = 5  # times


class Loop:
    """`vmsight study loop` of one VM."""

    def __init__(self, program, pid, technique, rate):
        self.process = subprocess.Popen(
            [str(program), "study", "loop", str(pid), "--technique", technique, "--rate", str(rate or 0)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.late = False

    def await_ready(self, deadline):
        with self.limit(deadline - time.monotonic()):
            line = self.process.stdout.readline()
        if b"ready" not in line:
            self.fail(f"no state within {ATTACH_SECONDS} s")

    def cpu(self):
        """Seconds that it and its children that ended have used; proc(5)."""
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)

    def end(self):
        """What it says of itself, after stop()."""
        with self.limit(END_SECONDS):
            out, errors = self.process.communicate()
        lines = out.decode().strip().splitlines()
        if self.process.returncode != 0 or not lines:
            self.fail(f"did not end within {END_SECONDS} s", errors)
        return json.loads(lines[-1])

    @contextlib.contextmanager
    def limit(self, seconds):
        """Whoever takes longer is killed, and it is remembered."""
        def kill():
            self.late = True
            self.process.kill()
        timer = threading.Timer(max(seconds, 0.001), kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def fail(self, why_late, errors=None):
        self.process.kill()
        errors = self.process.communicate()[1] if errors is None else errors
        said = errors.decode(errors="replace").strip().splitlines()
        raise WatchError(why_late if self.late else said[0].removeprefix("vmsight: ") if said else "ended at once")


def at_once(program, pids, technique, rate, seconds):
    """All of these VMs for so long, and long enough that it does not matter that they began one after the other; WatchError if
    one fails. CPU is that of all monitors, once all had begun."""
    loops = [Loop(program, pid, technique, rate) for pid in pids]
    try:
        deadline, ready = time.monotonic() + ATTACH_SECONDS, []
        for loop in loops:
            loop.await_ready(deadline)
            ready.append(time.monotonic())
        begun, before = time.monotonic(), sum(loop.cpu() for loop in loops)
        time.sleep(max(seconds, LONGER_THAN_START * (ready[-1] - ready[0])))
        used, took = sum(loop.cpu() for loop in loops) - before, time.monotonic() - begun
        for loop in loops:
            loop.stop()
        told = [loop.end() for loop in loops]
    except (FileNotFoundError, ProcessLookupError):
        raise WatchError("one of the monitors ended") from None
    finally:
        for loop in loops:
            if loop.process.poll() is None:
                loop.process.kill()
                loop.process.wait()
    return {"rates": [one["rate"] for one in told], "view_ms": [one["view_ns"]["median"] / 1e6 for one in told],
            "pause_share": max(one["pause_share"] for one in told), "missed": sum(one["missed"] for one in told),
            "cpu_percent": 100 * used / took, "seconds": took}


def study(program, pids, guest_name, techniques, counts, rates, plan, journal, say):
    """[{technique, vms, rate, guest, runs, each{}, all{}}]: views a second of each VM, and of all together."""
    entries = []
    for technique in techniques:
        for rate in rates:
            for count in counts:
                entry = {"technique": technique, "vms": count, "rate": rate, "guest": guest_name, "runs": [], "error": None}
                entries.append(entry)
    for turn in range(plan["pairs"]):
        for entry in entries:
            key = ("vms", guest_name, entry["technique"], entry["vms"], entry["rate"], plan["seconds"], turn)
            known = journal.get(*key)
            if not known and (entry["error"] or time.monotonic() > plan["deadline"]):
                continue
            try:
                known = known or journal.keep(
                    at_once(program, pids[:entry["vms"]], entry["technique"], entry["rate"], plan["seconds"]), *key)
            except WatchError as error:
                entry["error"] = str(error)
                continue
            entry["runs"].append(known)
            say(f"{entry['vms']} VMs {entry['technique']} {f'at {rate_text(entry)}'}: "
                f"{sum(known['rates']):.3g} views/s of all together")
    return [summarize(entry) for entry in entries]


def rate_text(entry):
    return f"{entry['rate']:g}/s" if entry["rate"] else "maximum rate"


def summarize(entry):
    runs = entry["runs"]
    entry["each"] = spread([rate for run in runs for rate in run["rates"]])
    entry["all"] = spread([sum(run["rates"]) for run in runs])
    entry["view_ms"] = spread([time_of for run in runs for time_of in run["view_ms"]])
    entry["reached"] = entry["rate"] is None or bool(entry["each"]) and entry["each"]["min"] >= 0.95 * entry["rate"]
    return entry
