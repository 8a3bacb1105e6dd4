#!/usr/bin/env python3
"""kcore.py - /proc/kcore, named as an image by root: the kernel that runs there shows itself.

Runs in a guest of the lab, whose userland is this machine's: what /proc says there, before and after, is the judge.
"""
import json
import os
import re
from pathlib import Path

from harness import ROOT, VMSIGHT, expect, main_nested, vmsight
from vmlab_lib import initramfs, nested
from vmlab_lib.kernels import fetch

KCORE = "/proc/kcore"


def field(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split("\t")[1]
    raise KeyError(name)


def steady(comm):
    """A worker of the kernel calls itself after what it did last: behind '-' or '+'."""
    return re.split("[-+]", comm)[0] if comm.startswith("kworker/") else comm


def own_processes():
    """PID -> (parent, name), as /proc tells."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            found[int(folder.name)] = int(field(folder.name, "PPid")), steady((folder / "comm").read_text().removesuffix("\n"))
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile
    return found


def own_modules():
    return {line.split()[0]: int(line.split()[1]) for line in Path("/proc/modules").read_text().splitlines()}


def own_mounts():
    return sorted(line.split()[4] for line in Path("/proc/1/mountinfo").read_text().splitlines())


def inner():
    before = own_processes()
    document = json.loads(vmsight("state", KCORE, "--json", timeout=600))
    after = own_processes()
    expect(document["view"]["technique"] == "file", document["view"])
    seen = {process["pid"]: (process["ppid"], steady(process["comm"])) for process in document["processes"]}
    stayed = {pid: what for pid, what in before.items() if after.get(pid) == what}
    expect(len(stayed) > 30, f"only {len(stayed)} processes stayed")
    wrong = {pid: (what, seen.get(pid)) for pid, what in stayed.items() if seen.get(pid) != what}
    expect(not wrong, f"/proc says, we say: {wrong}")
    new = set(seen) - set(before) - set(after)
    expect(len(new) <= 2, f"shown, and never in /proc: {new}")  # ours, and a kernel thread that came and went
    modules = {module["name"]: module["size"] for module in document["modules"]}
    expect(modules == own_modules(), f"{modules} but /proc/modules has {own_modules()}")
    release = vmsight("uname", "-r", KCORE, timeout=600).strip()
    expect(release == os.uname().release, f"{release} but {os.uname().release}")
    mounts = sorted(vmsight("findmnt", KCORE, "-n", "-o", "TARGET", "--raw", timeout=600).split())
    expect(mounts == own_mounts(), f"{mounts} but mountinfo has {own_mounts()}")
    refused = vmsight("ps", KCORE, "--technique", "live-map", status=3)
    expect(refused == "", "another technique wrote something")
    print(f"{len(stayed)} processes, {len(modules)} modules, {len(mounts)} mounts as /proc has them")


def outer():
    initramfs.build(fetch(nested.KERNEL))
    command = f"cd {ROOT} && VMSIGHT={VMSIGHT} python3 {Path(__file__).resolve()} inside"
    status, output = nested.run(command, timeout=800)
    print(output.decode(errors="replace"))
    expect(status == 0, f"exit status {status} in the guest")


if __name__ == "__main__":
    main_nested(outer, inner)
