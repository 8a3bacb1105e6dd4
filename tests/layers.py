#!/usr/bin/env python3
"""layers.py - the folders of the source depend only downwards.

The table in docs/architecture.md has the folders in order. A file may include headers of its own folder, of rows above
that, and of include/vmsight; some rows must not know some others, wherever they stand. What is the processor's is
included by its own folders and by those files alone that are named below. Public headers include public headers only.
No two files have the same name, so that a name says which file is meant.
"""
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"

# Though they stand above: the guest's kernel is nobody's business on the host's side, and the other way round.
MUST_NOT_KNOW = {
    "kernel": {"host", "undo", "qemu", "agent", "halt", "inject", "guard", "image", "view"},
    "state": {"host", "undo", "qemu", "agent", "halt", "inject", "guard", "image", "view", "attach"},
    "view": {"guard"},
    "library": {"guard", "cli", "study"},
}
# Who includes what is of x86-64, and why.
KNOW_X86_64 = {
    "src/kernel/architectures.cpp": "lists all there are",
    "src/probe/gdb_loop.h": "registers as the gdbstub of this QEMU tells them",
    "src/inject": "borrows system calls of this host's processor",
    "src/view/uffd_snapshot.h": "the same",
    "src/view/fork_snapshot.cpp": "the same",
}
# A program's main file is called so; public headers may be called as the source that defines what they declare.
SHARED_NAMES = {"main"}


def order():
    table = (ROOT / "docs/architecture.md").read_text()
    return re.findall(r"^\| `src/([\w/]+)` \|", table, re.M)


def room_of(path, rooms):
    """The longest row that the path of a file under src begins with."""
    return max((room for room in rooms if path.startswith(room + "/")), key=len, default=None)


def includes(file):
    return re.findall(r'^#include "([^"]+)"', file.read_text(), re.M)


def sources():
    return sorted(path for path in SOURCE.rglob("*") if path.suffix in (".h", ".cpp", ".c"))


def broken_order(rooms):
    used_rooms = set()
    for file in sources():
        path = str(file.relative_to(SOURCE))
        own = room_of(path, rooms)
        used_rooms.add(own)
        if own is None:
            yield f"src/{path}: its folder has no row in architecture.md"
            continue
        for header in includes(file):
            other = room_of(header, rooms)
            if other is None or other == own:
                continue
            if rooms.index(other) > rooms.index(own):
                yield f"src/{path} includes {header}, of a row below its own"
            if other in MUST_NOT_KNOW.get(own, ()):
                yield f"src/{path} includes {header}: {own} must not know {other}"
    for room in set(rooms) - used_rooms:
        yield f"architecture.md has src/{room}, where there is no source"


def broken_processor():
    for file in sources():
        path = str(file.relative_to(ROOT))
        if "/x86_64/" in path or any(path.startswith(known) for known in KNOW_X86_64):
            continue
        for header in includes(file):
            if "/x86_64/" in header:
                yield f"{path} includes {header}, which is the processor's: ask Architecture"


def broken_public_headers():
    for file in sorted((ROOT / "include/vmsight").glob("*.h")):
        for header in includes(file):
            if not header.startswith("vmsight/"):
                yield f"{file.relative_to(ROOT)} includes {header}, which is not installed"


def same_names():
    places = defaultdict(set)
    for file in sources():
        places[file.stem].add(str(file.relative_to(ROOT).with_suffix("")))
    for name, paths in places.items():
        if len(paths) > 1 and name not in SHARED_NAMES:
            yield f"same name: {', '.join(sorted(paths))}"


def main():
    rooms = order()
    if len(rooms) < 10 or not sources():
        sys.exit("layers.py: nothing to compare with")
    faults = [*broken_order(rooms), *broken_processor(), *broken_public_headers(), *same_names()]
    print("\n".join(faults) or f"{len(sources())} files in {len(rooms)} folders: all is in order")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
