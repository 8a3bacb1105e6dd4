"""Holds our state document against the guest's own, record by record.

The guest speaks twice, before and after our reading. Only one thing excuses a difference: that the
guest's two reports differ in that very record (or that it is in only one of them).
"""

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
UNSEEN_FLAGS = {"RUNNING", "NO-CARRIER"}           # tools disagree on showing these


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
    excused: Counter = field(default_factory=Counter)

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
        return [] if name == "cmdline" else 0 if name in ("rss_bytes", "vsize_bytes") else None
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


def index(records, keys):
    """{key: record}; records with the same key are told apart by their order."""
    found, seen = {}, Counter()
    for record in records or []:
        key = tuple(canonical(name, record.get(name)) for name in keys)
        found[(*key, seen[key])] = record
        seen[key] += 1
    return found


def same_comm(guest, ours, kernel_thread):
    """A worker's comm ends in what it works on; a view may only know the 15 bytes of the task."""
    if guest == ours or not kernel_thread or not ours:
        return guest == ours
    return guest.startswith(ours + "-") or guest.startswith(ours + "+") or guest[:15] == ours


def differing(guest, ours, names):
    for name in names:
        theirs, mine = canonical(name, guest.get(name)), canonical(name, ours.get(name))
        if name == "comm" and same_comm(theirs, mine, guest.get("kernel_thread")):
            continue
        if theirs != mine:
            yield name


def changed(before, after, names):
    """Did this record change between the guest's two reports?"""
    return before is None or after is None or any(True for _ in differing(before, after, names))


def compare_section(section, before, ours, after, result):
    keys, names = SECTIONS[section]
    documents = [index(document.get(section), keys) for document in (before, ours, after)]
    for key in sorted(set().union(*documents), key=str):
        first, mine, last = (document.get(key) for document in documents)
        result.compared[section] += 1
        if first is None and last is None:
            result.differences.append(Difference(section, key, "", None, mine))
            continue
        wrong = list(differing(first or last, mine, names)) if mine else [""]
        if wrong and changed(first, last, names):
            result.excused[section] += 1
            continue
        for name in wrong:
            result.differences.append(Difference(section, key, name, first.get(name) if name else first,
                                                 mine.get(name) if name else None))


def compare_os(before, ours, after, result):
    result.compared["os"] += 1
    for name in OS_FIELDS:
        first, mine, last = (document["os"].get(name) for document in (before, ours, after))
        if mine == first or (first != last and isinstance(mine, int) and first <= mine <= last):
            continue
        result.differences.append(Difference("os", (), name, first, mine))


def compare(before, ours, after, sections=None):
    """Comparison of our document with the guest's reports before and after it."""
    result = Comparison()
    if sections is None or "os" in sections:
        compare_os(before, ours, after, result)
    for section in SECTIONS:
        if sections is None or section in sections:
            compare_section(section, before, ours, after, result)
    return result
