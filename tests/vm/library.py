#!/usr/bin/env python3
"""library.py - programs that others write with libvmsight: installed, built outside the tree, and true.

The library is installed as `make install` does it; each example is built with nothing but what pkg-config
says, one also by CMake's package; what they print is held against the guest's own word or vmsight's.
"""
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from harness import ROOT, VMSIGHT, Guest, expect, main, vmsight

BUILD = Path(VMSIGHT).resolve().parent
CMAKE = """cmake_minimum_required(VERSION 3.16)
project(stranger CXX)
find_package(vmsight 0.1 REQUIRED)
add_executable(processes processes.cpp)
target_link_libraries(processes vmsight::vmsight)
"""


def done(*command, **options):
    ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, errors="surrogateescape",
                         timeout=300, check=False, **options)
    expect(ran.returncode == 0, f"{' '.join(map(str, command))}: exit status {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


class Installed:
    def __init__(self, prefix):
        self.prefix = prefix
        for component in ("vmsight", "library", "dev"):
            done("cmake", "--install", BUILD, "--prefix", prefix, "--component", component)
        self.library = next(prefix.glob("lib/**/libvmsight.so"))
        # The guard and the study must be found where they were installed.
        self.environment = {**{name: value for name, value in os.environ.items() if name not in ("VMSIGHT_GUARD", "VMSIGHT_STUDY")}, "PKG_CONFIG_PATH": str(next(prefix.glob("lib/**/pkgconfig"))),
                            "LD_LIBRARY_PATH": str(self.library.parent)}

    def flags(self, *words):
        return done("pkg-config", *words, "vmsight", env=self.environment).split()

    def build(self, source, into):
        compiler = ["cc", "-std=c11", "-pedantic"] if source.suffix == ".c" else ["c++", "-std=c++20"]
        program = into / source.stem
        done(*compiler, "-Wall", "-Wextra", "-Werror", "-O1", source, "-o", program, *self.flags("--cflags", "--libs"),
             cwd=into)
        return program

    def run(self, *command):
        return done(*command, env=self.environment)


def check_symbols(library):
    """Nothing is shown but what the public headers declare."""
    listing = done("nm", "-D", "-C", "--defined-only", library).splitlines()
    names = [line.split(" ", 2)[2] for line in listing]
    ours = [name for name in names if re.match(r"vmsight_\w+$|(typeinfo for |typeinfo name for |vtable for )?vmsight::", name)]
    expect(len(ours) > 100, f"{library} shows {len(ours)} names of ours")
    expect(set(names) == set(ours), f"{library} also shows {sorted(set(names) - set(ours))[:20]}")
    for inner in ("vmsight::CgroupsReader", "vmsight::JsonWriter", "vmsight::Qmp"):
        expect(not any(inner in name for name in ours), f"{library} shows {inner}")


def check_headers(installed, home):
    """Each stands alone, in C++, and those for C in C."""
    headers = sorted((installed.prefix / "include/vmsight").glob("*.h"))
    expect(len(headers) > 10, f"only {headers} were installed")
    for header in headers:
        source = home / "alone.cpp"
        source.write_text(f"#include <vmsight/{header.name}>\n")
        for compiler in ("c++", "clang++"):
            done(compiler, "-std=c++20", "-Wall", "-Werror", "-fsyntax-only", source, *installed.flags("--cflags"))
    source = home / "alone.c"
    source.write_text("#include <vmsight/vmsight.h>\nint main(void) { return vmsight_version()[0] == 0; }\n")
    done("cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", source,
         *installed.flags("--cflags"))


def check_study(installed):
    """The verb becomes the program that was installed with it, whose word it is that there is no such VM."""
    asked = subprocess.run([installed.prefix / "bin/vmsight", "study", "loop", "no-such-vm"], capture_output=True, text=True,
                           timeout=60, env=installed.environment, check=False)
    expect(asked.returncode == 1 and "no-such-vm" in asked.stderr, f"study: exit status {asked.returncode}: {asked.stderr}")


def check_cmake(installed, home):
    (home / "stranger").mkdir()
    (home / "stranger/CMakeLists.txt").write_text(CMAKE)
    (home / "stranger/processes.cpp").write_text((ROOT / "examples/processes.cpp").read_text())
    done("cmake", "-S", home / "stranger", "-B", home / "stranger/build", f"-DCMAKE_PREFIX_PATH={installed.prefix}")
    done("cmake", "--build", home / "stranger/build")
    return home / "stranger/build/processes"


def records(text):
    """[{field: value as text}] of what examples/records prints."""
    found = []
    for line in text.splitlines():
        if not line.startswith("  "):
            found.append({})
        else:
            name, _, value = line[2:].partition(": ")
            found[-1][name] = value
    return found


def check_records(installed, program, guest, image):
    """Every kind, every field, against the document that the program prints of the same image."""
    vmsight("snapshot", guest.pid, image)
    document = json.loads(vmsight("state", image, "--json", "--threads"))
    kinds = installed.run(program, image).split()
    expect(len(kinds) > 10, f"kinds: {kinds}")
    for kind in kinds:
        theirs = records(installed.run(program, image, kind))
        expect(len(theirs) == len(document[kind]), f"{kind}: {len(theirs)} records, not {len(document[kind])}")
        for one, other in zip(theirs, document[kind]):
            compare(kind, one, other)
    return len(kinds)


def compare(kind, told, record):
    for name, value in record.items():
        if isinstance(value, (dict, list)):
            same = json.loads(told[name].rsplit("]", 1)[0] + "]" if isinstance(value, list) else told[name]) == value
        elif value is None:
            same = told[name].split(" ")[0] == "-"
        elif isinstance(value, bool):
            same = told[name] == ("yes" if value else "no")
        elif isinstance(value, (int, float)):
            same = float(told[name].split(" ")[0]) == value or isinstance(value, float)
        else:  # the document escapes what is no UTF-8, and the program what is no text
            plain = value.isascii() and value.isprintable() and "\\" not in value
            same = not plain or told[name] == value or told[name].startswith(value + " ")
        expect(same, f"{kind}.{name}: {told[name]!r}, the document says {value!r}")


def library():
    with tempfile.TemporaryDirectory() as directory, Guest(kernel="6.1-cloud", backend="memfd", name="library") as guest:
        home = Path(directory)
        installed = Installed(home / "prefix")
        check_study(installed)
        check_symbols(installed.library)
        check_headers(installed, home)
        built = home / "built"
        built.mkdir()
        programs = {source.stem: installed.build(source, built) for source in sorted((ROOT / "examples").glob("*.c*"))}
        guest.puppet("reference")
        for program in (programs["processes"], check_cmake(installed, home)):
            lines = re.findall(r"^ *(\d+) +\d+ KiB  (.*)$", installed.run(program, guest.pid), re.M)
            told = {int(pid): comm for pid, comm in lines}
            report = {p["pid"]: p["comm"] for p in guest.report()["processes"] if not p.get("reporter")}
            expect(set(report) <= set(told), f"{program} misses {set(report) - set(told)}")
            # A worker is called by what it does, which changes all the time.
            plain = {pid for pid, comm in report.items() if re.fullmatch(r"(?!kworker)[ -\[\]-~]*", comm)}
            wrong = {pid: (told[pid], report[pid]) for pid in plain if told[pid] != report[pid]}
            expect(not wrong, f"{program} differs from the guest: {wrong}")
        value = installed.run(programs["variable"], guest.pid)
        expect(re.fullmatch(r"jiffies_64 at 0xffff[0-9a-f]+: [1-9]\d+\n", value), f"variable printed {value!r}")
        kinds = check_records(installed, programs["records"], guest, home / "image")
        opens = subprocess.Popen([programs["opens"], str(guest.pid)], env=installed.environment, stdout=subprocess.PIPE,
                                 text=True)
        try:
            while opens.poll() is None:
                guest.puppet("sh cat /etc/passwd /etc/hostname")
        finally:
            opens.kill() if opens.poll() is None else None
        told = opens.stdout.read()
        expect(opens.returncode == 0 and re.search(r'^cat \(\d+\) opens "/etc/passwd"$', told, re.M),
               f"opens ended with {opens.returncode} and told {told[:500]!r}")
        print(f"{len(programs)} programs built outside the tree; {kinds} kinds of records as the document has them")


if __name__ == "__main__":
    main(library)
