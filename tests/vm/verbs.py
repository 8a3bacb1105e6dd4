#!/usr/bin/env python3
"""verbs.py - every verb on a real guest: its text names what the guest itself names, its JSON parses."""
import csv
import json
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from as_tools import SCENES as TOOL_SCENES, as_tools
from harness import ROOT, VMSIGHT, Guest, expect, main, run, vmsight


def contains(text, *words):
    for word in words:
        expect(word in text, f"no {word!r} in:\n{text[:2000]}")


def state_verbs(guest, truth):
    vm = guest.pid
    contains(vmsight("list"), guest.name)
    contains(vmsight("info", vm), truth["os"]["release"], "technique")
    contains(vmsight("doctor", vm), "yes read", "yes one moment", "yes probe", "yes kernel", "Linux version", "--all")
    contains(vmsight("doctor", vm, "--all"), "yes live-map", "yes live-read", "probes by gdbstub")
    contains(vmsight("ps", vm), "PID", "[kthreadd]", "/init")
    contains(vmsight("ps", vm, "--pid", "1"), "/init")
    contains(vmsight("lsof", vm, "-p", "1"), "cwd", "/dev/")
    contains(vmsight("pmap", vm, "1"), "[ stack ]")
    contains(vmsight("ss", vm, "-lt"), "LISTEN")
    contains(vmsight("ip", vm), "lo", "127.0.0.1/8", "10.0.2.15/24")
    contains(vmsight("lsmod", vm), *[module["name"] for module in truth["modules"]])
    contains(vmsight("dmesg", vm), "Linux version " + truth["os"]["release"])
    contains(vmsight("lscpu", vm), truth["cpus"][0]["model_name"])
    contains(vmsight("uname", vm, "-a"), truth["os"]["release"], truth["os"]["nodename"])
    contains(vmsight("findmnt", vm), "/proc", "devtmpfs")
    contains(vmsight("state", vm), "processes")
    for verb in ("list", "info", "ps", "lsof", "ss", "ip", "lsmod", "dmesg", "lscpu", "uname", "findmnt", "state"):
        words = [verb] if verb == "list" else [verb, vm]
        json.loads(vmsight(*words, "--json"))


def as_people_type(guest):
    """Options that people know from the tools of the same name."""
    vm = guest.pid
    for words in (["aux"], ["ax"], ["-ef"]):
        contains(vmsight("ps", vm, *words), "[kthreadd]", "/init")
    ps_options(guest)
    lsof_options(guest)
    dmesg_options(guest)
    cpus(guest)
    four, six = vmsight("ip", vm, "-4"), vmsight("ip", vm, "-6")
    expect("127.0.0.1/8" in four and "inet6" not in four, four)
    expect("::1/128" in six and "inet " not in six, six)
    # A file's socket is listed once for each that has it open; one of MPTCP has the number of its connections.
    sockets = {(record["inode"], record["protocol"]): record for record in json.loads(vmsight("ss", vm, "-a", "--json"))["sockets"]}
    listening = [s for s in sockets.values() if s["protocol"] == "tcp" and s["state"] == "LISTEN"]
    summary = vmsight("ss", vm, "-s")
    expect(re.search(rf"^TCP: .*\blisten {len(listening)}\b", summary, re.M) and listening, summary)
    unix = [s for s in sockets.values() if s["family"] == "unix"]
    expect(re.search(rf"^unix +{len(unix)} ", summary, re.M), summary)


def refused(*words):
    done = run(*words)
    expect(done.returncode == 2 and b"hint" in done.stderr, f"vmsight {' '.join(map(str, words))}: {done}")


def ps_options(guest):
    """Columns and headers as procps has them; what it would do otherwise, or does not know, is refused."""
    vm = guest.pid
    for words, header in (
            (["aux"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            (["-ef"], "UID PID PPID C STIME TTY TIME CMD"),
            (["-eF"], "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
            (["-ejf"], "UID PID PPID PGID SID C STIME TTY TIME CMD"),
            (["-eLf"], "UID PID PPID LWP C NLWP STIME TTY TIME CMD"),
            (["-eTf"], "UID PID SPID PPID C STIME TTY TIME CMD"),
            (["axo", "pid,pcpu,lstart", "--sort", "-pid"], "PID %CPU STARTED"),
            (["-o", "pid,comm=NAME"], "PID NAME"), (["-o", "pid=A,ppid=B"], "A B")):
        lines = vmsight("ps", vm, *words).splitlines()
        expect(lines[0].split() == header.split() and len(lines) > 1, f"ps {words}: {lines[0]}")
    expect(vmsight("ps", vm, "-p", "1", "-o", "pid=", "-o", "ppid=").split() == ["1", "0"], "ps -o pid=")
    pids = lambda *words: {int(line) for line in vmsight("ps", vm, "-o", "pid=", *words).split()}  # noqa: E731
    everyone = pids()
    expect(pids("-p", "1,2") == pids("1", "2") == {1, 2}, "ps -p 1,2 and ps 1 2")
    expect(pids("-p", "1", "--ppid", "2") == {1} | pids("--ppid", "2"), "ps: any of several criteria")
    expect(pids("-N", "-p", "1") == everyone - {1}, "ps -N")
    expect(not pids("--ppid", "2") & pids("--no-kthreads"), "ps --no-kthreads")
    for words in (["-l"], ["-o", "wchan"], ["-M"], ["l"], ["zzz"], ["-u", "nobody"]):
        refused("ps", vm, *words)
    started = vmsight("ps", vm, "-p", "1", "-o", "lstart=").split()
    said = guest.puppet("sh date -u +%s; cut -d' ' -f1 /proc/uptime").decode().split()
    boot = time.gmtime(int(said[0]) - float(said[1]))
    expect(started[4] == str(boot.tm_year) and abs(int(started[2]) - boot.tm_mday) <= 1, f"lstart: {started}, {boot}")


def held_sockets(guest):
    """{(protocol, port, state, address): PIDs} of what the guest itself says, by its own /proc."""
    found = {}
    for record in guest.report()["sockets"]:
        if record["pid"] and record["protocol"] in ("tcp", "udp") and record["local_port"]:
            key = record["protocol"], record["local_port"], record["state"], record["local"]
            found.setdefault(key, set()).add(record["pid"])
    return found


def lsof_options(guest):
    vm, sockets = guest.pid, held_sockets(guest)
    taken = {port for _, port, _, _ in sockets}
    listening = sorted((port, owners) for (protocol, port, state, address), owners in sockets.items()
                       if protocol == "tcp" and state == "LISTEN" and address == "127.0.0.1")
    port, owners = listening[0]
    pids = lambda *words: {int(line) for line in vmsight("lsof", vm, "-t", *words).split()}  # noqa: E731
    for words in (["-i", f":{port}"], [f"-i:{port}"], ["-i", f"TCP:{port}"], ["-i", f"4tcp@127.0.0.1:{port}"],
                  ["-i", f":{port - 1}-{port}"], ["-nPi", f":{port}", "-sTCP:LISTEN"]):
        expect(owners <= pids(*words), f"lsof {words}: {pids(*words)}, the guest: {owners}")
    text = vmsight("lsof", vm, "-nP", "-i", f"TCP:{port}", "-s", "TCP:LISTEN").splitlines()
    expect(all(f"127.0.0.1:{port} (LISTEN)" in line and " IPv4 " in line and " TCP " in line for line in text[1:])
           and len(text) > 1, "\n".join(text))
    rows = lambda *words: vmsight("lsof", vm, *words).splitlines()[1:]  # noqa: E731
    expect(all(" IPv4 " in row for row in rows("-i4")) and all(" IPv6 " in row for row in rows("-i", "6")), "-i4, -i 6")
    expect(all(" UDP " in row for row in rows("-i", "UDP")) and rows("-i", "UDP"), "-i UDP")
    free = next(number for number in range(1024, 65536) if number not in taken)
    expect(run("lsof", vm, "-i", f":{free}").returncode == 1, "lsof finds what nobody holds")
    vmsight("lsof", vm, "-Q", "-i", f":{free}")
    expect(not vmsight("lsof", vm, "-Q", "-t", "-p", "99999"), "lsof -Q -p: a process that is not there")
    gone = rows("+L1")
    expect(gone and all(line.split()[7] == "0" for line in gone), f"+L1: {gone[:5]}")
    expect(any("/tmp/deleted file (deleted)" in row for row in gone), f"+L1: {gone[:5]}")
    expect(not rows("-Q", "-a", "-p", "1", "-i"), "-a: any of its options are enough")
    owner = sorted(owners)[0]
    either, both = rows("-p", owner, "-U"), rows("-a", "-p", owner, "-U")
    expect(len(either) > len(both) > 0 and all(" unix " in row for row in both), "-p, -U with and without -a")
    expect(pids("-p", "^1", "-d", "cwd") == pids("-d", "cwd") - {1}, "-p ^1")
    expect(pids("-u", "0", "-a", "-c", "sockets", "-d", "0-255"), "-u, -c, -d")
    refused("lsof", vm, "-i", "nonsense")
    for words in (["-i", "@no.such.name"], ["-F"], ["-r", "1"], ["-u", "nobody"], ["+f"], ["-sTCP:NONSENSE"], ["-d", "x"]):
        refused("lsof", vm, *words)
    lsof_columns(guest)


def lsof_columns(guest):
    vm = guest.pid
    special = next(p["pid"] for p in json.loads(vmsight("ps", vm, "--json"))["processes"] if p["comm"] == "special")
    files = {file["fd"]: file for file in guest.report()["open_files"] if file["pid"] == special}
    text = vmsight("lsof", vm, "-p", special)
    for fd, file in files.items():
        row = re.search(rf"^special +{special} +0 +{fd}([rwu])([ RWrw]) +(\S+) +(\S+) ", text, re.M)
        expect(row, f"no row of {file} in:\n{text}")
        expect((row[2].strip() or None) == file["lock"], f"{row[0]}: lock {file['lock']}")
        if file["type"] == "CHR":
            expect(row[4] == file["rdev"].replace(":", ","), f"{row[0]}: device {file['rdev']}")
        if "eventpoll" in file["path"]:
            contains(text, "[eventpoll:" + ",".join(map(str, file["targets"])) + "]")
    contains(text, "[pidfd:1]")
    for place in ("cwd", "rtd", "txt"):
        expect(re.search(rf"^special +{special} +0 +{place} +(DIR|REG) +\d+,\d+ +\d+ +\d+ /", text, re.M), text)


def dmesg_options(guest):
    vm = guest.pid
    guest.puppet("log with\ta tab")
    contains(vmsight("dmesg", vm, "-u", "-t"), "with\ta tab")
    kernel, everything = vmsight("dmesg", vm, "-k").splitlines(), vmsight("dmesg", vm).splitlines()
    expect(0 < len(kernel) < len(everything), "dmesg -k")
    expect(re.match(r"<\d+>\[ +\d+\.\d{6}\] ", vmsight("dmesg", vm, "-r")), "dmesg -r")
    expect(re.match(r"\[ +\d+\.\d{6} < +0\.000000>\] ", vmsight("dmesg", vm, "-d")), "dmesg -d")
    year = guest.puppet("sh date +%Y").decode().strip()
    expect(re.match(rf"\[\w{{3}} \w{{3}} +\d+ [\d:]{{8}} {year}\] ", vmsight("dmesg", vm, "-T")), "dmesg -T")
    expect(re.match(rf"{year}-\d\d-\d\dT[\d:]{{8}},\d{{6}}\+", vmsight("dmesg", vm, "--time-format", "iso")), "iso")
    for words in (["-C"], ["-n", "3"], ["--time-format", "x"], ["-F", "x"], ["-k", "-u"]):
        refused("dmesg", vm, *words)


def cpus(guest):
    """What the guest's own /proc/cpuinfo and /sys say of its CPUs."""
    vm = guest.pid
    blocks = guest.puppet("sh cat /proc/cpuinfo").decode().strip().split("\n\n")
    ours = json.loads(vmsight("lscpu", vm, "--json"))["cpus"]
    for block, cpu in zip(blocks, ours, strict=True):
        said = {key.strip(): value.strip() for key, value in (line.split(":", 1) for line in block.splitlines())}
        for key, value in (("cpu family", cpu["family"]), ("model", cpu["model"]), ("stepping", cpu["stepping"]),
                           ("physical id", cpu["socket"]), ("core id", cpu["core"])):
            expect(int(said[key]) == value, f"{key}: {said[key]}, ours {value}")
        expect(said["flags"].split() == cpu["flags"], f"flags: {set(said['flags'].split()) ^ set(cpu['flags'])}")
        expect(said["bugs"].split() == cpu["bugs"], f"bugs: {said['bugs']}, ours {cpu['bugs']}")
        expect(said["address sizes"] == f"{cpu['physical_bits']} bits physical, {cpu['virtual_bits']} bits virtual",
               said["address sizes"])
        expect(cpu["bogomips"] is None or f"{cpu['bogomips']:.2f}" == said["bogomips"], f"{said['bogomips']}, {cpu}")
        expect(guest.puppet(f"sh ls -d /sys/devices/system/cpu/cpu{cpu['cpu']}/node{cpu['node']}"), "NUMA node")
        for index, cache in enumerate(cpu["caches"]):
            base = f"/sys/devices/system/cpu/cpu{cpu['cpu']}/cache/index{index}"
            level, kind, size, shared = guest.puppet(
                f"sh cd {base} && cat level type size shared_cpu_list").decode().split()
            expect((int(level), kind, size) == (cache["level"], cache["type"], f"{cache['size_bytes'] // 1024}K"),
                   f"{base}: {level} {kind} {size}, ours {cache}")
            first = int(re.match(r"\d+", shared)[0])
            expect(cache["cpus"][0] == first, f"{base}: {shared}, ours {cache}")
    contains(vmsight("lscpu", vm), "Flags:", "Socket(s):", "NUMA node0 CPU(s):")
    expect(len(vmsight("lscpu", vm, "-e").splitlines()) == 1 + len(ours), "lscpu -e")
    expect(vmsight("lscpu", vm, "-p").splitlines()[1].startswith("0,0,"), "lscpu -p")


def followed_log(guest):
    """What the guest logs is told once and in order, as it comes; -W leaves out what was there before."""
    guest.puppet("log before")
    followers = [subprocess.Popen([VMSIGHT, "dmesg", str(guest.pid), *words], stdout=subprocess.PIPE, text=True)
                 for words in (["-w", "-t"], ["-W", "-t"], ["-W", "--json"])]
    expect("Linux version" in followers[0].stdout.readline(), "dmesg -w does not begin with the log's beginning")
    time.sleep(3)  # the others have their first reading
    for number in range(20):
        guest.puppet(f"log line-{number}")
    time.sleep(2)
    for follower in followers:
        follower.send_signal(signal.SIGINT)
    told = [follower.communicate(timeout=60)[0].splitlines() for follower in followers]
    expect(all(follower.returncode == 0 for follower in followers), "dmesg does not end orderly")
    lines = [f"line-{number}" for number in range(20)]
    for text in told[:2]:
        expect([line for line in text if line.startswith("line-")] == lines, f"followed: {text[-30:]}")
    expect("before" in told[0] and "before" not in told[1], "-W tells what was there")
    records = [record["text"] for line in told[2] for record in json.loads(line)["kernel_log"]]
    expect(records == lines, f"--json: {records}")


def followed_reboot():
    """Without KASLR the new kernel lies where the old one lay; its log is told all the same."""
    with Guest(kernel="6.1-cloud", backend="memfd", append="nokaslr", name="followed-reboot") as guest, \
            tempfile.NamedTemporaryFile() as output:
        follower = subprocess.Popen([VMSIGHT, "dmesg", str(guest.pid), "-w", "-t", "--since", "10m"],
                                    stdout=output, stderr=subprocess.PIPE, text=True)

        def told(line):
            """All that was told, once it has this line; a moment later, so that what is told twice is there twice."""
            deadline = time.monotonic() + 60
            while line not in (said := Path(output.name).read_text()):
                if follower.poll() is not None:
                    expect(False, f"dmesg -w ended over a reboot: {follower.stderr.read()}")
                expect(time.monotonic() < deadline, f"over a reboot: no {line}: {said[-600:]}")
                time.sleep(0.05)
            time.sleep(1)
            return Path(output.name).read_text()

        guest.puppet("log first-life")
        expect(told("first-life").startswith("Linux version"), "dmesg -w does not begin with the log's beginning")
        guest.reboot()
        guest.puppet("log second-life")
        first, _, second = told("second-life")[len("Linux version"):].partition("Linux version")
        expect("first-life" in first and second.count("second-life") == 1, f"over a reboot: {first[-600:]}, {second[-600:]}")
        follower.send_signal(signal.SIGINT)
        errors = follower.communicate(timeout=60)[1]
        expect(follower.returncode == 0, f"dmesg -w over a reboot: {errors}")


def kernel_verbs(guest):
    vm = guest.pid
    symbols = guest.puppet("sh cat /proc/kallsyms").decode()
    address = re.search(r"^([0-9a-f]+) \w init_task$", symbols, re.M)[1]
    contains(vmsight("sym", vm, "init_task"), address)
    contains(vmsight("sym", vm, "0x" + address), "init_task")
    contains(vmsight("type", vm, "task_struct"), "struct task_struct {", "pid")
    contains(vmsight("print", vm, "init_task.comm"), "swapper")
    contains(vmsight("read", vm, "linux_banner", "64"), "Linux version")
    sleeping = guest.puppet("sh sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.2; cat /proc/$!/stack").decode()
    frames = re.findall(r"\] ([^\s+]+)\+", sleeping)
    pid = re.search(r"^\s*\d+\s+(\d+)\b.*sleep 1000", vmsight("ps", vm), re.M)[1]
    contains(vmsight("stack", vm, pid), *frames)


def modules_in_print(guest):
    """A module's symbols and types, which the kernel's own do not know."""
    vm = guest.pid
    symbols = guest.puppet("sh cat /proc/kallsyms").decode()
    address = re.search(r"^([0-9a-f]+) \w virtio_net_driver\t\[virtio_net\]$", symbols, re.M)[1]
    contains(vmsight("print", vm, "&virtio_net:virtio_net_driver"), address)
    driver = "(*(struct virtio_driver *)&virtio_net:virtio_net_driver)"
    contains(vmsight("print", vm, f"{driver}.driver.name"), '"virtio_net"')
    # Behind a struct net_device, aligned to 32 bytes, lies what its driver adds: here a struct
    # virtnet_info, whose `dev` points back.
    def address_of(expression):
        return int(re.search(r" = (0x[0-9a-f]+)", vmsight("print", vm, expression))[1], 16)
    listed = address_of("init_net.dev_base_head.next->next")  # behind lo
    device = 2 * listed - address_of(f"&((struct net_device *){listed:#x})->dev_list")
    size = int(re.search(r"size: (\d+)", vmsight("type", vm, "net_device"))[1])
    private = f"((struct virtio_net:virtnet_info *){device + (size + 31) // 32 * 32:#x})"
    contains(vmsight("print", vm, f"{private}->dev->name"), '"eth0"')
    contains(vmsight("print", vm, f"{private}->dev"), f"{device:#x}")
    contains(run("print", vm, "absent:x").stderr.decode(), "no types of a module 'absent'")
    contains(run("print", vm, "virtio_net:absent").stderr.decode(), 'no symbol "absent"')


def smaps(guest, pid):
    """{start: (resident, dirty)} in KiB."""
    areas, start = {}, None
    for line in guest.puppet(f"sh cat /proc/{pid}/smaps").decode(errors="replace").splitlines():
        if head := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            start = int(head[1], 16)
            areas[start] = [0, 0]
        elif value := re.match(r"(Rss|Shared_Dirty|Private_Dirty): +(\d+) kB", line):
            areas[start][value[1] != "Rss"] += int(value[2])
    return {start: tuple(sizes) for start, sizes in areas.items()}


def residency(guest):
    """`pmap -x` says what the guest's smaps says, of every process that sleeps through both."""
    guest.puppet("maps")
    compared = resident = 0
    for process in json.loads(vmsight("ps", guest.pid, "--json"))["processes"]:
        pid = process["pid"]
        before = smaps(guest, pid)
        maps = json.loads(vmsight("pmap", guest.pid, pid, "-x", "--json"))["memory_maps"]
        if not before or before != smaps(guest, pid):
            continue
        ours = {int(area["start"], 16): (area["rss_bytes"] // 1024, area["dirty_bytes"] // 1024) for area in maps}
        differences = [(hex(start), ours.get(start), before.get(start))
                       for start in ours.keys() | before.keys() if ours.get(start) != before.get(start)]
        expect(not differences, f"pid {pid}: start, ours, the guest's: {differences[:10]}")
        compared += len(ours)
        resident += sum(area[0] for area in ours.values())
    expect(compared > 100 and resident > 1000, f"compared {compared} areas with {resident} KiB only")
    print(f"residency: {compared} areas with {resident} KiB resident")


def described():
    """What docs/json.md says: {key of the state: its keys}, {schema: keys of the document}."""
    parts, documents, part = {}, {}, None
    for line in (ROOT / "docs/json.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = [re.findall(r"`([\w./]+)`", cell) for cell in cells]
        if line.startswith("| `vmsight."):
            outer = re.sub(r"\(.*?\)", "", cells[2])
            documents[names[0][0]] = set(re.findall(r"`(\w+)`", outer)) | {"schema"}
        elif line.startswith("#"):
            part = re.fullmatch(r"### `(\w+)`", line)
        elif line.startswith("| `") and part:
            if "only if asked for" not in line:
                parts.setdefault(part[1], set()).add(names[0][0])
        elif line.startswith("| `") and len(cells) == 2:
            parts[names[0][0]] = set(names[1])
    return parts, documents


def documents(guest):
    """The JSON documents have the keys that docs/json.md tells, no more and no fewer."""
    parts, forms = described()
    expect(len(parts) > 10 and len(forms) > 5, f"docs/json.md tells {parts} and {forms} only")
    state = json.loads(vmsight("state", guest.pid, "--threads", "--json"))
    expect(set(state) == set(parts) | {"schema"}, f"the state's keys: {sorted(state)}")
    for part, keys in parts.items():
        for record in state[part] if isinstance(state[part], list) else [state[part]]:
            expect(set(record) == keys, f"{part}: {sorted(set(record) ^ keys)} differ from docs/json.md")
    for words in (["list"], ["info", guest.pid], ["doctor"], ["doctor", guest.pid], ["sym", guest.pid, "init_task"],
                  ["stack", guest.pid, "1"], ["print", guest.pid, "init_task.comm"], ["watch", "--status"],
                  ["watch", guest.pid, "--dry-run"]):
        document = json.loads(vmsight(*words, "--json"))
        expect(set(document) == forms[document["schema"]], f"{words}: {sorted(document)}")
    for name in ("task_struct", "vfs_read", "pid_type"):  # each kind of type has some of the keys
        document = json.loads(vmsight("type", guest.pid, name, "--json"))
        expect({"schema", "kind", "name"} < set(document) <= forms["vmsight.type/1"], f"{name}: {sorted(document)}")


def tables(guest):
    """--format csv has the values of --json, cell by cell."""
    for words, key in ((["lsmod"], "modules"), (["findmnt"], "mounts"), (["ip"], "net_devices"), (["lscpu"], "cpus"),
                       (["pmap", "1", "-x"], "memory_maps"), (["ps", "-T"], "threads"), (["ps"], "processes"),
                       (["dmesg"], "kernel_log"), (["lsof"], "open_files"), (["ss", "-a"], "sockets")):
        verb, *options = words
        rows = list(csv.reader(vmsight(verb, guest.pid, *options, "--format", "csv").splitlines()))
        records = json.loads(vmsight(verb, guest.pid, *options, "--json"))[key]
        expect(rows[0] == list(records[0]), f"{words}: headings {rows[0]}, keys {list(records[0])}")
        stable = [index for index, name in enumerate(rows[0]) if name in STABLE]
        expect(stable, f"{words}: {rows[0]}")
        wanted = {tuple(as_cell(list(record.values())[index]) for index in stable) for record in records}
        found = {tuple(row[index] for index in stable) for row in rows[1:]}
        common = len(wanted & found)
        expect(all(len(row) == len(rows[0]) for row in rows), f"{words}: rows of other lengths")
        # Two views, and the guest runs: a process of the other view is no fault.
        expect(common >= 0.9 * max(len(wanted), len(found)), f"{words}: {sorted(wanted ^ found)[:10]}")
    headless = vmsight("lsmod", guest.pid, "--format", "csv", "--no-headers")
    expect(not headless.startswith("name,"), "--no-headers")
    for words in (["ss", "-H"], ["findmnt", "-n"], ["pmap", "1", "-q"], ["ps", "h"]):
        first = vmsight(words[0], guest.pid, *words[1:], "--format", "csv").splitlines()[0]
        expect(not re.match("pid,|source,", first), f"{words}: {first}")
    for words in (["ps", guest.pid, "--json", "--format", "csv"], ["lsmod", guest.pid, "--format", "xml"], ["dmesg", guest.pid, "-J", "--format", "csv"], ["read", guest.pid, "--format", "csv"]):
        expect(run(*words).returncode == 2, f"{words} is accepted")


STABLE = ("name", "target", "mntns", "ifindex", "caches", "addresses", "start", "end", "perms", "pid", "comm", "text", "sequence",
          "fd", "path", "family", "local", "local_port")


def as_cell(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def completion(guest):
    """What a shell is told: verbs, VMs, options, and the values of those that have few."""
    def words(*typed):
        return [line.split("\t")[0] for line in vmsight("--complete", *typed).splitlines()]
    contains(words(""), "ps", "snapshot", "--help")
    contains(words("ps", ""), guest.name)
    contains(words("ps", guest.name, "--"), "--pid", "--json", "--technique")
    contains(words("ps", guest.name, "--technique", "halt-map:"), "halt-map:ptrace")
    contains(words("ps", guest.name, "-o", "pid,va"), "pid,validity")
    contains(words("monitor", guest.name, "--parts", "cpus,open"), "cpus,open_files")
    contains(words("snapshot", guest.name, "x", "--format", ""), "elf", "raw")


def help_is_readable():
    """Each verb's help has two examples, and types that people can read."""
    verbs = [line.split("\t")[0] for line in vmsight("--complete", "").splitlines()]
    for verb in (verb for verb in verbs if not verb.startswith("-")):
        text = vmsight(verb, "--help")
        examples = text.split("Examples:\n")[1].splitlines()
        expect(len(examples) >= 2 and all("vmsight " in line for line in examples), f"{verb}: {examples}")
        expect(not re.search(r"[A-Z]:(POSITIVE|FLOAT|UINT|\{)", text), f"{verb} --help: a checker's name in:\n{text}")
        expect(vmsight("help", verb) == text, f"help {verb} is not {verb} --help")
        expect(not re.search(r" $", text, re.M), f"{verb} --help: an option that is not described:\n{text}")
        expect(("--json" in text) == (verb != "read"), f"{verb} --help: is there --json?\n{text}")
    expect(vmsight("help") == vmsight("--help"), "help is not --help")
    contains(vmsight("help", "records"), "### `processes`")


def snapshots(guest):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        core = f"{folder}/guest.core"
        vmsight("snapshot", guest.pid, core)
        expect(run("snapshot", guest.pid, core).returncode != 0, "a second snapshot overwrites the first")
        contains(vmsight("ps", core), "/init")
        banner = vmsight("sym", core, "linux_banner").split()[0]
        gdb = subprocess.run(["gdb", "-batch", "-c", core, "-ex", f"x/s 0x{banner}"],
                             capture_output=True, text=True, check=False)
        contains(gdb.stdout, "Linux version")
        raw = f"{folder}/guest.raw"
        vmsight("snapshot", guest.pid, raw, "--format", "raw")
        contains(vmsight("ps", raw), "/init")


def terminal_is_safe(guest):
    """Escape sequences in the guest's strings do not come out raw."""
    for verb in (["ps"], ["lsof"], ["dmesg"], ["ps", "-T"]):
        raw = run(verb[0], guest.pid, *verb[1:]).stdout
        bad = [byte for byte in raw if byte < 0x20 and byte != 0x0A and byte != 0x09 or byte == 0x7F]
        expect(not bad, f"{verb}: control bytes {set(bad)} reach the terminal")


def verbs():
    contains(vmsight("--version"), "vmsight")
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, net=True, tools=True, name="verbs") as guest:
        for scene in ("workers 30", "special", "log \x1b[31mred", *TOOL_SCENES):
            guest.puppet(scene)
        state_verbs(guest, guest.report())
        as_people_type(guest)
        as_tools(guest)
        followed_log(guest)
        kernel_verbs(guest)
        modules_in_print(guest)
        residency(guest)
        documents(guest)
        tables(guest)
        completion(guest)
        help_is_readable()
        snapshots(guest)
        terminal_is_safe(guest)
    followed_reboot()


if __name__ == "__main__":
    main(verbs)
