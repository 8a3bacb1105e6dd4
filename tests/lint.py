#!/usr/bin/env python3
"""tests/lint.py BUILD_DIR [JOBS] - clang-format without a difference, clang-tidy without a warning.

clang-format: every C and C++ file that is tracked. clang-tidy: the product's sources and every header of ours that
they include, compiled together as BUILD_DIR compiles them (the headers are most of the work).

What was clean is remembered in a folder (VMSIGHT_LINT_CACHE, or vmsight-lint in the user's cache) under the hash of
all that the answer depends on: the sources and our headers behind them, the flags, .clang-tidy, this program, and the
versions of the tools and packages. A machine without that folder looks at everything.
"""
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("VMSIGHT_LINT_CACHE") or
             Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmsight-lint")
# Sources that are compiled together are included by one, which is not what this check is about.
TIDY = ["clang-tidy", "--quiet", "--warnings-as-errors=*", "--checks=-bugprone-suspicious-include"]
KEPT_FLAGS = re.compile(r"-(I|isystem|D|std=|f(no-)?(exceptions|rtti)$)")


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def tracked_sources():
    return [name for name in output("git", "ls-files").splitlines() if re.search(r"\.(cpp|c|h)$", name)]


def check_format():
    done = subprocess.run(["clang-format", "--dry-run", "-Werror", *tracked_sources()], cwd=ROOT, check=False)
    if done.returncode != 0:
        print("hint: clang-format -i FILE (the version matters: " + output("clang-format", "--version").strip() + ")")
    return done.returncode == 0


class Unit:
    """One compilation of the build: a source, or some that are compiled together."""

    def __init__(self, entry):
        self.folder = Path(entry["directory"])
        self.source = self.folder / entry["file"]
        self.flags = list(self.wanted(shlex.split(entry["command"])))
        self.folders = [self.folder / word.removeprefix("-I") for before, word in pairwise(["", *self.flags])
                        if word.startswith("-I") or before == "-isystem"]

    @staticmethod
    def wanted(words):
        """The flags that say what is compiled. A precompiled header is GCC's: its text takes its place."""
        words = iter(words)
        for word in words:
            if word == "-isystem":
                yield from (word, next(words))
            elif word == "-include":
                for header in includes(Path(next(words))):
                    yield from (word, header)
            elif KEPT_FLAGS.match(word):
                yield word

    @property
    def name(self):
        target = re.search(r"CMakeFiles/([^/]+)\.dir", str(self.source))
        return f"{target[1]} {self.source.stem}" if target else str(self.source.relative_to(ROOT))

    def files(self):
        """The source and all files of ours behind it, found by their #include lines."""
        forced = [Path(self.flags[at + 1]) for at, flag in enumerate(self.flags) if flag == "-include"]
        found, left = set(), [self.source, *forced]
        while left:
            path = left.pop()
            if path in found:
                continue
            found.add(path)
            left += [hit for name in includes(path) if (hit := self.find(name, path.parent))]
        return sorted(found)

    def find(self, name, beside):
        for folder in (beside, *self.folders):
            if (folder / name).is_file() and not str(folder).startswith("/usr/"):
                return Path(os.path.normpath(folder / name))
        return None

    def is_product(self):
        folders = {path.relative_to(ROOT).parts[0] for path in self.files() if path.is_relative_to(ROOT)}
        return "src" in folders and not folders & {"tests", "bench"}

    def key(self):
        digest = hashlib.sha256(repr((environment(), [portable(flag) for flag in self.flags])).encode())
        for path in self.files():
            digest.update(portable(str(path)).encode() + b"\0" + portable(path.read_text(errors="replace")).encode() + b"\0")
        return digest.hexdigest()

    def check(self):
        """None if it is clean, else what clang-tidy says."""
        known = CACHE / self.key()
        if known.exists():
            known.touch()
            return None
        done = subprocess.run([*TIDY, str(self.source), "--", *self.flags], cwd=self.folder, capture_output=True,
                              text=True, check=False)
        if done.returncode != 0:
            return done.stdout + "".join(line + "\n" for line in done.stderr.splitlines() if "error" in line)
        CACHE.mkdir(parents=True, exist_ok=True)
        known.touch()
        return None


def portable(text):
    """Another checkout of the same files has the same results."""
    return text.replace(str(ROOT), "")


@cache
def includes(path):
    return re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', path.read_text(errors="replace"), re.M)


@cache
def environment():
    """All outside the repository that an answer depends on."""
    words = [line.split()[1] for line in (ROOT / "packaging/build-deps.txt").read_text().splitlines()
             if line and not line.startswith("#")]
    packages = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *words], capture_output=True,
                              text=True, check=False).stdout
    return (output("clang-tidy", "--version"), packages, (ROOT / ".clang-tidy").read_text(), Path(__file__).read_text())


def units(build):
    entries = json.loads((build / "compile_commands.json").read_text())
    found = {entry["file"]: Unit(entry) for entry in entries if "cmake_pch" not in entry["file"]}
    return [unit for unit in found.values() if unit.source.suffix != ".c" and unit.is_product()]


def check_tidy(build, jobs):
    every, said = units(build), 0
    with ThreadPoolExecutor(jobs) as pool:
        for unit, problems in zip(every, pool.map(Unit.check, every)):
            if problems is not None:
                print(f"clang-tidy, {unit.name}:\n{portable(problems).strip()}\n", flush=True)
                said += 1
    print(f"clang-tidy: {len(every) - said} of {len(every)} compilations are clean")
    return every and not said


def main(build, jobs=os.cpu_count()):
    clean = check_format()
    clean = check_tidy(Path(build).resolve(), int(jobs)) and clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
