#!/usr/bin/env python3
"""trace.py calls KERNEL... | kvm KERNEL | c PROGRAM | user | kills N SEED - probes by the gdbstub engine.

calls   the puppet makes known system calls on two CPUs and tells each: every one is seen, at its
        entry and at its return, with the arguments and the result that the guest tells
kvm     a few of the same under real KVM, by the CPU's breakpoints
c       a program in C
user    functions of a dynamically linked program and of its library, by path and symbol
kills   vmsight is killed at random moments with probes armed: the guest runs on within a second,
        and no breakpoint is left in it
"""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import Guest, ROOT, VMSIGHT, expect, main, run, vmsight

SECOND = 1.0
PATIENCE = 60.0  # of a machine that has too much to do
O_LARGEFILE = 0o100000


class Tracer:
    """vmsight trace --json, once it is armed."""

    def __init__(self, guest, *arguments):
        self.process = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "--json", *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines, self.said = [], ""
        first = self.process.stdout.readline()
        if not first:  # it has closed its output: it ends
            said = self.process.communicate(timeout=300)[1]
            expect(False, f"trace {arguments} does not begin: exit status {self.process.returncode}: {said}")
        self.head = json.loads(first)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self.reader.start()

    def end(self):
        """The events and the counts."""
        self.process.send_signal(signal.SIGINT)
        self.reader.join()
        status = self.process.wait()
        self.said = self.process.stderr.read()
        expect(status == 0, f"trace: exit status {status}: {self.said}")
        documents = [json.loads(line) for line in self.lines]
        return documents[:-1], documents[-1]


def told_calls(guest, rounds, processes, work="calls", each=3):
    """What the guest says that it called: (pid, path, flags, mode, result)."""
    lines = guest.puppet(f"work {work} {rounds} {processes}", timeout=240).decode().splitlines()
    calls = [line.split() for line in lines if line.startswith("openat ")]
    expect(len(calls) == each * rounds * processes, f"the guest made {len(calls)} calls")
    return sorted((int(pid), path, int(flags), int(mode), int(result)) for _, pid, path, flags, mode, result in calls)


def check_order(what, events, end):
    """By time, but for those that are said to be late."""
    times = [event["time_ns"] for event in events]
    newest, late = 0, 0
    for time_ns in times:
        late += time_ns < newest
        newest = max(newest, time_ns)
    expect(late == end["late"], f"{what}: {late} events are not in their order, {end['late']} are said to be late")


def check_missed(guest, engine, work):
    """Every entry of a function has a return that was seen or is said to be missed; and a call that never returns, one."""
    functions = ("do_exit", "vfs_read")
    tracer = Tracer(guest, *(f"{kind}:{function}" for function in functions for kind in ("kprobe", "kretprobe")), "--engine", engine)
    guest.puppet(work)
    events, end = tracer.end()
    check_order("calls that do not return", events, end)
    for number, function in enumerate(functions):
        entry, back = end["counts"][2 * number:2 * number + 2]
        expect(entry["hits"] > 0 and entry["hits"] == back["hits"] + back["missed_returns"], f"{function}: entries {entry}, returns {back}")
    expect(end["counts"][1]["hits"] == 0, f"do_exit returned: {end['counts'][1]}")


def check_reset(guest, engine, *said):
    """A trace of a guest that reboots ends, and says why."""
    tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_read", "--engine", engine, "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    expect(tracer.stdout.readline(), "trace does not begin")
    drain = threading.Thread(target=tracer.stdout.read)
    drain.start()
    time.sleep(3)  # what was in memory before the reboot is known by then
    guest.reboot()
    try:
        code = tracer.wait(timeout=60)
    finally:
        tracer.kill()
        drain.join()
    errors = tracer.stderr.read().decode()
    expect(code != 0 and any(text in errors for text in said), f"a trace of a guest that rebooted: exit status {code}, {errors}")


def check_module(guest, engine):
    """A module that is unloaded takes its probes with it, and no others."""
    guest.puppet("module dummy")
    tracer = Tracer(guest, "kprobe:dummy:dummy_*", "kprobe:vfs_statx", "--engine", engine)
    guest.puppet("sh rmmod dummy")
    time.sleep(12 if engine == "gdbstub" else 3)  # it is looked for so often
    guest.puppet("sh ls /etc/passwd")
    events, end = tracer.end()
    expect("the guest has unloaded module dummy" in tracer.said, f"an unloaded module: {tracer.said}")
    *gone, other = end["counts"]
    expect(gone and all(count["ended"] for count in gone) and not other["ended"], f"which probes ended: {end}")
    expect(other["hits"] > 0 and events, f"the other probe saw nothing: {end}")


def status(guest):
    with guest.qmp() as qmp:
        return qmp.command("query-status")["status"]


def check_calls(kernel, rounds=8, cpus=2, accel="auto"):
    with Guest(kernel=kernel, backend="memfd", cpus=cpus, accel=accel, name=f"trace-{kernel}") as guest:
        tracer = Tracer(guest, "kprobe:do_sys_openat2", "kretprobe:do_sys_openat2", "kretprobe:__x64_sys_openat",
                        "--filter", "comm == calls", "-v", "--engine", "gdbstub")
        expected = told_calls(guest, rounds, cpus)
        events, end = tracer.end()
        ids = [probe["probe"] for probe in tracer.head["probes"]]
        compare(f"{kernel}: arguments at the entry", [call[:2] + call[2:4] for call in expected],
                [entry(event) for event in events if event["probe"] == ids[0]])
        compare(f"{kernel}: results", [(pid, path, result) for pid, path, _, _, result in expected],
                [(event["pid"], event["arguments"]["filename"], event["result"]) for event in events if event["probe"] == ids[1]])
        compare(f"{kernel}: the system call", expected, [system_call(event) for event in events if event["probe"] == ids[2]])
        counts = {count["probe"]: count for count in end["counts"]}
        for number in ids:
            count = counts[number]
            expect(count["told"] == len(expected) and count["lost"] == count["missed_returns"] == 0, f"{kernel}: counts {count}")
        expect({event["comm"] for event in events} == {"calls"}, "comm")
        expect({event["vcpu"] for event in events} == set(range(cpus)), f"{kernel}: not all CPUs made calls")
        expect(all(event["duration_ns"] > 0 for event in events if event["at_return"]), "a call took no time")
        check_order(kernel, events, end)
        expect(status(guest) == "running", f"the guest is {status(guest)}")
        guest.puppet("sh cat /etc/passwd")
        if kernel == "6.1-cloud" and accel == "auto":
            check_missed(guest, "gdbstub", "sh cat /etc/passwd")
            check_module(guest, "gdbstub")
            check_verb(guest)
            check_rare(guest)
            check_reset(guest, "gdbstub", "was reset")
        print(f"{kernel}: {len(expected)} calls, {len(events)} events, every one as the guest told")


def entry(event):
    expect(event["arguments"]["dfd"] == -100, f"dfd: {event['arguments']}")
    how = event["structures"]["how"]
    # openat2's mode is 0 without O_CREAT; the guest's puppet passes 0 there too.
    return event["pid"], event["arguments"]["filename"], how["flags"] & ~O_LARGEFILE, how["mode"]


def system_call(event):
    arguments = event["arguments"]
    expect(event["function"] == "openat" and event["system_call"] == 257, f"not openat: {event}")
    expect(list(arguments) == ["dfd", "filename", "flags", "mode"], f"arguments: {list(arguments)}")
    # Where C passes no mode, its register holds anything.
    return event["pid"], arguments["filename"], arguments["flags"], arguments["mode"], event["result"]


def compare(what, expected, found):
    missing, more = [c for c in expected if c not in found], [c for c in found if c not in expected]
    expect(sorted(expected) == sorted(found), f"{what}: missing {missing[:3]}, not made {more[:3]}")


def check_verb(guest):
    """The rest of the verb's options."""
    listed = vmsight("trace", guest.pid, "kprobe:vfs_*", "--list")
    expect("vfs_read" in listed and len(listed.splitlines()) > 20, "--list")
    for arguments, said in ((["kprobe:vfs_raed"], "did you mean vfs_read"), (["kprobe:vfs_read", "--filter", "x == 1"], "nothing is called 'x'"),
                            (["uprobe:/bin/nothing:main"], "no process"), (["kprobe:vfs_read", "--engine", "magic"], "no engine"),
                            (["kprobe:*"], "at most"), (["--syscalls", "--filter", "nothing == 1"], "nothing is called 'nothing'"), (["kprobe:vfs_read", "--technique", "halt-read:stop"], "not live")):
        done = run("trace", guest.pid, *arguments)
        expect(done.returncode != 0 and said.encode() in done.stderr, f"trace {arguments}: {done.returncode} {done.stderr}")
    trace = Path(guest.home) / "trace.json"
    tracer = Tracer(guest, "kretprobe:vfs_open", "--stack", "--perfetto", str(trace), "--filter", "comm == cat && retval == 0")
    guest.puppet("sh cat /etc/passwd")
    events, _ = tracer.end()
    expect(events, "no vfs_open was seen")
    frames = [frame["symbol"] for frame in events[-1]["stack"]["frames"]]
    expect("do_syscall_64" in frames and events[-1]["stack"]["problem"] is None, f"stack: {frames}")
    shown = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    expect(len(shown) == len(events) and {event["name"] for event in shown} == {"vfs_open"}, "the trace file")
    tracer = Tracer(guest, "--syscalls", "--filter", "comm == cat")
    expect(len(tracer.head["probes"]) > 250, f"{len(tracer.head['probes'])} system calls")
    guest.puppet("sh cat /etc/passwd", timeout=240)
    events, _ = tracer.end()
    calls = [(event["function"], event["arguments"].get("filename"), event["result"]) for event in events]
    expect(any(call[:2] == ("openat", "/etc/passwd") and call[2] >= 0 for call in calls), f"no openat: {calls}")
    expect([call[0] for call in calls[-2:]] == ["exit_group", "do_exit"], f"the last calls are {calls[-2:]}")
    opened = next(event for event in events if event["function"] == "openat" and event["arguments"]["filename"] == "/etc/passwd")
    expect(opened["names"] == {"dfd": "AT_FDCWD", "flags": "O_RDONLY"} and opened["unused"] == ["mode"], f"names: {opened}")
    check_strace(guest)
    tracer = Tracer(guest, "--syscalls", "--filter", "filename == '/nothing'")
    expect(len(tracer.head["probes"]) < 100, f"{len(tracer.head['probes'])} system calls take a file's name")
    guest.puppet("sh cat /nothing 2>/dev/null || :", timeout=240)
    events, _ = tracer.end()
    expect([event["names"]["result"] for event in events if event["comm"] == "cat"] == ["ENOENT"], f"calls with /nothing: {events}")
    stats = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kretprobe:do_sys_openat2", "--stats", "--duration", "4"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "armed" not in (stats.stderr.readline() or "armed"):
        pass
    guest.puppet("sh cat /etc/passwd")
    output = stats.communicate(timeout=60)[0]
    expect("kretprobe:do_sys_openat2" in output and "@" in output, f"--stats: {output}")


def check_strace(guest):
    """--syscalls beside what the program did, in the words of strace."""
    process = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "--syscalls", "--filter", "comm == sh || comm == cat || comm == exe"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "armed" not in (process.stderr.readline() or "armed"):
        pass
    said = guest.puppet("""sh cat /nothing 2>/dev/null; sh -c 'kill -9 $$'; echo $?; trap : USR1; kill -USR1 $$; echo end""", timeout=240)
    expect(said.split()[-1] == b"end", f"the guest said {said}")
    process.send_signal(signal.SIGINT)
    lines = [" ".join(line.split()[4:]) for line in process.communicate(timeout=60)[0].splitlines()[1:]]
    for begin, end in (('openat(AT_FDCWD, "/nothing", O_RDONLY) = -1 ENOENT (No such file or directory) <', ">"),
                       ('execve("/proc/self/exe", ["cat", "/nothing"], 0x', ">"), ("exit_group(1)", " = ?"), ("+++ exited with 1", " +++"),
                       ("kill(", ">"), ("+++ killed by SIGKILL", " +++"), ('write(1, "137\\n", 4) ', ">"), ("--- SIGUSR1", " ---"),
                       ("clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, ", ">"), ('write(1, "end\\n", 4) ', ">")):
        expect(any(line.startswith(begin) and line.endswith(end) for line in lines), f"no {begin}...{end} in {lines}")


def check_rare(guest):
    """What few programs call, what no kernel knows, and what 32-bit programs call."""
    tracer = Tracer(guest, "--syscalls", "--filter", "comm == rare")
    said = guest.puppet("work rare 1 1", timeout=240).split()
    events, _ = tracer.end()
    pid, parent, i386_parent, i386_opened = (int(word) for word in said[said.index(b"rare") + 1:][:4])
    expect(parent == i386_parent and i386_opened == -2, f"the guest said {said}")
    expect(all(event["pid"] == pid for event in events), "pid")
    calls = {(event["function"], event.get("abi")): event for event in events}
    masks = [(event["names"]["mask"], event["names"]["result"]) for event in events if event["function"] == "umask"]
    expect(masks[0][0] == "027" and masks[1] == ("022", "027"), f"umask: {masks}")
    names = [(event["names"]["option"], event["names"]["arg2"]) for event in events if event["function"] == "prctl"]
    expect(names == [("PR_SET_NAME", '"rare"'), ("PR_GET_NAME", '"rare"')], f"prctl: {names}")
    closed = calls["close", None]
    expect(closed["arguments"]["fd"] == -1 and closed["names"]["result"] == "EBADF", f"close(-1): {closed}")
    expect(calls["fcntl", None]["names"]["cmd"] == "0x7b /* F_??? */", f"fcntl: {calls['fcntl', None]}")
    unknown = calls["syscall_0x190", None]
    expect(unknown["system_call"] == 400 and unknown["names"]["result"] == "ENOSYS" and unknown["arguments"]["arg1"] in (2, "0x2"), f"an unknown call: {unknown}")
    expect(calls["getppid", "i386"]["result"] == parent, f"getppid of i386: {calls['getppid', 'i386']}")
    opened = calls["openat", "i386"]
    expect(opened["arguments"]["filename"] == "/nothing" and opened["names"]["dfd"] == "AT_FDCWD" and opened["result"] == -2, f"openat of i386: {opened}")


def check_user():
    from vmlab_lib import workloads
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="trace-user", workloads=True) as guest:
        workloads.mount_debian(guest)
        guest.puppet("sh chroot /debian /usr/sbin/nginx -c /etc/nginx/workload.conf >/dev/null 2>&1")
        fetch = "sh wget -q -O /tmp/page http://127.0.0.1/ && wc -c /tmp/page"
        expect(guest.puppet(fetch).split()[0] == b"16384", "the guest's web server does not answer")
        program, library = "/debian/usr/sbin/nginx", "/debian/lib/x86_64-linux-gnu/libc.so.6"
        first = web_worker(guest)
        tracer = Tracer(guest, f"uretprobe:{program}:ngx_http_process_request", f"uprobe:{library}:writev",
                        f"uretprobe:{library}:writev", "--filter", "comm == nginx")
        for _ in range(4):
            guest.puppet(fetch)
        guest.puppet(f"sh kill -9 {first}")  # its master starts another
        deadline = time.monotonic() + 20
        while (second := web_worker(guest)) in (first, None):
            expect(time.monotonic() < deadline, "the web server has no worker any more")
        time.sleep(2)  # processes are looked for twice a second
        guest.puppet(fetch)
        events, end = tracer.end()
        requests, writes, written = [[event for event in events if event["probe"] == probe["probe"]]
                                     for probe in tracer.head["probes"]]
        seen = [event["tgid"] for event in requests]
        expect(seen == 4 * [first] + [second], f"requests of {seen}, not 4 of {first} and one of {second}: {end}")
        # What does not fit into the socket is written by another call: the bytes are what each request has as many of.
        for event in writes:  # writev(socket, the header and perhaps the page)
            expect(int(event["arguments"]["arg2"], 16) in (1, 2), f"writev: {event['arguments']}")
        expect([event["tgid"] for event in writes] == [event["tgid"] for event in written], f"writev: {writes}, {written}")
        sums = dict.fromkeys((first, second), 0)
        for event in written:
            sums[event["tgid"]] += max(0, int(str(event["result"]), 0))
        expect(sums[second] > 16384 and sums[first] == 4 * sums[second], f"written: {sums} by {len(writes)} calls")
        done = run("trace", guest.pid, f"uprobe:{program}:ngx_nothing")
        expect(b"no such function" in done.stderr, f"an unknown function: {done.stderr}")
        guest.puppet(fetch)
        print(f"user: 5 requests of two processes, each seen in the program, and {len(writes)} writes in its library")


def web_worker(guest):
    workers = [int(line.split()[0]) for line in guest.puppet("sh ps").decode().splitlines() if "nginx: worker" in line]
    return workers[0] if workers else None


def recovers(guest, killed_at):
    """Seconds from the kill until the guest was seen to run, at least one: a breakpoint that is left
    stops it soon, as nobody is there."""
    time.sleep(SECOND)
    while (now := status(guest)) != "running":
        expect(time.monotonic() - killed_at < PATIENCE, f"the guest is {now}")
        time.sleep(0.02)
    return time.monotonic() - killed_at


def is_overloaded():
    """The guard then waits for its turn like everybody else."""
    return os.getloadavg()[0] > 2 * os.cpu_count()


def check_kills(count, seed):
    chance, late = random.Random(seed), []
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="trace-kills") as guest:
        guest.puppet("sh (while :; do cat /etc/passwd; done) >/dev/null 2>&1 &")
        for number in range(count):
            tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_read", "kretprobe:do_sys_openat2", "--json"],
                                      stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if number % 3 == 2:  # while it attaches and arms
                time.sleep(chance.uniform(0, 1.5))
            else:
                expect(tracer.stdout.readline(), "trace does not begin")
                drain = threading.Thread(target=tracer.stdout.read)
                drain.start()
                time.sleep(chance.uniform(0, 1))
                expect(tracer.poll() is None, "trace ended before it was killed")
            os.kill(tracer.pid, signal.SIGKILL)
            killed_at = time.monotonic()
            before = status(guest)
            took = recovers(guest, killed_at)
            if took > SECOND + 0.5:
                late.append(f"kill {number}: {before}, ran after {took:.1f} s, load {os.getloadavg()[0]:.0f}")
                print(late[-1], flush=True)
                expect(is_overloaded(), late[-1])
            for _ in range(10):
                guest.puppet("sh cat /etc/passwd", timeout=240)
                expect(status(guest) == "running", f"kill {number}: a breakpoint is left")
            tracer.wait()
        expect("nothing to undo" in vmsight("doctor", "--recover", guest.pid), "records are left")
        print(f"kills: {count}, after each the guest ran on without a breakpoint; {len(late)} times later than a second")


def check_c(program):
    with Guest(kernel="6.1-cloud", backend="memfd", name="trace-c") as guest:
        done = subprocess.run([program, str(guest.pid), "kprobe:vfs_raed", "", "1"], capture_output=True, text=True, timeout=60, check=False)
        expect(done.returncode == 1 and "did you mean vfs_read" in done.stderr, f"an unknown function: {done}")
        user = subprocess.Popen([program, str(guest.pid), "kretprobe:do_sys_openat2", "comm == cat", "5"], stdout=subprocess.PIPE, text=True)
        said = [user.stdout.readline() for _ in range(3)]
        expect(said == ["place do_sys_openat2 1 0\n", "engine gdbstub, sites 1\n", "armed\n"], f"the program does not begin: {said}")
        guest.puppet("sh cat /etc/passwd /nothing 2>/dev/null || :")
        lines = user.communicate(timeout=60)[0].splitlines()
        expect(user.returncode == 0, f"exit status {user.returncode}")
        opened = [line for line in lines if "/etc/passwd" in line or "/nothing" in line]
        expect(len(opened) == 2 and all(" do_sys_openat2 dfd=AT_FDCWD filename=" in line and line.endswith("code=4 user=1 letter=/") for line in opened), f"said {lines}")
        expect("result=-2 (ENOENT)" in opened[1], f"said {lines}")
        events = sum(line.startswith("event ") for line in lines)
        expect(lines[-1] == f"counts 0 {events} {events}", f"said {lines[-1]}")
        expect(status(guest) == "running", f"the guest is {status(guest)}")
        print(f"c: {events} events")


def check_kvm(kernel):
    """On the lab's nested host, where a stop takes about a second: few calls, by one CPU."""
    from vmlab_lib import nested
    code, output = nested.run(f"cd {ROOT} && VMSIGHT={VMSIGHT} VMSIGHT_LAB_BOOT_TIMEOUT=300 "
                              f"python3 {Path(__file__).resolve()} inside {kernel}", timeout=840)
    print(output.decode(errors="replace"))
    expect(code == 0, f"exit status {code} on the nested host")


def trace(what, *arguments):
    if what == "calls":
        for kernel in arguments:
            check_calls(kernel)
    elif what == "kvm":
        check_kvm(*arguments)
    elif what == "inside":
        check_calls(*arguments, rounds=2, cpus=1, accel="kvm")
    elif what == "c":
        check_c(*arguments)
    elif what == "user":
        check_user()
    else:
        check_kills(int(arguments[0]), int(arguments[1]))


if __name__ == "__main__":
    sys.exit(__doc__) if len(sys.argv) < 2 else main(trace)
