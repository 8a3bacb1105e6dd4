"""Programs of unpacked Debian packages, with the shared libraries that they load."""

import re

from .apt import run

LIBRARIES = "lib/x86_64-linux-gnu"
LOADER = "lib64/ld-linux-x86-64.so.2"


def needed(program):
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-dW", program))


def collect(home, programs):
    """{path in the guest: bytes} of {path in the guest: program below home} and of their libraries."""
    files = {LOADER: next(home.glob("**/ld-linux-x86-64.so.2")).read_bytes()}
    wanted = []
    for path, program in programs.items():
        files[path] = program.read_bytes()
        wanted += needed(program)
    while wanted:
        name = wanted.pop()
        path = f"{LIBRARIES}/{name}"
        if path not in files and not name.startswith("ld-linux"):
            library = next(home.glob(f"**/x86_64-linux-gnu/{name}"))
            files[path] = library.read_bytes()
            wanted += needed(library)
    return files
