"""The guest's own word, as a state document.

`state` turns a puppet's raw report (files of /proc) into the document that `vmsight state` prints.
It may carry keys the document does not promise. `compare` holds another document against it.
"""

import re
import struct

from . import truth_net
from .comparing import compare  # noqa: F401  (what tests want of this module)
from .words import octal_text, text

PAGE = 4096
TICK_NS = 10_000_000  # USER_HZ is 100 on x86
PF_KTHREAD = 0x00200000
FILE_TYPES = {0o10: "REG", 0o04: "DIR", 0o02: "CHR", 0o06: "BLK", 0o01: "FIFO", 0o14: "SOCK", 0o12: "LNK"}


def state(report):
    """The state document of a raw report {path: bytes or negative errno}."""
    pids = sorted(int(match[1]) for path in report if (match := re.fullmatch(r"/proc/(\d+)/stat", path))
                  if isinstance(report[path], bytes))
    living = living_threads(report)
    processes = [process for pid in pids if (process := read_process(report, pid, living.get(pid)))]
    files = read_files(report)
    threads = read_threads(report)
    return {
        "schema": "vmsight.state/1",
        "vm": None,
        "view": {"technique": "guest"},
        "os": read_os(report),
        "cpus": read_cpus(report),
        "net_devices": truth_net.devices(report),
        "modules": read_modules(report),
        "processes": processes,
        "threads": threads,
        "open_files": files,
        "memory_maps": [area for pid in pids for area in read_maps(report, pid, living.get(pid))],
        "sockets": truth_net.sockets(report, processes, files),
        "mounts": read_mounts(report),
        "kernel_log": read_log(report),
        "cgroups": read_cgroups(report),
        "problems": [],
    }


def content(report, path):
    """A file's bytes; empty where the guest could not read it."""
    data = report.get(path, b"")
    return data if isinstance(data, bytes) else b""


def link(report, path):
    data = report.get(path)
    return text(data) if isinstance(data, bytes) else None


def namespace(report, path):
    found = re.search(r"\[(\d+)\]", link(report, path) or "")
    return int(found[1]) if found else None


# ---- the machine ----

def read_os(report):
    uname = [text(word.split(b"\0")[0]) for word in struct.unpack("65s" * 6, report["uname"])]
    document = dict(zip(("sysname", "nodename", "release", "version", "machine"), uname))
    document["uptime_s"] = int(float(content(report, "/proc/uptime").split()[0]))
    document["cmdline"] = text(content(report, "/proc/cmdline").rstrip(b"\n"))
    return document


def read_cpus(report):
    cpus = []
    for block in text(content(report, "/proc/cpuinfo")).strip().split("\n\n"):
        fields = dict(re.findall(r"^(.*?)\s*: (.*)$", block, re.M))
        cache = re.match(r"\d+", fields.get("cache size", ""))
        cpus.append({"cpu": int(fields["processor"]), "vendor": fields.get("vendor_id"),
                     "model_name": fields.get("model name"), "mhz": float(fields.get("cpu MHz", 0)),
                     "cache_kib": int(cache[0]) if cache else None, "online": True})
    return cpus


def read_modules(report):
    modules = []
    for line in text(content(report, "/proc/modules")).splitlines():
        name, size, refcount, users, state_name = line.split()[:5]
        modules.append({"name": name, "state": state_name, "size": int(size), "refcount": int(refcount),
                        "used_by": [user for user in users.split(",") if user not in ("", "-")]})
    return modules


def read_log(report):
    """/dev/kmsg: `priority,sequence,microseconds,flags;text`, then lines of key=value with a blank before."""
    records = []
    for line in content(report, "kmsg").split(b"\n"):
        head, mark, message = line.partition(b";")
        if not mark or line.startswith(b" "):
            continue
        priority, sequence, microseconds = (int(field) for field in head.split(b",")[:3])
        raw = re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes([int(code[1], 16)]), message)
        records.append({"time_ns": microseconds * 1000, "level": priority & 7, "facility": priority >> 3,
                        "text": text(raw), "sequence": sequence})
    return records


def read_mounts(report):
    mounts = []
    for path, data in report.items():
        match = re.fullmatch(r"mnt/(\d+)/mountinfo", path)
        if not match or not isinstance(data, bytes):
            continue
        for line in data.splitlines():
            left, _, right = line.partition(b" - ")
            number, parent, device, root, target, options, *tags = left.split(b" ")
            fstype, source, super_options = (right.split(b" ") + [b""])[:3]
            mounts.append({"source": octal_text(source), "target": octal_text(target), "fstype": text(fstype),
                           "options": text(options), "mntns": int(match[1]), "id": int(number),
                           "parent": int(parent), "device": text(device), "root": octal_text(root),
                           "super_options": text(super_options)} | propagation(tags))
    return mounts


def limit(data):
    """None if there is none."""
    word = data.split()[0]
    no_limit = (b"max", b"-1", b"9223372036854771712")  # the last is v1's, of whole pages
    return None if word in no_limit else int(word)


GROUP_VALUES = {
    "cgroup.controllers": ("controllers", lambda data: text(data).split()),
    "memory.current": ("memory_bytes", int), "memory.min": ("memory_min", limit), "memory.low": ("memory_low", limit),
    "memory.high": ("memory_high", limit), "memory.max": ("memory_max", limit),
    "memory.swap.current": ("swap_bytes", int), "memory.swap.max": ("swap_max", limit),
    "memory.usage_in_bytes": ("memory_bytes", int), "memory.limit_in_bytes": ("memory_max", limit),
    "pids.current": ("pids", int), "pids.max": ("pids_max", limit),
    "cpu.weight": ("cpu_weight", int), "cpu.shares": ("cpu_shares", int),
    "cpu.cfs_quota_us": ("cpu_quota_ns", lambda data: (quota := limit(data)) and quota * 1000),
    "cpu.cfs_period_us": ("cpu_period_ns", lambda data: int(data) * 1000),
}


def read_cgroups(report):
    """A record has the values of which the guest has files. Of roots nothing is counted, though some have files."""
    numbers = {line.split(b":")[1]: int(line.split(b":")[0]) for line in content(report, "/proc/1/cgroup").splitlines()}
    groups = []
    for path, data in report.items():
        found = re.fullmatch(r"(cgroup/\d+:\d+)(/.*)?/inode", path, re.S)
        if not found or found[1] not in report:
            continue
        kind, _, options = content(report, found[1]).partition(b" - ")[2].split()
        words = set(options.split(b","))
        names = [names for names in numbers if names and set(names.split(b",")) <= words] if kind == b"cgroup" else [b""]
        if not names:
            continue
        record = {"hierarchy": numbers.get(names[0], 0), "path": found[2] or "/", "id": int(data),
                  "name": "".join(text(word[5:]) for word in words if word.startswith(b"name="))}
        base = path.removesuffix("inode")
        for file, (key, parse) in GROUP_VALUES.items():
            if content(report, base + file) and (found[2] or key == "controllers"):
                record[key] = parse(content(report, base + file))
        if found[2] and content(report, base + "cpu.max"):
            quota, period = content(report, base + "cpu.max").split()
            record |= {"cpu_quota_ns": None if quota == b"max" else int(quota) * 1000, "cpu_period_ns": int(period) * 1000}
        usage = re.search(rb"^usage_usec (\d+)$", content(report, base + "cpu.stat"), re.M)
        if found[2] and usage:
            record["cpu_usage_ns"] = int(usage[1]) * 1000
        groups.append(record)
    return groups


def propagation(tags):
    """Of the optional fields of mountinfo, and the word of findmnt for them."""
    groups = {name: int(number) for name, colon, number in (text(tag).partition(":") for tag in tags) if colon}
    words = ["shared" if "shared" in groups else "private"]
    words += ["slave"] if "master" in groups else []
    words += ["unbindable"] if b"unbindable" in tags else []
    return {"propagation": ",".join(words), "peer_group": groups.get("shared", 0),
            "master_group": groups.get("master", 0), "propagate_from": groups.get("propagate_from", 0)}


# ---- processes ----

def living_threads(report):
    """{process whose main thread has ended: where /proc shows what its threads share, below the first that lives}"""
    found = {}
    for path in report:
        if match := re.fullmatch(r"/proc/(\d+)/task/(\d+)/cmdline", path):
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return {pid: f"/proc/{pid}/task/{min(threads)}" for pid, threads in found.items()}


def stat_fields(data):
    """The name in a stat file, and its fields as proc(5) counts them; None if it is not whole."""
    head, _, rest = data.rpartition(b")")  # the name may hold anything but a zero
    stat = rest.split()
    if len(stat) < 39:
        return None
    number = [0, 0, 0] + [int(field) if field.lstrip(b"-").isdigit() else 0 for field in stat]
    return text(head.partition(b"(")[2]), stat[0].decode(), number


def file_facts(report, path):
    """What stat says of the file behind a link."""
    facts = content(report, path).split()
    return {"type": file_type(b"", facts), "inode": int(facts[0]), "size": int(facts[3]), "links": int(facts[4])} \
        if facts else None


def read_process(report, pid, alive=None):
    base = f"/proc/{pid}"
    alive = alive or base
    head, _, rest = content(report, f"{base}/stat").rpartition(b")")  # the name may hold anything but a zero
    stat = rest.split()
    status = dict(re.findall(rb"^(\w+):\t(.*)$", content(report, f"{base}/status"), re.M))
    if len(stat) < 22 or b"Uid" not in status:
        return None  # it died while it was read
    number = [0, 0, 0] + [int(field) if field.lstrip(b"-").isdigit() else 0 for field in stat]  # as proc(5) counts
    # The puppet runs while it reports, and else sleeps.
    letter = "S" if content(report, "reporter") == b"%d" % pid else stat[0].decode()
    uids, gids = status[b"Uid"].split(), status[b"Gid"].split()
    memory = stat_fields(content(report, f"{alive}/stat"))[2] if alive != base else number
    has_memory = memory[23] != 0
    locked = re.search(rb"^VmLck:\s*(\d+) kB", content(report, f"{alive}/status"), re.M)
    return {
        "pid": pid, "tgid": int(status[b"Tgid"]), "ppid": number[4],
        "comm": text(head.partition(b"(")[2]),
        "cmdline": arguments(content(report, f"{alive}/cmdline")),
        "state": letter, "uid": int(uids[0]), "gid": int(gids[0]), "euid": int(uids[1]),
        "kernel_thread": bool(number[9] & PF_KTHREAD), "threads": number[20],
        "start_time_ns": number[22] * TICK_NS, "utime_ns": number[14] * TICK_NS, "stime_ns": number[15] * TICK_NS,
        "rss_bytes": memory[24] * PAGE if has_memory else None, "vsize_bytes": memory[23] if has_memory else None,
        "locked_bytes": int(locked[1]) * 1024 if locked else None,
        "exe": link(report, f"{alive}/exe"), "cwd": link(report, f"{alive}/cwd"), "root": link(report, f"{alive}/root"),
        "exe_file": file_facts(report, f"{alive}/filestat/exe"), "cwd_file": file_facts(report, f"{alive}/filestat/cwd"),
        "root_file": file_facts(report, f"{alive}/filestat/root"),
        "pidns": namespace(report, f"{alive}/ns/pid"), "mntns": namespace(report, f"{alive}/ns/mnt"),
        "netns": namespace(report, f"{alive}/ns/net"),
        "pgrp": number[5], "session": number[6], "tty_nr": number[7], "tpgid": number[8],
        "priority": number[18], "nice": number[19], "rt_priority": number[40], "policy": number[41],
        "ns_pids": [int(word) for word in status.get(b"NSpid", b"%d" % pid).split()],
        "switches": int(status[b"voluntary_ctxt_switches"]) + int(status[b"nonvoluntary_ctxt_switches"]),
        "sleeps": int(status[b"voluntary_ctxt_switches"]),
        "validity": "zombie" if letter == "Z" and alive == base else "live",
        "reporter": content(report, "reporter") == b"%d" % pid,
        "cgroups": [text(line) for line in content(report, f"{base}/cgroup").splitlines()] or None,
    }


def read_threads(report):
    threads = []
    for path, data in report.items():
        match = re.fullmatch(r"/proc/(\d+)/task/(\d+)/stat", path)
        fields = stat_fields(data) if match and isinstance(data, bytes) else None
        if fields:
            threads.append(read_thread(report, int(match[1]), int(match[2]), *fields))
    return threads


def read_thread(report, pid, tid, comm, letter, number):
    base = f"/proc/{pid}/task/{tid}"
    status = dict(re.findall(rb"^(\w+):\t(.*)$", content(report, f"{base}/status"), re.M))
    uids, gids = status.get(b"Uid", b"0 0").split(), status.get(b"Gid", b"0 0").split()
    switches = [int(status.get(name, 0)) for name in (b"voluntary_ctxt_switches", b"nonvoluntary_ctxt_switches")]
    return {
        "pid": tid, "tgid": pid, "comm": comm, "state": "S" if content(report, "reporter") == b"%d" % tid else letter,
        "uid": int(uids[0]), "euid": int(uids[1]), "gid": int(gids[0]), "egid": int(gids[1]),
        "start_time_ns": number[22] * TICK_NS, "utime_ns": number[14] * TICK_NS, "stime_ns": number[15] * TICK_NS,
        "nice": number[19], "priority": number[18], "rt_priority": number[40], "policy": number[41],
        "cwd": link(report, f"{base}/cwd"), "root": link(report, f"{base}/root"),
        "switches": sum(switches), "sleeps": switches[0], "kernel_thread": bool(number[9] & PF_KTHREAD),
        "reporter": content(report, "reporter") == b"%d" % tid,
    }


def arguments(data):
    if not data:
        return []
    return [text(word) for word in (data[:-1] if data.endswith(b"\0") else data).split(b"\0")]


def read_files(report):
    locks = read_locks(report)
    files = []
    for path, target in report.items():
        match = re.fullmatch(r"(/proc/(\d+)(?:/task/(\d+))?)/fd/(\d+)", path)
        if not match:
            continue
        base, pid, fd = match[1], int(match[2]), int(match[4])
        info = content(report, f"{base}/fdinfo/{fd}")
        values = dict(re.findall(rb"^(\w+):\s*(\S+)", info, re.M))
        facts = content(report, f"{base}/fdstat/{fd}").split()
        inode = int(facts[0]) if facts else None
        device = text(facts[5]) if len(facts) > 5 else None  # as /proc/locks has it
        files.append({"pid": pid, "tid": int(match[3] or pid), "fd": fd, "type": file_type(target, facts),
                      "path": text(target), "pos": int(values[b"pos"]) if b"pos" in values else None,
                      "flags": text(values[b"flags"]) if b"flags" in values else None, "inode": inode,
                      "targets": targets(info), "lock": locks.get((pid, device, inode)),
                      "rdev": text(facts[2]) if facts and facts[2] != b"0:0" else None,
                      "size": int(facts[3]) if len(facts) > 3 else None,
                      "links": int(facts[4]) if len(facts) > 3 else None})
    return sorted(files, key=lambda file: (file["pid"], file["tid"], file["fd"]))


def targets(info):
    """What fdinfo says that an epoll watches, whose a pidfd is, which number an eventfd has."""
    return sorted(int(word) for word in re.findall(rb"^(?:tfd|Pid|eventfd-id):\s*(\d+)", info, re.M))


def read_locks(report):
    """{(process, device, inode): letter of lsof}."""
    strongest = {}
    for line in text(content(report, "/proc/locks")).splitlines():
        # "1: POSIX  ADVISORY  WRITE 123 00:12:456 0 EOF"; "->" for who waits
        fields = line.split()
        if len(fields) != 8 or fields[1] == "->" or fields[1] == "LEASE":
            continue
        letter = fields[3][0].lower()
        letter = letter.upper() if fields[6:] == ["0", "EOF"] else letter
        device, inode = fields[5].rsplit(":", 1)
        key = int(fields[4]), device, int(inode)
        strongest[key] = max(strongest.get(key, letter), letter, key="rRwW".index)
    return strongest


def file_type(target, facts):
    if target.startswith(b"anon_inode:"):
        return "ANON"
    return FILE_TYPES.get(int(facts[1], 8) >> 12, "ANON") if facts else None


def read_maps(report, pid, alive=None):
    areas = []
    for line in content(report, f"{alive or f'/proc/{pid}'}/maps").split(b"\n"):
        # "start-end perms offset dev inode", blanks to column 73, path
        fields = line.split(b" ", 5)
        if len(fields) < 5:
            continue
        start, end = fields[0].split(b"-")
        path = fields[5].lstrip(b" ") if len(fields) > 5 else b""
        areas.append({"pid": pid, "start": hex(int(start, 16)), "end": hex(int(end, 16)), "perms": text(fields[1]),
                      "offset": int(fields[2], 16), "path": octal_text(path), "inode": int(fields[4])})
    return areas
