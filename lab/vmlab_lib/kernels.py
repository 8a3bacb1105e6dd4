"""Stock Debian kernels by short name: `6.1-cloud`, `5.10`, `6.12-rt`, ..."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .apt import PrivateApt, cache_dir, locked, natural
from .errors import LabError

KERNELS = [f"{version}{flavour}" for version in ("5.10", "6.1", "6.12", "7.2")
           for flavour in ("-cloud", "", "-rt")]


@dataclass(frozen=True)
class Kernel:
    name: str      # 6.1-cloud
    release: str   # 6.1.0-56-cloud-amd64, what uname -r says
    image: Path
    modules: Path  # .../lib/modules/RELEASE


def fetch(name):
    """The kernel called `name`, from the cache if it is there: then without any network."""
    home = cache_dir() / "kernels" / name
    if not (home / "done").exists():
        with locked("apt"):
            if not (home / "done").exists():
                download(name, home)
    return locate(name, home)


def fetched():
    return sorted((done.parent.name for done in (cache_dir() / "kernels").glob("*/done")), key=natural)


def download(name, home):
    match = re.fullmatch(r"(\d+\.\d+)(?:-(cloud|rt))?", name)
    if not match:
        raise LabError(f"no kernel is called {name}", "known: " + " ".join(KERNELS))
    version, flavour = match.groups()
    apt = PrivateApt()
    releases = find_releases(apt, version, flavour)
    if not releases:
        raise LabError(f"no package of the mirror's suites holds kernel {name}")
    failure = None
    for release in sorted(releases, key=natural, reverse=True):
        shutil.rmtree(home, ignore_errors=True)
        try:
            apt.unpack(releases[release], home)
        except LabError as error:  # mirrors list packages that they no longer, or do not yet, hold
            failure = error
            continue
        (home / "done").write_text(" ".join(releases[release]) + "\n")
        return
    raise failure


def find_releases(apt, version, flavour):
    """{release: packages}. Since 6.19 Debian splits image and modules into two packages."""
    suffix = f"-{flavour}" if flavour else ""
    wanted = re.compile(rf"linux-(image|binary)-({re.escape(version)}\.\d+(?:-\d+)?(?:\+deb\d+)?{suffix}-amd64)")
    kinds = {}
    for package in apt.names("linux-image-") + apt.names("linux-binary-"):
        if match := wanted.fullmatch(package):
            kinds.setdefault(match[2], set()).add(match[1])
    return {release: [f"linux-binary-{release}", f"linux-modules-{release}"] if "binary" in kind
            else [f"linux-image-{release}"] for release, kind in kinds.items()}


def locate(name, home):
    images = [*home.glob("boot/vmlinuz-*"), *home.glob("usr/lib/modules/*/vmlinuz")]
    modules = [path.parent for path in home.glob("**/lib/modules/*/kernel")]
    if not images or not modules:
        raise LabError(f"the cached kernel {name} is incomplete", f"remove {home} and fetch again")
    return Kernel(name, modules[0].name, images[0], modules[0])
