"""Debug symbols of a guest's kernel, and the debuggers that need them, kept in the cache."""

import re

from .apt import PrivateApt, cache_dir, kept, library_folders, natural
from .errors import LabError


def debug_symbols(release):
    """The vmlinux file of Debian's kernel of this release; about 300 MB to fetch."""
    home = cache_dir() / "symbols" / release
    kept(home, lambda: PrivateApt().unpack([f"linux-image-{release}-dbg"], home))
    return next(home.glob("**/vmlinux*"))


def crash():
    """The command of `crash` 9 or later, with its own loader and libraries.

    Earlier ones find one task only in kernels whose `struct pid` ends in an array without a
    length, which Debian's present 6.1 is; also in the cores that QEMU itself writes.
    """
    home = cache_dir() / "crash"
    kept(home, lambda: fetch_crash(home))
    loader = next(home.glob("**/ld-linux-x86-64.so.2"))
    return [str(loader), "--library-path", library_folders(home), str(home / "usr/bin/crash")]


def fetch_crash(home):
    apt = PrivateApt()
    newest = max(apt.versions("crash"), key=natural)
    if int(re.match(r"\d+", newest)[0]) < 9:
        raise LabError(f"the mirror's suites hold no crash 9, only {newest}")
    apt.unpack(apt.closure("crash", newest), home)
