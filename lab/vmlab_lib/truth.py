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
    processes = [process for pid in pids if (process := read_process(report, pid))]
    files = read_files(report)
    return {
        "schema": "vmsight.state/1",
        "vm": None,
        "view": {"technique": "guest"},
        "os": read_os(report),
        "cpus": read_cpus(report),
        "net_devices": truth_net.devices(report),
        "modules": read_modules(report),
        "processes": processes,
        "open_files": files,
        "memory_maps": [area for pid in pids for area in read_maps(report, pid)],
        "sockets": truth_net.sockets(report, processes, files),
        "mounts": read_mounts(report),
        "kernel_log": read_log(report),
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
            number, parent, device, root, target, options = left.split(b" ")[:6]
            fstype, source, super_options = (right.split(b" ") + [b""])[:3]
            mounts.append({"source": octal_text(source), "target": octal_text(target), "fstype": text(fstype),
                           "options": text(options), "mntns": int(match[1]), "id": int(number),
                           "parent": int(parent), "device": text(device), "root": octal_text(root),
                           "super_options": text(super_options)})
    return mounts


# ---- processes ----

def read_process(report, pid):
    base = f"/proc/{pid}"
    head, _, rest = content(report, f"{base}/stat").rpartition(b")")  # the name may hold anything but a zero
    stat = rest.split()
    status = dict(re.findall(rb"^(\w+):\t(.*)$", content(report, f"{base}/status"), re.M))
    if len(stat) < 22 or b"Uid" not in status:
        return None  # it died while it was read
    number = [0, 0, 0] + [int(field) if field.lstrip(b"-").isdigit() else 0 for field in stat]  # as proc(5) counts
    # The puppet runs while it reports, and else sleeps.
    letter = "S" if content(report, "reporter") == b"%d" % pid else stat[0].decode()
    uids, gids = status[b"Uid"].split(), status[b"Gid"].split()
    has_memory = number[23] != 0
    return {
        "pid": pid, "tgid": int(status[b"Tgid"]), "ppid": number[4],
        "comm": text(head.partition(b"(")[2]),
        "cmdline": arguments(content(report, f"{base}/cmdline")),
        "state": letter, "uid": int(uids[0]), "gid": int(gids[0]), "euid": int(uids[1]),
        "kernel_thread": bool(number[9] & PF_KTHREAD), "threads": number[20],
        "start_time_ns": number[22] * TICK_NS, "utime_ns": number[14] * TICK_NS, "stime_ns": number[15] * TICK_NS,
        "rss_bytes": number[24] * PAGE if has_memory else None, "vsize_bytes": number[23] if has_memory else None,
        "exe": link(report, f"{base}/exe"), "cwd": link(report, f"{base}/cwd"),
        "pidns": namespace(report, f"{base}/ns/pid"), "mntns": namespace(report, f"{base}/ns/mnt"),
        "netns": namespace(report, f"{base}/ns/net"),
        "ns_pids": [int(word) for word in status.get(b"NSpid", b"%d" % pid).split()],
        "switches": int(status[b"voluntary_ctxt_switches"]) + int(status[b"nonvoluntary_ctxt_switches"]),
        "validity": "zombie" if letter == "Z" else "live",
        "reporter": content(report, "reporter") == b"%d" % pid,
    }


def arguments(data):
    if not data:
        return []
    return [text(word) for word in (data[:-1] if data.endswith(b"\0") else data).split(b"\0")]


def read_files(report):
    files = []
    for path, target in report.items():
        match = re.fullmatch(r"/proc/(\d+)/fd/(\d+)", path)
        if not match:
            continue
        pid, fd = int(match[1]), int(match[2])
        info = dict(re.findall(rb"^(\w+):\s*(\S+)", content(report, f"/proc/{pid}/fdinfo/{fd}"), re.M))
        facts = content(report, f"/proc/{pid}/fdstat/{fd}").split()
        files.append({"pid": pid, "fd": fd, "type": file_type(target, facts), "path": text(target),
                      "pos": int(info[b"pos"]) if b"pos" in info else None,
                      "flags": text(info[b"flags"]) if b"flags" in info else None,
                      "inode": int(facts[0]) if facts else None})
    return sorted(files, key=lambda file: (file["pid"], file["fd"]))


def file_type(target, facts):
    if target.startswith(b"anon_inode:"):
        return "ANON"
    return FILE_TYPES.get(int(facts[1], 8) >> 12, "ANON") if facts else None


def read_maps(report, pid):
    areas = []
    for line in content(report, f"/proc/{pid}/maps").split(b"\n"):
        # "start-end perms offset dev inode", blanks to column 73, path
        fields = line.split(b" ", 5)
        if len(fields) < 5:
            continue
        start, end = fields[0].split(b"-")
        path = fields[5].lstrip(b" ") if len(fields) > 5 else b""
        areas.append({"pid": pid, "start": hex(int(start, 16)), "end": hex(int(end, 16)), "perms": text(fields[1]),
                      "offset": int(fields[2], 16), "path": octal_text(path), "inode": int(fields[4])})
    return areas
