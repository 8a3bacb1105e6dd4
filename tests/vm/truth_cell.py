#!/usr/bin/env python3
"""truth_cell.py KERNEL:MACHINE:BACKEND:MEMORY:PAGING - one cell of the matrix (matrix.py).

The guest builds a known, varied state; every record of ours must equal its own, by every
technique that this cell allows, and from a snapshot.
"""
import json
import tempfile

from harness import Guest, check_truth, expect, main, state, vmsight

SCENE = ["workers 40", "files 60", "maps 20", "sockets", "special", "threads", "zombies 2", "container", "network", "mounts", "cgroups",
         "log hello from the puppet"]


def build_scene(guest):
    for command in SCENE:
        guest.puppet(command)


def techniques(backend):
    mapped = ["live-map", "halt-map:ptrace", "halt-map:freezer"] if backend == "memfd" else []
    return mapped + ["live-read", "halt-read:ptrace", "halt-read:freezer", "halt-snap:copy"]


def cell(spec):
    kernel, machine, backend, memory, paging = spec.split(":")
    with Guest(kernel=kernel, machine=machine, backend=backend, mem=memory, cpus=2, net=True, tools=True,
               la57=paging == "5level", name="truth-" + spec.replace(":", "-")) as guest:
        build_scene(guest)
        for technique in techniques(backend):
            check_truth(guest, "--technique", technique)
        check_stale_cache_is_harmless(guest)
        check_snapshot(guest)


def check_stale_cache_is_harmless(guest):
    """The second attach comes from the cache and must give the same answer as one without."""
    cached, fresh = state(guest), state(guest, "--no-cache")
    for part in ("modules", "mounts"):
        expect(cached[part] == fresh[part], f"{part} differ between a cached and a fresh attach")


def check_snapshot(guest):
    """A core that we wrote says all that the guest says of itself, before and after it was taken."""
    check_truth(guest, "--technique", "halt-snap:copy", read=state_of_core)


def state_of_core(guest, *options):
    with tempfile.NamedTemporaryFile(suffix=".core", dir="/var/tmp") as core:
        vmsight("snapshot", guest.pid, core.name, "--force", *options)
        return json.loads(vmsight("state", core.name, "--json"))


if __name__ == "__main__":
    main(cell)
