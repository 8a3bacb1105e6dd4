"""What a technique costs the guest's own work: paired runs, interleaved with undisturbed ones.

    U  A  U  B  U  C  U     one round of one workload; U: nobody looks on; A, B, C: techniques
    `--pair A--'

Each run is held against the undisturbed ones right before and after it, so that what the host does
meanwhile hits both. Rounds come last: when time runs out each technique has as many pairs as any other.
"""

import json
import math
import os
import select
import subprocess
import threading
import time

from figures import slowdown

ATTACH_SECONDS = 90   # until a technique has read its first states
PATIENCE = 4          # times as long as undisturbed; then the watcher is ended, and the run cut short
JITTER_RATE = 10


class WatchError(Exception):
    """A technique could not look on, or stopped doing so."""


class Watcher:
    """`vmsight study loop` in the background, from its first state on."""

    def __init__(self, program, pid, technique, rate, cpu=None):
        command = [str(program), "study", "loop", str(pid), "--technique", technique, "--rate", str(rate or 0)]
        command += ["--cpu", f"{cpu:g}"] if cpu else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.attach_seconds = ATTACH_SECONDS / ((cpu or 100) / 100)

    def await_ready(self):
        if not select.select([self.process.stdout], [], [], self.attach_seconds)[0]:
            self.end()
            raise WatchError(f"no state within {self.attach_seconds:.0f} s")
        if b"ready" not in os.read(self.process.stdout.fileno(), 64):
            raise WatchError(self.end() or "ended at once")

    def stop(self):
        """May be called from another thread, and more than once."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self):
        """What it said of itself, as a document; WatchError if it failed on the way."""
        self.stop()
        try:
            out, errors = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise WatchError("did not end when told to") from None
        lines = out.decode().strip().splitlines()
        if self.process.returncode == 0 and lines:
            return json.loads(lines[-1])
        said = errors.decode(errors="replace").strip().splitlines()
        raise WatchError(said[0].removeprefix("vmsight: ") if said else f"status {self.process.returncode}")


def watched_run(program, guest, load, amount, technique, pace, usual_seconds):
    """(score, what the watcher said, cut short?)"""
    watcher = Watcher(program, guest.pid, technique, *pace)
    watcher.await_ready()
    limit = threading.Timer(PATIENCE * usual_seconds + 1, watcher.stop)
    limit.start()
    start = time.monotonic()
    try:
        score = load.run(guest, amount)
    finally:
        limit.cancel()
        took = time.monotonic() - start
        loop = watcher.end()
    return score, loop, took > PATIENCE * usual_seconds + 1


def pair(program, guest, load, amount, technique, pace, before):
    """One watched run and the undisturbed one after it; `before` is the undisturbed one before it. `pace`: views a second or
    None, and percent of a core that the watcher is held to or None."""
    entry = {"before": before}
    try:
        entry["run"], entry["loop"], entry["cut_short"] = watched_run(
            program, guest, load, amount, technique, pace, before.get("host_s", before.get("guest_s")))
    except WatchError as error:
        entry["error"] = str(error)
    entry["after"] = load.run(guest, amount)
    if "error" not in entry:
        entry["slowdown"] = slowdown(entry["run"]["value"], before["value"], entry["after"]["value"], load.better)
    return entry


def study(program, guest, guest_name, loads, techniques, paces, plan, journal, say):
    """[{workload, technique, rate, cpu, guest, pairs ...}]. `plan`: seconds, pairs, deadline (monotonic), and
    best_rates: a rate of which the technique does not reach half is not tried."""
    entries = {}
    amounts = {}
    for load in loads:
        say(f"{load.name}: preparing the guest")
        load.prepare(guest)
        amounts[load.name] = journal.get("amount", guest_name, load.name, plan["seconds"]) or journal.keep(
            load.calibrate(guest, plan["seconds"]), "amount", guest_name, load.name, plan["seconds"])
        load.run(guest, amounts[load.name])  # the first is never as the others
        for technique in techniques:
            for pace in paces:
                entries[load.name, technique, pace] = {
                    "workload": load.name, "what": load.what, "unit": load.unit, "better": load.better, "technique": technique,
                    "rate": pace[0], "cpu": pace[1], "guest": guest_name, "amount": amounts[load.name], "pairs": []}
    for turn in range(plan["pairs"]):
        for load in loads:
            before = None
            for technique in techniques:
                for pace in paces:
                    rate, cpu = pace
                    key = ("pair", guest_name, load.name, plan["seconds"], technique, rate, *([cpu] if cpu else []), turn)
                    entry = entries[load.name, technique, pace]
                    best = plan["best_rates"].get(technique)
                    if rate and best and best < rate / 2:
                        entry["out_of_reach"] = best
                        continue
                    known = journal.get(*key)
                    if known:
                        entry["pairs"].append(known)
                        continue
                    if time.monotonic() > plan["deadline"]:
                        continue
                    before = before or load.run(guest, amounts[load.name])
                    done = pair(program, guest, load, amounts[load.name], technique, pace, before)
                    before = done["after"]
                    entry["pairs"].append(journal.keep(done, *key))
                    say(f"{load.name} {turn + 1}/{plan['pairs']} {technique} {f'at {rate}/s' if rate else 'at maximum rate'}"
                        f"{f' with {cpu:g}% of a core' if cpu else ''}: "
                        + describe(done))
    return list(entries.values())


def describe(done):
    if "error" in done:
        return done["error"]
    return (f"{'at least ' if done['cut_short'] else ''}{done['slowdown']:.2f} times as bad "
            f"({done['loop']['rate']:.3g} views/s, {done['loop']['pause_share']:.1%} paused)")


def jitter(program, guest, guest_name, load, techniques, plan, journal, say):
    """The largest gap in the guest's clock, with and without somebody who looks on at 10/s."""
    entries = []
    for technique in techniques:
        entry = {"technique": technique, "rate": JITTER_RATE, "guest": guest_name, "pairs": []}
        for turn in range(plan["pairs"]):
            key = ("jitter", guest_name, technique, turn, plan["jitter_seconds"])
            known = journal.get(*key)
            if not known and time.monotonic() > plan["deadline"]:
                continue
            known = known or journal.keep(
                pair(program, guest, load, round(plan["jitter_seconds"] * 1000), technique, (JITTER_RATE, None),
                     load.run(guest, round(plan["jitter_seconds"] * 1000))), *key)
            entry["pairs"].append(known)
        gaps = [one["run"]["value"] for one in entry["pairs"] if "run" in one]
        idle = [math.sqrt(one["before"]["value"] * one["after"]["value"]) for one in entry["pairs"]]
        entry["gap_ms"] = min(gaps, default=None)        # of noise there is always more, never less
        entry["idle_gap_ms"] = min(idle, default=None)
        if gaps:
            say(f"clock of the guest, {technique} at {JITTER_RATE}/s: largest gap {entry['gap_ms']:.3g} ms, "
                f"unwatched {entry['idle_gap_ms']:.3g} ms")
        entries.append(entry)
    return entries
