"""Holds our state document against the guest's own, record by record.

The guest speaks twice, before and after our reading. A field may differ from what it says only if
the two reports differ in that field (counters must lie between them), a record may be missing or
too many only if it is in just one of them.

One thing happens between two equal reports: a thread that sleeps whenever the guest looks was
running when we did. It is believed of threads whose count of context switches went on.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

# section: (key of a record, what is compared of it)
SECTIONS = {
    "cpus": (("cpu",), ("vendor", "model_name", "mhz", "cache_kib", "online")),
    "net_devices": (("netns", "name"), ("hwaddr", "flags", "mtu", "ipv4", "ipv6", "rx_bytes", "tx_bytes",
                                        "rx_packets", "tx_packets")),
    "modules": (("name",), ("state", "size", "refcount")),
    "processes": (("pid",), ("tgid", "ppid", "comm", "cmdline", "state", "uid", "gid", "euid", "kernel_thread",
                             "threads", "start_time_ns", "utime_ns", "stime_ns", "rss_bytes", "vsize_bytes", "exe",
                             "cwd", "pidns", "mntns", "netns", "ns_pids")),
    "open_files": (("pid", "fd"), ("type", "path", "pos", "flags", "inode")),
    "memory_maps": (("pid", "start"), ("end", "perms", "offset", "path", "inode")),
    "sockets": (("pid", "fd", "netns", "inode"), ("family", "protocol", "state", "local", "local_port", "remote",
                                                  "remote_port")),
    "mounts": (("mntns", "target", "source"), ("fstype", "options")),
    "kernel_log": (("time_ns", "text"), ("level", "facility")),
}
OS_FIELDS = ("sysname", "nodename", "release", "version", "machine", "uptime_s", "cmdline")
TICKS = ("start_time_ns", "utime_ns", "stime_ns")  # the guest tells them in hundredths of a second
COUNTERS = {"utime_ns", "stime_ns", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "uptime_s"}
UNSEEN_FLAGS = {"RUNNING", "NO-CARRIER"}           # tools disagree on showing these
# What a thing may be said to have if the guest says that it has no such thing.
NOTHING = {"rss_bytes": (None, 0), "vsize_bytes": (None, 0), "cmdline": (None, [])}


@dataclass
class Difference:
    section: str
    key: tuple
    field: str    # "" if the whole record is missing, or is too many
    guest: object
    ours: object

    def __str__(self):
        what = self.field or "record"
        return f"{self.section} {self.key} {what}: guest {self.guest!r}, ours {self.ours!r}"


@dataclass
class Comparison:
    differences: list = field(default_factory=list)
    compared: Counter = field(default_factory=Counter)  # records by section
    excused: Counter = field(default_factory=Counter)   # fields and records by section

    def __bool__(self):
        """True if all agrees."""
        return not self.differences

    def __str__(self):
        counts = ", ".join(f"{section} {count}" + (f" ({self.excused[section]} excused)" if self.excused[section] else "")
                           for section, count in self.compared.items())
        return "\n".join([counts, *map(str, self.differences)])


def canonical(name, value):
    """One spelling of what may be spelt in several ways, and the guest's own granularity."""
    if value is None:
        return None
    if name in TICKS:
        return value // 10_000_000
    if name == "time_ns":
        return value // 1000
    if name in ("start", "end") and isinstance(value, str):
        return int(value, 16)
    if name == "flags":
        return sorted(set(value) - UNSEEN_FLAGS) if isinstance(value, list) else int(str(value), 8)
    if name in ("ipv4", "ipv6"):
        return sorted(value)
    if name == "state" and value == "UNCONN":
        return "CLOSE"
    return round(value, 1) if name == "mhz" else value


def read(record, name):
    """A field's canonical value; a nonsensical one is like nothing but itself."""
    try:
        return canonical(name, record.get(name))
    except (TypeError, ValueError):
        return "nonsense", repr(record.get(name))


def agrees(name, guest, ours):
    theirs, mine = read(guest, name), read(ours, name)
    if name in NOTHING and theirs in NOTHING[name]:
        return mine in NOTHING[name]
    return theirs == mine


def key_of(record, keys):
    """What identifies a record. Sockets that are nobody's file have no inode, only their ends."""
    key = [read(record, name) for name in keys]
    if "inode" in keys and not record.get("inode"):
        key += [read(record, name) for name in ("protocol", "local", "local_port", "remote", "remote_port")]
    return tuple(key)


def index(records, keys, names):
    """{key: record}; records with the same key are told apart by their order when sorted."""
    found, seen = {}, Counter()
    for record in sorted(records or [], key=lambda record: repr([read(record, name) for name in names])):
        key = key_of(record, keys)
        found[(*key, seen[key])] = record
        seen[key] += 1
    return found


def ran(first, last):
    return first.get("switches") != last.get("switches")


def may_be_running(name, first, mine, last):
    """Is this the trace of a thread that was running just when we looked, and not when the guest did?"""
    if not ran(first, last):
        return False
    if name == "state":
        return mine.get("state") == "R"
    if name == "comm" and first.get("kernel_thread"):  # kworker/0:1-events: what it did last, or does (+)
        worker = re.compile(r"kworker/[^-+]*")
        names = [worker.match(str(record.get("comm"))) for record in (first, mine)]
        return all(names) and names[0][0] == names[1][0]
    return False


def excused(name, first, mine, last):
    """May a field that differs from the first report do so?"""
    if agrees(name, last, mine):
        return True
    if may_be_running(name, first, mine, last):
        return True
    if agrees(name, first, last):
        return False
    if name not in COUNTERS:
        return True
    values = [read(record, name) for record in (first, mine, last)]
    return None not in values and values == sorted(values)


def compare_record(section, key, records, names, result):
    first, mine, last = records
    if not first or not last:  # it came or went while we read
        if not (first or last):
            result.differences.append(Difference(section, key, "", None, mine))
        elif not mine or any(not agrees(name, first or last, mine) for name in names):
            result.excused[section] += 1
        return
    if not mine:
        result.differences.append(Difference(section, key, "", first, None))
        return
    for name in names:
        if agrees(name, first, mine):
            continue
        if excused(name, first, mine, last):
            result.excused[section] += 1
        else:
            result.differences.append(Difference(section, key, name, first.get(name), mine.get(name)))


def compare(before, ours, after, sections=None):
    """Comparison of our document with the guest's reports before and after it."""
    result = Comparison()
    documents = before, ours, after
    if sections is None or "os" in sections:
        result.compared["os"] += 1
        compare_record("os", (), [document.get("os") for document in documents], OS_FIELDS, result)
    for section, (keys, names) in SECTIONS.items():
        if sections is not None and section not in sections:
            continue
        indexes = [index(document.get(section), keys, names) for document in documents]
        for key in sorted(set().union(*indexes), key=str):
            result.compared[section] += 1
            compare_record(section, key, [records.get(key) for records in indexes], names, result)
    return result
