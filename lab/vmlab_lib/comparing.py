"""Holds our state document against the guest's own, record by record.

The guest speaks twice, before and after our reading. A field may differ from what it says only if
the two reports differ in that field (counters must lie between them), a record may be missing or
too many only if it is in just one of them. What reporting itself disturbs is excused by the table in
excuses.py, and by nothing else.
"""

from collections import Counter
from dataclasses import dataclass, field

from .excuses import excuse

# section: (key of a record, what is compared of it)
SECTIONS = {
    "cpus": (("cpu",), ("vendor", "model_name", "mhz", "cache_kib", "online")),
    "net_devices": (("netns", "name"), ("hwaddr", "flags", "mtu", "ipv4", "ipv6", "rx_bytes", "tx_bytes",
                                        "rx_packets", "tx_packets", "addresses", "life_times", "link_type",
                                        "operstate", "linkmode", "broadcast", "kind", "qdisc", "txqlen", "group",
                                        "ifalias", "altnames", "master_index", "master", "link_index", "link",
                                        "link_netnsid")),
    "modules": (("name",), ("state", "size", "refcount")),
    "processes": (("pid",), ("tgid", "ppid", "comm", "cmdline", "state", "uid", "gid", "euid", "kernel_thread",
                             "threads", "start_time_ns", "utime_ns", "stime_ns", "rss_bytes", "vsize_bytes", "exe",
                             "cwd", "pidns", "mntns", "netns", "ns_pids", "root", "locked_bytes", "exe_file", "cwd_file",
                             "root_file", "pgrp", "session", "tty_nr", "tpgid", "nice", "priority", "rt_priority",
                             "policy", "cgroups")),
    "threads": (("pid",), ("tgid", "comm", "state", "uid", "euid", "gid", "egid", "start_time_ns", "utime_ns", "stime_ns",
                           "nice", "priority", "rt_priority", "policy", "cwd", "root")),
    "open_files": (("pid", "tid", "fd"), ("type", "path", "pos", "flags", "inode", "rdev", "links", "size", "lock",
                                          "targets")),
    "memory_maps": (("pid", "start"), ("end", "perms", "offset", "path", "inode")),
    "sockets": (("pid", "tid", "fd", "netns", "inode"), ("family", "protocol", "state", "local", "local_port", "remote",
                                                         "remote_port", "protocol_number", "ifindex", "v6only",
                                                         "groups", "buffers")),
    "mounts": (("mntns", "target", "source"), ("fstype", "options", "super_options", "propagation", "peer_group",
                                               "master_group", "propagate_from")),
    "kernel_log": (("time_ns", "text"), ("level", "facility")),
    "cgroups": (("hierarchy", "path"), ("name", "id", "controllers", "memory_bytes", "memory_min", "memory_low", "memory_high",
                                        "memory_max", "swap_bytes", "swap_max", "pids", "pids_max", "cpu_weight",
                                        "cpu_shares", "cpu_quota_ns", "cpu_period_ns", "cpu_usage_ns")),
}
OS_FIELDS = ("sysname", "nodename", "release", "version", "machine", "uptime_s", "cmdline")
TICKS = ("start_time_ns", "utime_ns", "stime_ns")  # the guest tells them in hundredths of a second
COUNTERS = {"utime_ns", "stime_ns", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "uptime_s", "cpu_usage_ns"}
LAPSING = {"life_times"}                           # of each address two numbers that grow smaller by one a second
FOREVER = 0xffffffff                               # a life time that does not
# What is compared of a value that holds more, or goes by another name.
PARTS = {"life_times": "addresses", "buffers": "memory"}
UNSEEN_FLAGS = {"RUNNING", "NO-CARRIER"}           # tools disagree on showing these
# What a thing may be said to have if the guest says that it has no such thing.
NOTHING = {"rss_bytes": (None, 0), "vsize_bytes": (None, 0), "locked_bytes": (None, 0), "cmdline": (None, [])}


@dataclass
class Difference:
    section: str
    key: tuple
    field: str    # "" if the whole record is missing, or is too many
    guest: object
    ours: object
    later: object = None  # what the guest's second report says of the field

    def __str__(self):
        what = self.field or "record"
        later = "" if self.later in (None, self.guest) else f" then {self.later!r}"
        return f"{self.section} {self.key} {what}: guest {self.guest!r}{later}, ours {self.ours!r}"


@dataclass
class Comparison:
    differences: list = field(default_factory=list)
    compared: Counter = field(default_factory=Counter)  # records by section
    excused: Counter = field(default_factory=Counter)   # fields and records by section
    disturbed: Counter = field(default_factory=Counter)  # what excuses.py covers, by its reasons
    elapsed_s: float = 0                                 # between the two reports, by the guest's clock

    def judge(self, section, owner, difference, records):
        """Keeps a difference, unless the table of excuses has a reason for it."""
        entry = excuse(section, owner, difference.field, *records)
        if entry:
            self.excused[section] += 1
            self.disturbed[entry.reason] += 1
        else:
            self.differences.append(difference)

    def __bool__(self):
        """True if all agrees."""
        return not self.differences

    def __str__(self):
        counts = ", ".join(f"{section} {count}" + (f" ({self.excused[section]} excused)" if self.excused[section] else "")
                           for section, count in self.compared.items())
        return "\n".join([counts, *map(str, self.differences)])


def address_key(address):
    return address["family"], address["local"], address["prefixlen"], address["peer"]


def part(name, value):
    """Of addresses all but how long they are valid, or that; of a socket's memory its two sizes."""
    if name == "addresses":
        return sorted((*address_key(a), a["broadcast"], a["scope"], a["label"], sorted(a["flags"])) for a in value)
    if name == "life_times":
        return {address_key(a): (a["valid_life_time"], a["preferred_life_time"]) for a in value}
    return [value["receive_buffer"], value["send_buffer"]]


def canonical(name, value):
    """One spelling of what may be spelt in several ways, and the guest's own granularity."""
    if value is None:
        return None
    if name in ("addresses", "life_times", "buffers"):
        return part(name, value)
    if name == "altnames":
        return sorted(value)
    if name in TICKS:
        return value // 10_000_000
    if name in ("time_ns", "cpu_usage_ns"):
        return value // 1000
    if name in ("start", "end") and isinstance(value, str):
        return int(value, 16)
    if name == "flags":
        return sorted(set(value) - UNSEEN_FLAGS) if isinstance(value, list) else int(str(value), 8)
    if name.endswith("_file") and isinstance(value, dict):
        return {part: value.get(part) for part in ("type", "inode", "size", "links")}
    if name in ("ipv4", "ipv6"):
        return sorted(value)
    if name == "state" and value == "UNCONN":
        return "CLOSE"
    return round(value, 1) if name == "mhz" else value


def read(record, name):
    """A field's canonical value; a nonsensical one is like nothing but itself."""
    try:
        return canonical(name, record.get(PARTS.get(name, name)))
    except (TypeError, ValueError, KeyError):
        return "nonsense", repr(record.get(PARTS.get(name, name)))


def is_told(record, name):
    """A report may not say something of every record of its kind."""
    return PARTS.get(name, name) in record


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


def lapses(first, mine, last, elapsed_s):
    """May a life time have been `mine` between two reports? Unless a router renewed it, which shows as one that has
    lapsed by less than the time that has passed, it only grows smaller."""
    if first >= mine >= last:
        return True
    renewed = last > first - elapsed_s + 1 and first != FOREVER != last
    return renewed and (first - elapsed_s - 1 <= mine <= first or last <= mine <= last + elapsed_s + 1)


def between(name, first, mine, last, elapsed_s):
    """May a field that differs from the first report do so, as the last report differs from it too?"""
    if agrees(name, last, mine):
        return True
    if agrees(name, first, last):
        return False
    if name in LAPSING:
        first, mine, last = (read(record, name) for record in (first, mine, last))
        if not all(isinstance(values, dict) for values in (first, mine, last)):
            return False
        # An address that came or went is held against the report that has it.
        return all(lapses(a, b, c, elapsed_s) for key, times in mine.items()
                   for a, b, c in zip(first.get(key, times), times, last.get(key, times)))
    if name not in COUNTERS:
        return True
    values = [read(record, name) for record in (first, mine, last)]
    return None not in values and values == sorted(values)


def compare_record(section, key, owner, records, names, result):
    """`owner` is the name of the process that the record belongs to, if any."""
    first, mine, last = records
    if not first and not last:
        result.judge(section, owner, Difference(section, key, "", None, mine), records)
    elif not first or not last:  # it came or went while we read
        if not mine or any(is_told(first or last, name) and not agrees(name, first or last, mine) for name in names):
            result.excused[section] += 1
    elif not mine:
        result.judge(section, owner, Difference(section, key, "", first, None), records)
    else:
        for name in names:
            compare_field(section, key, owner, records, name, result)


def compare_field(section, key, owner, records, name, result):
    first, mine, last = records
    if not (is_told(first, name) and is_told(last, name)) or agrees(name, first, mine):
        return
    if between(name, *records, result.elapsed_s):
        result.excused[section] += 1
    else:
        guest, ours, later = (read(record, name) if name in PARTS else record.get(name) for record in records)
        result.judge(section, owner, Difference(section, key, name, guest, ours, later), records)


def compare(before, ours, after, sections=None):
    """Comparison of our document with the guest's reports before and after it."""
    result = Comparison()
    documents = before, ours, after
    uptimes = [(document.get("os") or {}).get("uptime_s") for document in (before, after)]
    if None not in uptimes:
        result.elapsed_s = uptimes[1] - uptimes[0]
    if sections is None or "os" in sections:
        result.compared["os"] += 1
        compare_record("os", (), None, [document.get("os") for document in documents], OS_FIELDS, result)
    owners = {process["pid"]: process.get("comm") for document in (ours, after, before)
              for process in document.get("processes") or []}
    for section, (keys, names) in SECTIONS.items():
        if sections is not None and section not in sections:
            continue
        if section == "threads" and section not in ours:
            continue  # a document has them if they are asked for
        indexes = [index(document.get(section), keys, names) for document in documents]
        for key in sorted(set().union(*indexes), key=str):
            result.compared[section] += 1
            owner = owners.get(key[0]) if keys[0] == "pid" else None
            compare_record(section, key, owner, [records.get(key) for records in indexes], names, result)
    return result
