"""Several VMs at once: one monitor for each, all at maximum rate, then all at an equal rate; beside them one that is alone.

What one monitor costs another is the host's processors only: each looks into a VM of its own. A process of its own for each
VM is what an operator starts; what it used is what the host's kernel says when it has ended.
"""

import json
import os
import signal
import subprocess
import time

from figures import spread
from impact import ATTACH_SECONDS, WatchError


class Loop:
    """`vmsight study loop` of one VM."""

    def __init__(self, program, pid, technique, rate):
        self.process = subprocess.Popen(
            [str(program), "study", "loop", str(pid), "--technique", technique, "--rate", str(rate or 0)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def await_ready(self, deadline):
        limit = max(0.0, deadline - time.monotonic())
        signal_at = signal.signal(signal.SIGALRM, lambda *_: self.process.kill())
        signal.setitimer(signal.ITIMER_REAL, max(limit, 0.001))
        line = self.process.stdout.readline()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal_at)
        if b"ready" not in line:
            self.process.kill()
            said = self.process.communicate()[1].decode(errors="replace").strip().splitlines()
            raise WatchError(said[0].removeprefix("vmsight: ") if said else "ended at once")

    def end(self):
        """(what it says of itself, seconds of CPU that it and its children used)"""
        self.process.send_signal(signal.SIGTERM)
        out = self.process.stdout.read()
        errors = self.process.stderr.read().decode(errors="replace").strip().splitlines()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        lines = out.decode().strip().splitlines()
        if status != 0 or not lines:
            raise WatchError(errors[0].removeprefix("vmsight: ") if errors else f"status {status}")
        return json.loads(lines[-1]), usage.ru_utime + usage.ru_stime


def at_once(program, pids, technique, rate, seconds):
    """All of these VMs for so long: {rates, cpu_percent, view_ms, pause_share}; WatchError if one fails."""
    loops = [Loop(program, pid, technique, rate) for pid in pids]
    try:
        deadline = time.monotonic() + ATTACH_SECONDS
        for loop in loops:
            loop.await_ready(deadline)
        time.sleep(seconds)
        ended = [loop.end() for loop in loops]
    finally:
        for loop in loops:
            if loop.process.returncode is None and loop.process.poll() is None:
                loop.process.kill()
                loop.process.wait()
    told = [one for one, _ in ended]
    return {"rates": [one["rate"] for one in told], "view_ms": [one["view_ns"]["median"] / 1e6 for one in told],
            "pause_share": max(one["pause_share"] for one in told), "missed": sum(one["missed"] for one in told),
            "cpu_s": sum(cpu for _, cpu in ended), "seconds": seconds}


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
