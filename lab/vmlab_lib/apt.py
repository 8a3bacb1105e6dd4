"""A private apt: own sources, lists and cache; the machine's stay untouched.

The mirror is whatever the machine's own apt uses; we only ask it for more suites.
"""

import fcntl
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError

SUITES = ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky"]
SECURITY_SUITES = ["bullseye-security", "bookworm-security", "trixie-security"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def cache_dir():
    """Where kernels, guests' programs and apt's files are kept between runs."""
    base = os.environ.get("VMSIGHT_LAB_CACHE")
    if not base:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmsight-lab"
    path = Path(base)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(name):
    """One lab at a time in a part of the cache: several tests may fetch at once."""
    with open(cache_dir() / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(home, fetch):
    """`home`, a folder of the cache that `fetch` fills; once, whoever comes first."""
    if not (home / "done").exists():
        with locked("apt"):
            if not (home / "done").exists():
                shutil.rmtree(home, ignore_errors=True)
                fetch()
                (home / "done").touch()
    return home


def library_folders(home):
    """Where the shared libraries of unpacked packages lie, as LD_LIBRARY_PATH takes them."""
    return ":".join(sorted({str(path.parent) for path in home.glob("**/*.so.*")
                            if "x86_64-linux-gnu" in str(path)}, key=len))


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise LabError(f"{command[0]} failed: {done.stderr.strip()[-600:]}",
                       "is the machine's apt working? (apt-get update)")
    return done.stdout


def mirrors():
    """(main, security) repository addresses, from the machine's own apt configuration."""
    listing = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    pairs = {tuple(line.split()) for line in listing.splitlines() if len(line.split()) == 2}
    codename = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    stable = codename[1] if codename else "bookworm"
    main = [uri for uri, suite in pairs if suite in (stable, "stable")]
    security = [uri for uri, suite in pairs if suite.endswith("-security")]
    if not main:
        raise LabError("no Debian mirror in the machine's apt sources", "the lab fetches Debian packages")
    return main[0], security[0] if security else None


def settings(home):
    pairs = {
        "Dir::Etc::sourcelist": home / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": home,
        "Dir::State::lists": home / "lists",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
    }
    return [word for key, value in pairs.items() for word in ("-o", f"{key}={value}")]


class PrivateApt:
    """Package names, and packages unpacked into a directory; nothing is ever installed."""

    def __init__(self):
        self.home = cache_dir() / "apt"
        self.options = settings(self.home)
        if not (self.home / "updated").exists():
            self.update()

    def update(self):
        for folder in ("lists/partial", "cache/archives/partial"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        main, security = mirrors()
        signed = f"[signed-by={KEYRING}] " if Path(KEYRING).exists() else ""
        lines = [f"deb {signed}{main} {suite} main" for suite in SUITES]
        if security:
            lines += [f"deb {signed}{security} {suite} main" for suite in SECURITY_SUITES]
        (self.home / "sources.list").write_text("\n".join(lines) + "\n")
        # A suite that the mirror does not have must not spoil the others: apt then only warns.
        subprocess.run(["apt-get", *self.options, "-q", "update"], capture_output=True, check=False)
        if not any((self.home / "lists").glob("*_Packages*")):
            raise LabError("apt-get update brought no package lists", f"see {self.home}/sources.list")
        (self.home / "updated").touch()

    def names(self, prefix):
        return run("apt-cache", *self.options, "pkgnames", prefix).split()

    def versions(self, package):
        """Every version on offer, newest first."""
        table = run("apt-cache", *self.options, "madison", package)
        return [line.split("|")[1].strip() for line in table.splitlines() if "|" in line]

    def unpack(self, packages, target):
        """Fetch and unpack; `packages` are names or name=version."""
        downloads = self.home / "downloads"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir()
        run("apt-get", *self.options, "-q", "download", *packages, cwd=downloads)
        target.mkdir(parents=True, exist_ok=True)
        for deb in downloads.glob("*.deb"):
            run("dpkg-deb", "-x", deb, target)
            deb.unlink()

    def suite_of(self, package, version):
        """A suite that offers this version, e.g. trixie-backports."""
        for line in run("apt-cache", *self.options, "madison", package).splitlines():
            columns = [column.strip() for column in line.split("|")]
            if columns[1:2] == [version]:
                return columns[2].split()[1].split("/")[0]
        raise LabError(f"no suite offers {package} {version}")

    def closure(self, package, version):
        """The package and all it needs, as name=version words, out of one Debian release."""
        suite = self.suite_of(package, version)
        return self.closure_in(suite, [f"{package}={version}"])

    def closure_in(self, suite, packages):
        """The same for several packages; of each the newest version that the suite and its base have."""
        release = suite.split("-")[0]
        lines = (self.home / "sources.list").read_text().splitlines()
        sources = self.home / f"{release}.list"
        sources.write_text("\n".join(line for line in lines if f" {release}" in line) + "\n")
        plan = run("apt-get", *self.options, "-o", f"Dir::Etc::sourcelist={sources}", "-q", "--simulate",
                   "--no-install-recommends", "-t", suite, "install", *packages)
        return [f"{name}={version}" for name, version in re.findall(r"^Inst (\S+) \((\S+)", plan, re.M)]


def natural(text):
    """A sort key by which 6.12 is newer than 6.1."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]
