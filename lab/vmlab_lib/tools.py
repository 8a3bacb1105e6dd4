"""Debian's own tools in a guest: what they say there is what the verbs of the same names have to say from outside."""

import re

from .apt import PrivateApt, cache_dir, kept
from .programs import collect

SUITE = "bookworm"
PACKAGES = ["iproute2", "util-linux", "kmod", "procps", "lsof"]
PROGRAMS = {name: name for name in ("ip", "ss", "findmnt", "lscpu", "dmesg", "ps", "pmap", "lsof")} | {"lsmod": "kmod"}
# Of what the packages need, not wanted here: only their libraries are.
LEFT_OUT = re.compile(r"perl|dpkg|tar=|usrmerge|gdbm|init-system|debconf|passwd|pam-")


def files():
    """{path in the guest: bytes} of the programs and all that they load."""
    home = cache_dir() / f"tools-{SUITE}-{'-'.join(PACKAGES)}"

    def fetch():
        apt = PrivateApt()
        packages = apt.closure_in(SUITE, PACKAGES)
        apt.unpack([package for package in packages if not LEFT_OUT.search(package)], home)

    kept(home, fetch)
    return collect(home, {f"usr/bin/{name}": next(path for path in home.glob(f"**/bin/{file}") if not path.is_symlink())
                          for name, file in PROGRAMS.items()})
