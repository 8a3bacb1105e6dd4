#!/usr/bin/env python3
"""verbs_by_access.py BACKEND [long] - every verb that reads a guest says the same by every access.

BACKEND is memfd or anon (QEMU's default). One guest, QEMU 10, which has all techniques:

| access | guest | verbs in `make check` | with `long` |
|---|---|---|---|
| live-map, halt-map:ptrace, :freezer, :stop (memfd only) | held | all | all |
| live-read, halt-read:ptrace, :freezer, :stop | held | all | all |
| live-snap:uffd, live-snap:fork (anon only), halt-snap:copy | held | all | all |
| live-interface:pmemsave, :xp, halt-interface:gdbstub, :pmemsave, :xp | held | state, stack, print, read | all |
| halt-snap:dump, halt-snap:pmemsave | held | state, stack, print, read | all |
| images: ELF and raw by snapshot, ELF by dump-guest-memory | held | all | all |
| halt-snap:migrate, live-snap:background, live-snap:mapped-ram | runs | state, stack, print | all but snapshot |

Held: QEMU has stopped it (`stop` at a monitor that is not the product's), so nothing in its memory changes and
each answer must equal that of the first access to the byte. A paused guest cannot be migrated: for the last row it
runs between two moments at which it was held, and what was the same at both must be the same by the technique;
stacks are those of tasks that did not run in between, by the guest's own count, and `state` is held against its
own word.
What the first access says is held against the guest's own word.
"""
import contextlib
import hashlib
import json
import re
import tempfile

from harness import Guest, expect, main, run, truth, vmsight

MAPPED = ["live-map", "halt-map:ptrace", "halt-map:freezer", "halt-map:stop"]
READ = ["live-read", "halt-read:ptrace", "halt-read:freezer", "halt-read:stop"]
COPIED = {"memfd": ["live-snap:uffd", "halt-snap:copy"], "anon": ["live-snap:uffd", "live-snap:fork", "halt-snap:copy"]}
SLOW = ["live-interface:pmemsave", "live-interface:xp", "halt-interface:gdbstub", "halt-interface:pmemsave",
        "halt-interface:xp", "halt-snap:dump", "halt-snap:pmemsave"]
MIGRATED = ["halt-snap:migrate", "live-snap:background", "live-snap:mapped-ram"]
REFUSED = {"memfd": ["live-snap:fork"], "anon": MAPPED}

# {PID}: a process with a stack of its own to read; {STACK}: an address in it.
VERBS = {
    "ps": ["ps", "-T", "--json"],
    "ps, text": ["ps", "aux"],
    "lsof": ["lsof", "--json"],
    "pmap": ["pmap", "{PID}", "-x", "--json"],
    "ss": ["ss", "-a", "--json"],
    "ip": ["ip", "--json"],
    "lsmod": ["lsmod", "--json"],
    "dmesg": ["dmesg"],
    "lscpu": ["lscpu", "--json"],
    "uname": ["uname", "-a"],
    "findmnt": ["findmnt", "--json"],
    "state": ["state", "--json"],
    "stack": ["stack", "--all", "--json"],
    "print": ["print", "init_task", "--depth", "2"],
    "print, of a module": ["print", "(*(struct virtio_driver *)&virtio_net:virtio_net_driver).driver.name"],
    "check": ["check", "--json"],
    "type": ["type", "task_struct"],
    "sym": ["sym", "init_task"],
    "read": ["read", "linux_banner", "64"],
    "read, physical": ["read", "0x100000", "64K", "--phys"],
    "read, of a process": ["read", "{STACK}", "64", "--pid", "{PID}"],
}
# On a busy host a copy takes longer than a halt may by default; lease.py tests that bound, not this.
PATIENT = ["--max-halt", "60000"]
FEW = ["state", "stack", "print", "read, of a process"]
NOT_OF_THE_GUEST = {"vm", "view"}  # keys of documents


class Scene:
    """A guest with something in it, and how its verbs are asked."""

    def __init__(self, guest):
        self.guest = guest
        for command in ("workers 10", "files 20", "maps 10", "sockets", "special", "container", "log hello"):
            guest.puppet(command)
        maps = json.loads(vmsight("pmap", guest.pid, "1", "--json"))["memory_maps"]
        top = next(int(area["end"], 16) for area in maps if area["path"] == "[stack]")
        vmsight("check", guest.pid)  # the first one says that it has taken a baseline
        self.values = {"PID": "1", "STACK": hex(top - 256)}

    @contextlib.contextmanager
    def held(self):
        """Gives the monitor that holds the guest."""
        with self.guest.qmp() as monitor:
            monitor.command("stop")
            try:
                yield monitor
                status = monitor.command("query-status")["status"]
                expect(status == "paused", f"the guest that we hold is {status} now")
            finally:
                monitor.command("cont")

    def ask_guest(self, verb, *options):
        return self.ask(verb, self.guest.pid, *options, *PATIENT)

    def ask(self, verb, target, *options):
        """The answer, or in its place what went wrong."""
        name, *words = [word.format(**self.values) for word in VERBS[verb]]
        done = run(name, target, *words, *options)
        if done.returncode != 0 or not done.stdout or b"warning" in done.stderr:
            return f"exit status {done.returncode}: {done.stderr.decode(errors='replace')}"
        text = done.stdout.decode()
        if "--json" not in words:
            return text
        return {key: value for key, value in json.loads(text).items() if key not in NOT_OF_THE_GUEST}


def difference(expected, found):
    """The first places where two answers differ, for people; "" if they are equal."""
    if expected == found:
        return ""
    if isinstance(found, str) and found.startswith("exit status"):
        return found
    if isinstance(found, list):
        return "\n".join(found)
    if isinstance(found, str) or isinstance(expected, str):
        pairs = zip(str(expected).splitlines() + [""], str(found).splitlines() + [""])
        return next((f"{theirs!r}, and here {ours!r}" for theirs, ours in pairs if theirs != ours), "its length")
    for key in expected.keys() | found.keys():
        theirs, ours = expected.get(key), found.get(key)
        if isinstance(theirs, list) and isinstance(ours, list):
            for one, other in zip(theirs + [{}], ours + [{}]):
                if one != other:
                    return f"{key}: {differing(other, one)}, and here {differing(one, other)}"
        if theirs != ours:
            return f"{key}: {str(theirs)[:200]}, and here {str(ours)[:200]}"
    return "something"


def differing(one, other):
    return {key: value for key, value in other.items() if value != one.get(key)}


class Cells:
    """What was compared, and what differed."""

    def __init__(self):
        self.compared = 0
        self.failures = []

    def compare(self, access, verb, expected, found):
        self.compared += 1
        if said := difference(expected, found):
            self.failures.append(f"{verb} by {access}: {said}")

    def verdict(self, label):
        expect(not self.failures, f"{label}: {len(self.failures)} of {self.compared} cells differ\n" +
               "\n".join(failure[:600] for failure in self.failures[:25]))
        print(f"{label}: {self.compared} cells are equal")


def check_answers(answers, label):
    """The first access gave an answer to each verb, whole."""
    for verb, answer in answers.items():
        expect(not str(answer).startswith("exit status"), f"{verb} by {label}: {answer}")
    expect(not answers["state"]["problems"], f"problems by {label}: {answers['state']['problems'][:5]}")
    unwound = [task for task in answers["stack"]["stacks"] if not task["problem"]]
    expect(len(unwound) > 50, f"only {len(unwound)} stacks could be unwound by {label}")


def images(guest, monitor, folder):
    """{name: path} of the guest as it stands."""
    paths = {name: f"{folder}/{name.replace(' ', '-')}" for name in ("ELF core", "raw image", "QEMU's core")}
    vmsight("snapshot", guest.pid, paths["ELF core"])
    vmsight("snapshot", guest.pid, paths["raw image"], "--format", "raw")
    monitor.command("dump-guest-memory", paging=False, protocol="file:" + paths["QEMU's core"])
    return paths


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(file.read()).hexdigest()


def snapshot_by(guest, technique, folder):
    """The digest of the raw image by this technique, or what went wrong."""
    path = f"{folder}/by-technique"
    done = run("snapshot", guest.pid, path, "--force", "--format", "raw", "--technique", technique, *PATIENT)
    return digest(path) if done.returncode == 0 else done.stderr.decode(errors="replace")


def held_cells(scene, backend, is_long, folder):
    guest, cells = scene.guest, Cells()
    first, *fast = (MAPPED if backend == "memfd" else []) + READ + COPIED[backend]
    before = guest.report()
    with scene.held() as monitor:
        expected = {verb: scene.ask_guest(verb, "--technique", first) for verb in VERBS}
        check_answers(expected, first)
        image = snapshot_by(guest, first, folder)
        expect(re.fullmatch("[0-9a-f]{64}", image), f"snapshot by {first}: {image}")
        for technique in fast + SLOW:
            for verb in VERBS if is_long or technique in fast else FEW:
                cells.compare(technique, verb, expected[verb], scene.ask_guest(verb, "--technique", technique))
            if is_long or technique in fast:
                cells.compare(technique, "snapshot", image, snapshot_by(guest, technique, folder))
        for name, path in images(guest, monitor, folder).items():
            for verb in VERBS:
                cells.compare(name, verb, expected[verb], scene.ask(verb, path))
        for technique in REFUSED[backend]:
            done = run("ps", guest.pid, "--technique", technique)
            expect(done.returncode == 3 and b"hint: " in done.stderr, f"{technique} with {backend}: {done.stderr}")
    cells.verdict(f"held, {backend}")
    comparison = truth.compare(before, dict(expected["state"], view={}), guest.report())
    expect(comparison, f"{first} beside the guest's own word: {comparison}")


def running_cells(scene, backend, is_long):
    """The guest is held before and after; what is the same at both moments must be so in between."""
    guest, cells = scene.guest, Cells()
    for technique in MIGRATED:
        verbs = list(VERBS) if is_long else ["state", "stack", "print"]
        first = guest.report()
        with scene.held():
            before = {verb: scene.ask_guest(verb) for verb in verbs}
        between = {verb: scene.ask_guest(verb, "--technique", technique) for verb in verbs}
        with scene.held():
            after = {verb: scene.ask_guest(verb) for verb in verbs}
        last = guest.report()
        check_answers(between, technique)
        comparison = truth.compare(first, between["state"], last)
        cells.compare(technique, "state", [], list(map(str, comparison.differences)))
        for verb in verbs:
            compare_between(cells, technique, verb, before[verb], between[verb], after[verb], sleepers(first, last))
    cells.verdict(f"running, {backend}")


def sleepers(first, last):
    """Who did not run between the guest's two reports. A worker may run and lie down in the same place again."""
    first, last = ({task["pid"]: task["switches"] for task in report["processes"]} for report in (first, last))
    return {tid for tid, switches in first.items() if last.get(tid) == switches}


def compare_between(cells, technique, verb, before, ours, after, slept):
    if verb == "stack":
        ours, before, after = ({task["tid" if "tid" in task else "pid"]: task for task in answer["stacks"]}
                               for answer in (ours, before, after))
        same = [tid for tid in before if tid in slept]
        expect(len(same) > 50, f"only {len(same)} tasks slept on")
        expect(all(before[tid] == after.get(tid) for tid in same), "stacks of tasks that slept on have changed")
        cells.compare(technique, verb, {str(t): before[t] for t in same}, {str(t): ours.get(t) for t in same})
    elif verb != "state" and before == after:
        cells.compare(technique, verb, before, ours)


def verbs_by_access(backend, which=""):
    with Guest(kernel="6.1-cloud", backend=backend, cpus=2, net=True, mem="256M", qemu="10.0",
               name=f"verbs-by-access-{backend}") as guest, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        scene = Scene(guest)
        held_cells(scene, backend, which == "long", folder)
        running_cells(scene, backend, which == "long")


if __name__ == "__main__":
    main(verbs_by_access)
