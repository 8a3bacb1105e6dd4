#!/usr/bin/env python3
"""docs.py BUILD_DIR - what the documents say about the repository is so.

Every test that a document names exists; every file and folder too; what a document has
from the program is what the program prints, and what it has from a file is what is in it. `docs.py BUILD_DIR write` puts that in.
"""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")), *sorted((ROOT / "docs").glob("*.md"))]
FAMILIES = "vm|fuzz|sanitized|lab|study|docs"


def tests_of(build):
    listing = subprocess.run(["ctest", "--test-dir", build, "-N"], capture_output=True, text=True, check=True)
    return re.findall(r"^ *Test +#\d+: (.*)$", listing.stdout, re.M)


def unknown_tests(text, tests):
    """`vm: NAME` must be a test; `vm: NAME...` the beginning of one, as `vm: truth` is of many."""
    for name in re.findall(rf"`((?:{FAMILIES}): [^`]*)`", text):
        wanted = " ".join(name.removesuffix("...").split())
        if not any(test.startswith(wanted) for test in tests):
            yield f"no test {name!r}"


def missing_files(document, text):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        if not (document.parent / target).exists():
            yield f"no file {target}"
    for target in re.findall(r"`((?:src|tests|docs|lab|study|packaging|bench|include|examples)/[\w./-]+)`", text):
        if not (ROOT / target).exists():
            yield f"no file {target}"


def sources(build):
    """The kinds of blocks that documents have from elsewhere: the pattern of each, and what should stand there."""
    def printed(words):
        return subprocess.run([f"{build}/vmsight", *words.split()], capture_output=True, text=True, check=True).stdout

    def content(path):
        return (ROOT / path).read_text()

    return ((r"(<!-- vmsight (.*?) -->\n)(.*?)(<!-- end -->)", printed),
            (r"(<!-- file (\S+) -->\n```\w+\n)(.*?)(```\n)", content))


def outdated(text, build):
    for pattern, now in sources(build):
        for begin, source, shown, _ in re.findall(pattern, text, re.S):
            if shown != now(source):
                yield f"{begin.splitlines()[0]} is not as it is now: `make docs` writes it anew"


def write(build):
    for document in DOCUMENTS:
        text = document.read_text()
        for pattern, now in sources(build):
            text = re.sub(pattern, lambda found: found[1] + now(found[2]) + found[4], text, flags=re.S)
        document.write_text(text)


def main():
    if sys.argv[2:] == ["write"]:
        return write(sys.argv[1])
    tests = tests_of(sys.argv[1])
    faults = [] if tests else ["no tests to compare with"]
    for document in DOCUMENTS:
        text = document.read_text()
        for fault in [*unknown_tests(text, tests), *missing_files(document, text), *outdated(text, sys.argv[1])]:
            faults.append(f"{document.relative_to(ROOT)}: {fault}")
    print("\n".join(faults) or f"{len(DOCUMENTS)} documents, {len(tests)} tests: all as they say")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
