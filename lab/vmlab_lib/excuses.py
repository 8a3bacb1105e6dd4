"""What may differ from two equal reports of the guest, because reporting disturbs what is reported.

A value between the two reports is right without an excuse (comparing.py). What is here differs though both reports
say the same, and each entry says of which processes (by name), of which field, when, and why. A difference that no
entry covers fails a test the first time; an entry is added only with a cause that somebody has understood.
"""

import re
from dataclasses import dataclass
from typing import Callable

READ_ABOUT = ("utime_ns", "stime_ns")


@dataclass(frozen=True)
class Excuse:
    section: str
    names: str       # of processes: a regular expression for the whole name
    field: str       # "": the whole record
    holds: Callable  # (first report's record, ours, last report's record) -> bool
    reason: str


def ran(first, last):
    """The thread's count of context switches went on between the reports: it slept and ran in between."""
    return first.get("switches") != last.get("switches")


def seen_running(first, mine, last):
    return ran(first, last) and mine.get("state") == "R"


def seen_waiting(first, mine, last):
    """A worker that writes pages back, or a program that reads a file, sleeps so until the disk answers."""
    return ran(first, last) and first.get("state") in ("S", "I") and mine.get("state") == "D"


def slept(first, last):
    """It gave up its processor by itself in between, so it was asleep at some moment."""
    return first.get("sleeps") != last.get("sleeps")


def seen_asleep(first, mine, last):
    return slept(first, last) and first.get("state") == "R" and mine.get("state") in ("S", "I")


def same_worker(first, mine, last):
    pools = [re.match(r"kworker/[^-+]*", str(record.get("comm"))) for record in (first, mine)]
    return ran(first, last) and all(pools) and pools[0][0] == pools[1][0]


def whole_time_between(first, mine, last):
    """The two shares of its run time have a sum that lies between the reports'."""
    if not first.get("reporter") and not ran(first, last):
        return False
    values = [[record.get(name) for name in READ_ABOUT] for record in (first, mine, last)]
    if not all(isinstance(value, int) for pair in values for value in pair):
        return False
    low, ours, high = (sum(value // 10_000_000 for value in pair) for pair in values)
    return low - 1 <= ours <= high + 1  # each share is rounded down to a tick


def open_in_agent(first, mine, last):
    return not first and not last and mine.get("path") == "/proc/kcore"


EXCUSES = (
    Excuse("processes", r".*", "state", seen_running,
           "a thread that sleeps whenever the guest reports ran when we looked"),
    Excuse("processes", r"(?!rcu|ksoftirqd/).*", "state", seen_waiting,
           "a thread that has no I/O whenever the guest reports waited for a disk when we looked"),
    Excuse("processes", r".*", "state", seen_asleep,
           "a thread that works whenever the guest reports, which may be for the report, slept when we looked"),
    Excuse("processes", r"kworker/.*", "comm", same_worker,
           "a worker is called by what it did last (-), or does (+)"),
    Excuse("processes", r".*", "utime_ns", whole_time_between,
           "the kernel divides a run time by the ticks so far, and a tick in between moves the shares"),
    Excuse("processes", r".*", "stime_ns", whole_time_between,
           "the kernel divides a run time by the ticks so far, and a tick in between moves the shares"),
    Excuse("threads", r".*", "state", seen_running,
           "a thread that sleeps whenever the guest reports ran when we looked"),
    Excuse("threads", r"(?!rcu|ksoftirqd/).*", "state", seen_waiting,
           "a thread that has no I/O whenever the guest reports waited for a disk when we looked"),
    Excuse("threads", r".*", "state", seen_asleep,
           "a thread that works whenever the guest reports, which may be for the report, slept when we looked"),
    Excuse("threads", r"kworker/.*", "comm", same_worker,
           "a worker is called by what it did last (-), or does (+)"),
    Excuse("threads", r".*", "utime_ns", whole_time_between,
           "the kernel divides a run time by the ticks so far, and a tick in between moves the shares"),
    Excuse("threads", r".*", "stime_ns", whole_time_between,
           "the kernel divides a run time by the ticks so far, and a tick in between moves the shares"),
    Excuse("open_files", r"qemu-ga|vmsight-agent", "", open_in_agent,
           "an agent has the guest's memory open only while it reads it for us"),
)


def excuse(section, name, field, first, mine, last):
    """The entry that covers a difference, or None. `name` is of the process that the record belongs to."""
    for entry in EXCUSES:
        if (entry.section == section and entry.field == field and re.fullmatch(entry.names, name or "", re.S)
                and entry.holds(first, mine, last)):
            return entry
    return None
