"""A live patch for a guest's kernel: a module, built with the kernel's own header packages, which are unpacked only.

    live_patch.apply(guest, "6.1")     # from here on the guest runs a function that its kernel did not come with
    live_patch.revert(guest)

For kernels whose build tools run on this machine: those of its own Debian release.
"""

import base64
import re
import time
from pathlib import Path

from . import kernels
from .apt import PrivateApt, cache_dir, kept, run
from .errors import LabError
from .initramfs import digest
from .services import shell

SOURCE = Path(__file__).resolve().parents[1] / "live_patch" / "vmlab_live_patch.c"
NAME = SOURCE.stem
SAYS = "this kernel is live-patched"
CONTROL = f"/sys/kernel/livepatch/{NAME}"
PIECE = 2400  # characters of base64 in one command to the guest
PATIENCE = 120  # seconds, for all tasks to come to where the function may be exchanged


def build(kernel):
    """The module's bytes."""
    found = kernels.fetch(kernel)
    key = digest(SOURCE.read_bytes(), Path(__file__).read_bytes(), found.release.encode())
    home = cache_dir() / "live-patch" / f"{found.release}-{key}"
    return (kept(home, lambda: compile_at(home, found.release)) / "out" / f"{NAME}.ko").read_bytes()


def compile_at(home, release):
    apt = PrivateApt()
    version = re.match(r"\d+\.\d+", release)[0]
    headers = f"linux-headers-{release}"
    exact = apt.versions(headers)
    if not exact:
        raise LabError(f"no package holds the headers of {release}")
    common = re.sub(r"(-cloud|-rt)?-amd64$", "-common", headers)
    apt.unpack([f"{headers}={exact[0]}", f"{common}={exact[0]}", f"linux-kbuild-{version}={exact[0]}"], home)
    sources = home / "usr/src"
    # The packages name each other by where they are installed.
    for file in (sources / headers / "Makefile", sources / headers / ".kernelvariables"):
        file.write_text(file.read_text().replace("/usr/src/", f"{sources}/"))
    out = home / "out"
    out.mkdir()
    (out / SOURCE.name).write_bytes(SOURCE.read_bytes())
    (out / "Kbuild").write_text(f"obj-m := {NAME}.o\n")
    run("make", "-C", sources / headers, f"M={out}", "modules")
    run("strip", "--strip-debug", out / f"{NAME}.ko")


def says(guest):
    return shell(guest, "cat /proc/cmdline").strip()


def apply(guest, kernel):
    encoded = base64.b64encode(build(kernel)).decode()
    shell(guest, "rm -f /tmp/patch.64")
    for at in range(0, len(encoded), PIECE):
        shell(guest, f"echo {encoded[at:at + PIECE]} >> /tmp/patch.64")
    shell(guest, f"busybox base64 -d /tmp/patch.64 > /tmp/{NAME}.ko; busybox insmod /tmp/{NAME}.ko")
    settle(guest, lambda: says(guest) == SAYS, "the live patch does not come into force")


def revert(guest):
    shell(guest, f"echo 0 > {CONTROL}/enabled")
    settle(guest, lambda: "gone" in shell(guest, f"ls -d {CONTROL} 2>/dev/null || echo gone"),
           "the live patch does not end")
    shell(guest, f"busybox rmmod {NAME}")
    if says(guest) == SAYS:
        raise LabError("the live patch is still in force")


def settle(guest, condition, otherwise):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{otherwise}: {shell(guest, 'dmesg | busybox tail -5')}")
        time.sleep(0.2)
