"""QEMU: the machine's own, one by path, or another Debian version kept in the cache.

A foreign version comes with all the libraries it needs, down to the C library. Its program is made
to name its own dynamic loader, so that it runs as itself: /proc/PID/exe is a QEMU.
"""

import re
import shutil
import struct
from pathlib import Path

from .apt import PrivateApt, cache_dir, kept, library_folders, natural
from .errors import LabError

PROGRAM = "qemu-system-x86_64"
PT_INTERP = 3


def find(wish):
    """([program and its first arguments], environment) for a path, a version, or None."""
    if wish and re.fullmatch(r"\d+(\.\d+)*", wish):
        return fetched(wish)
    program = shutil.which(wish or PROGRAM)
    if not program:
        raise LabError(f"no such program: {wish or PROGRAM}", "apt-get install qemu-system-x86, or --qemu VERSION")
    return [program], {}


def fetched(version):
    home = cache_dir() / "qemu" / version
    kept(home, lambda: download(version, home))
    arguments = [str(home / "usr/bin" / PROGRAM), "-L", str(home / "usr/share/qemu"), "-L", str(home / "usr/share/seabios")]
    return arguments, {"LD_LIBRARY_PATH": library_folders(home)}


def download(version, home):
    apt = PrivateApt()
    offered = [full for full in apt.versions("qemu-system-x86") if re.match(rf"\d+:{re.escape(version)}\b", full)]
    if not offered:
        raise LabError(f"the mirror's suites hold no QEMU {version}",
                       "they hold " + ", ".join(sorted({full.split(":")[1].split("+")[0]
                                                        for full in apt.versions("qemu-system-x86")}, key=natural)))
    apt.unpack(apt.closure("qemu-system-x86", max(offered, key=natural)), home)
    name_loader(home / "usr/bin" / PROGRAM, next(home.glob("**/ld-linux-x86-64.so.2")))


def name_loader(program, loader):
    """Points the program's PT_INTERP at `loader`: the longer path goes to the file's end."""
    image = bytearray(Path(program).read_bytes())
    headers, = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    path = str(loader).encode() + b"\0"
    for at in range(headers, headers + size * count, size):
        if struct.unpack_from("<I", image, at)[0] == PT_INTERP:
            struct.pack_into("<Q", image, at + 8, len(image))           # p_offset
            struct.pack_into("<QQ", image, at + 32, len(path), len(path))  # p_filesz, p_memsz
    program.write_bytes(image + path)
