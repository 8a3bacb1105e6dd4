"""QEMU: the machine's own, one by path, or another Debian version kept in the cache."""

import shutil

from .errors import LabError


def find(wish):
    """([program and its first arguments], environment)."""
    program = shutil.which(wish or "qemu-system-x86_64")
    if not program:
        raise LabError(f"no such program: {wish or 'qemu-system-x86_64'}", "apt-get install qemu-system-x86")
    return [program], {}
