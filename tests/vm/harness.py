"""What the tests on real guests share: running vmsight, and holding its answer against the guest's.

The oracle is always the guest's own word (lab/), never a second reading of ours.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib import truth  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402,F401

VMSIGHT = os.environ.get("VMSIGHT", str(ROOT / "build" / "vmsight"))
SKIPPED = 77  # CTest's SKIP_RETURN_CODE; tests/run.sh turns a skip into a failure


class Failure(AssertionError):
    """A test's own verdict; everything else that is raised is a broken test or guest."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def run(*arguments, timeout=120, environment=None):
    """The finished process; never raises for a non-zero exit."""
    return subprocess.run([VMSIGHT, *map(str, arguments)], capture_output=True, timeout=timeout,
                          env={**os.environ, **(environment or {})}, check=False)


def vmsight(*arguments, status=0, **options):
    """Standard output as text; Failure if the exit status is another."""
    done = run(*arguments, **options)
    expect(done.returncode == status,
           f"vmsight {' '.join(map(str, arguments))}: exit status {done.returncode}, expected {status}\n"
           f"{done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


def state(guest, *options, **kwargs):
    return json.loads(vmsight("state", guest.pid, "--json", *options, **kwargs))


def check_truth(guest, *options, rounds=6, excused=lambda difference: False):
    """Our state lies between two reports of the guest; what they agree on, we must say too.

    A report disturbs what it reports: a kernel thread that it wakes runs in both reports and
    sleeps in between. So a difference counts if it stands in every one of some rounds, each with
    reports of its own. `excused` differences are what our looking itself leaves in the guest.
    """
    lasting = None
    for _ in range(rounds):
        before = guest.report()
        ours = state(guest, *options)
        comparison = truth.compare(before, ours, guest.report())
        found = {(d.section, d.key, d.field): d for d in comparison.differences if not excused(d)}
        lasting = found if lasting is None else {key: found[key] for key in lasting.keys() & found.keys()}
        if not lasting:
            break
    label = " ".join(options) or "defaults"
    expect(not lasting, f"{len(lasting)} differences from the guest's own word with {label}:\n"
           + "\n".join(str(difference) for difference in list(lasting.values())[:25]))
    expect(not ours["problems"], f"problems: {ours['problems'][:10]}")
    print(f"{label}: {str(comparison).splitlines()[0]}")
    return ours


def main(test):
    """Runs one test function with the command line's arguments; prints an explicit verdict."""
    try:
        test(*sys.argv[1:])
    except Failure as failure:
        print(f"FAILED: {failure}\nrun it again: {' '.join(sys.argv)}", file=sys.stderr)
        sys.exit(1)
    print("PASSED")
