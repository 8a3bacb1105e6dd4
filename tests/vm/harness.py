"""What the tests on real guests share: running vmsight, and holding its answer against the guest's.

The oracle is always the guest's own word (lab/), never a second reading of ours.
"""
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib import truth  # noqa: E402
from vmlab_lib import guest as lab_guest  # noqa: E402
from vmlab_lib.errors import LabError  # noqa: E402
from vmlab_lib.line import LineTimeout  # noqa: E402

VMSIGHT = os.environ.get("VMSIGHT", str(ROOT / "build" / "vmsight"))
# Programs of the tests that use the library lie elsewhere than the guard that was built with it.
os.environ.setdefault("VMSIGHT_GUARD", str(Path(VMSIGHT).resolve().parent / "vmsight-guard"))
# Commands of a guest's shell. All functions are not traced at once: an emulated guest of two processors on a busy host
# then needs longer for its timer's interrupt than for a tick, and never gets out (seen without any look from outside).
TRACER = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing"
TRACE_FUNCTIONS = f"{TRACER} && echo '__x64_sys_* vfs_* tcp_* do_*' > set_ftrace_filter && echo function > current_tracer"
TRACE_NOTHING = f"{TRACER} && echo nop > current_tracer"
SKIPPED = 77  # CTest's SKIP_RETURN_CODE; tests/run.sh turns a skip into a failure


class Failure(AssertionError):
    """A test's own verdict; everything else that is raised is a broken test or guest."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


class Guest(lab_guest.Guest):
    """The lab's; of one that no longer answers it is said where its processors and tasks are.

    A kernel may name a QEMU, too, as 6.12@10.0: that of Debian 12, 7.2, now and then breaks what a 6.12 guest holds in
    memory, watched or not.
    """

    def __init__(self, name=None, **options):
        kernel, _, qemu = options.get("kernel", "").partition("@")
        super().__init__(name, **{**options, **({"kernel": kernel, "qemu": qemu} if qemu else {})})

    def __exit__(self, failure, *details):
        if failure in (LineTimeout, TimeoutError):
            print(self._where_it_is(), file=sys.stderr)
        super().__exit__(failure, *details)

    def _where_it_is(self):
        said = ["---- the guest that does not answer, its console at the end", self.console()[-2000:].decode(errors="replace")]
        try:
            with self.qmp() as qmp:
                for _ in range(3):
                    registers = qmp.command("human-monitor-command", **{"command-line": "info registers -a"})
                    said.append("---- " + " ".join(re.findall(r"CPU#\d+|R[IS]P=\w+|HLT=\d|RFL=\w+", registers)))
                    time.sleep(0.5)
            stacks = run("stack", self.pid, "--all")
            said += ["---- stacks", stacks.stdout.decode(errors="replace"), stacks.stderr.decode(errors="replace")]
        except (LabError, OSError, subprocess.SubprocessError) as error:
            said.append(f"nothing more: {error}")
        return "\n".join(said)


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
    return json.loads(vmsight("state", guest.pid, "--json", "--threads", *options, **kwargs))


def check_truth(guest, *options, read=state):
    """Our state lies between two reports of the guest; what they agree on, we must say too.

    A difference fails the first time. What a report itself disturbs is excused in one table,
    lab/vmlab_lib/excuses.py, with the reason; nothing is looked at again until it agrees.
    """
    before = guest.report()
    ours = read(guest, *options)
    comparison = truth.compare(before, ours, guest.report())
    label = " ".join(options) or "defaults"
    expect(comparison, f"{len(comparison.differences)} differences from the guest's own word with {label}:\n"
           + "\n".join(map(str, comparison.differences[:25])))
    expect(not ours["problems"], f"problems with {label}: {ours['problems'][:10]}")
    print(f"{label}: {str(comparison).splitlines()[0]}")
    for reason, count in comparison.disturbed.items():
        print(f"  excused {count} times: {reason}")
    return ours


def main(test):
    """Runs one test function with the command line's arguments; prints an explicit verdict and what it cost."""
    begun = time.monotonic()
    try:
        test(*sys.argv[1:])
    except Failure as failure:
        print(f"FAILED: {failure}\nrun it again: {' '.join(sys.argv)}", file=sys.stderr)
        sys.exit(1)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"PASSED in {time.monotonic() - begun:.0f} s, "
          f"{sum(one.ru_utime + one.ru_stime for one in used):.0f} s of processors")


def main_nested(outer, inner):
    """main() of a test that runs itself on the nested host, with `inside` behind its arguments: `inner` is for there."""
    inside = sys.argv[-1] == "inside"
    if inside:
        sys.argv.pop()
    main(inner if inside else outer)
