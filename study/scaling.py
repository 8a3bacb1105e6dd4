"""Several VMs at once: one monitor for each, all at maximum rate, then all at an equal rate; beside them one that is alone.

What one monitor costs another is the host's processors only: each looks into a VM of its own. A process of its own for each
VM is what an operator starts.
"""

import os
import time

from figures import spread
from impact import Watcher, WatchError

LONGER_THAN_START = 5  # times


def cpu_of(watcher):
    """Seconds that it and its children that ended have used; proc(5)."""
    with open(f"/proc/{watcher.process.pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def at_once(program, pids, technique, rate, seconds):
    """All of these VMs for so long, and long enough that it does not matter that they began one after the other; WatchError if
    one fails. CPU is that of all monitors, once all had begun."""
    watchers = [Watcher(program, pid, technique, rate) for pid in pids]
    try:
        ready = []
        for watcher in watchers:
            watcher.await_ready()
            ready.append(time.monotonic())
        begun, before = time.monotonic(), sum(map(cpu_of, watchers))
        time.sleep(max(seconds, LONGER_THAN_START * (ready[-1] - ready[0])))
        used, took = sum(map(cpu_of, watchers)) - before, time.monotonic() - begun
        for watcher in watchers:
            watcher.stop()
        told = [watcher.end() for watcher in watchers]
    except FileNotFoundError:
        raise WatchError("one of the monitors ended") from None
    finally:
        for watcher in watchers:
            if watcher.process.poll() is None:
                watcher.process.kill()
                watcher.process.wait()
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
