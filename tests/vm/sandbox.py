#!/usr/bin/env python3
"""sandbox.py [memfd|anon] KERNEL - vmsight while it interprets a guest's memory has no rights but to read it.

A program that attaches as vmsight does, and then does what one that was taken over by the guest's bytes would: each deed
is refused or ends it, by every technique that is read in the sandbox, and the guest runs on (also if it was halted at that
moment). What vmsight calls of the host's kernel once it is in, is traced, for each verb: only what the sandbox allows. Who
it is then, the host's kernel says.
"""
import os
import re
import signal
import subprocess
import tempfile
import time

from harness import Guest, VMSIGHT, expect, main, run, vmsight

PROGRAM = os.environ.get("MISBEHAVING", os.path.join(os.path.dirname(VMSIGHT), "tests/vm/misbehaving"))
ENDED = 70  # by the sandbox
FOLDER = tempfile.TemporaryDirectory()  # for traces and a cache
# By what is read in the sandbox, and by what the front reads for it: by the monitor, the gdbstub, or threads of QEMU.
SANDBOXED = {"memfd": ["live-map", "live-read", "halt-map:ptrace", "halt-read:ptrace", "halt-map:freezer", "halt-map:stop",
                       "halt-snap:copy", "agent:vmsight", "live-interface:pmemsave", "live-snap:uffd", "halt-snap:migrate"],
             "anon": ["live-read", "halt-read:ptrace", "halt-read:freezer", "halt-read:stop", "halt-snap:copy", "agent:vmsight",
                      "live-interface:xp", "live-snap:fork",
                      "live-snap:background", "halt-snap:pmemsave", "halt-snap:dump", "agent:qga"]}
# The guest stands while these are read, page by page: through another process it would stand longer.
NOT_SANDBOXED = ["halt-interface:gdbstub", "halt-interface:pmemsave", "halt-interface:xp"]
VERBS = [["ps", "-T"], ["lsof"], ["ss"], ["ip"], ["findmnt"], ["lsmod"], ["dmesg"], ["lscpu"], ["uname"], ["state", "--json"],
         ["stack", "--all"], ["info"], ["sym", "jiffies"], ["type", "task_struct"], ["print", "jiffies"], ["pmap", "1"],
         ["read", "jiffies", "16"], ["read", "0x1000", "16", "--phys"], ["monitor", "-n", "3", "--rate", "5"],
         ["monitor", "--changes", "-n", "2", "--rate", "5"], ["ps", "--consistent"],
         ["ps", "--no-cache"], ["doctor"], ["check"], ["snapshot", os.path.join(FOLDER.name, "core"), "--force"],
         ["snapshot", os.path.join(FOLDER.name, "raw"), "--force", "--format", "raw"]]
ALLOWED = set("""brk munmap mremap madvise read readv pread64 preadv write writev lseek close fstat poll ppoll recvfrom recvmsg
    sendto sendmsg futex sched_yield sched_getaffinity set_robust_list rseq exit exit_group wait4 rt_sigaction rt_sigprocmask
    rt_sigreturn sigaltstack restart_syscall clock_gettime clock_nanosleep nanosleep gettimeofday time getpid gettid getuid
    geteuid getgid getegid getrandom sysinfo uname mmap mprotect newfstatat ioctl fcntl clone prlimit64
    process_vm_readv pwrite64 ftruncate fstatfs""".split())
WRITES = {"pwrite64", "ftruncate"}  # to the file of a snapshot, or what an image is unpacked into


def misbehaves(target, technique, deed):
    done = subprocess.run([PROGRAM, str(target), technique, deed], capture_output=True, timeout=120, check=False,
                          input=b"typed", env={**os.environ, "HOME": "/nonexistent"})
    wait_for_fronts()
    return done.returncode, done.stdout.decode() + done.stderr.decode()


def wait_for_fronts():
    """They end after the one that they were for, once they have let go of QEMU."""
    def fronts():
        all_of = [line.split(maxsplit=3) for line in
                  subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,comm="], capture_output=True, check=True).stdout.decode().splitlines()]
        names = {pid: name for pid, _, _, name in all_of}
        return [pid for pid, parent, state, name in all_of if name in ("vmsight-front", "vmsight-watch") and state[0] != "Z"
                and not names.get(parent, "").startswith(("vmsight", "misbehaving", "python"))]
    end = time.monotonic() + 10
    while fronts():
        expect(time.monotonic() < end, f"{fronts()} goes on after its owner")
        time.sleep(0.02)


def deeds():
    done = subprocess.run([PROGRAM], capture_output=True, check=False)
    return done.stdout.decode().split()


def uptime(guest):
    return float(guest.puppet("sh cat /proc/uptime").split()[0])


def runs_on(guest):
    """It answers, nobody traces QEMU, and its clock goes."""
    before = uptime(guest)
    tracer = re.search(r"TracerPid:\t(\d+)", open(f"/proc/{guest.pid}/status", encoding="ascii").read()).group(1)
    expect(tracer == "0", f"process {tracer} traces QEMU")
    time.sleep(0.1)
    expect(uptime(guest) > before, "the guest's clock stands")


def check_deeds(guest, techniques):
    for technique in techniques:
        # Our agent's port leads through QEMU to the guest, who sent the bytes in the first place.
        wanted = [deed for deed in deeds() if deed != "holds" or technique != "agent:vmsight"]
        for deed in wanted:
            status, said = misbehaves(guest.pid, technique, deed)
            expect(status in (0, ENDED), f"{technique}: {deed}: exit status {status}: {said}")
            expect(status == ENDED or said.strip() == "refused", f"{technique}: {deed}: {said}")
        runs_on(guest)
        print(f"{technique}: {len(wanted)} deeds refused", flush=True)


def check_no_sandbox(guest, techniques):
    for technique in techniques:
        status, said = misbehaves(guest.pid, technique, "open")
        expect(status == 3 and "would stand longer" in said, f"{technique}: exit status {status}: {said}")


def whole_calls(lines):
    """[(PID, call)] of strace's lines: of a call that was interrupted by another process's, both halves in one."""
    calls, begun = [], {}
    for line in lines:
        pid, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", call)
        calls.append((pid, begun.pop(pid, "") + resumed.group(1) if resumed else call))
    return calls


def traced(target, words, technique):
    """What the interpreting process called after it had entered its sandbox, by names; and that of its threads."""
    verb, *others = words
    file = os.path.join(FOLDER.name, "trace")
    command = ["strace", "-f", "-qq", "-o", file, VMSIGHT, verb, str(target), *others]
    if technique:
        command += ["--technique", technique]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    expect(done.returncode == 0 and done.stdout, f"{command}: {done.returncode}: {done.stderr.decode()[-500:]}")
    lines = whole_calls(open(file, encoding="utf-8", errors="replace").read().splitlines())
    entered = [i for i, (_, call) in enumerate(lines)
               if call.startswith("seccomp(SECCOMP_SET_MODE_FILTER") and call.endswith("= 0")]
    expect(len(entered) == 1, f"{command}: entered {len(entered)} sandboxes")
    check_before(lines[:entered[0]], str(target))
    parser = {lines[entered[0]][0]}
    calls = []
    for pid, call in lines[entered[0] + 1:]:
        if pid not in parser:
            continue
        calls.append(call)
        if call.startswith(("clone(", "clone3(")) and re.search(r"= \d+$", call):
            parser.add(call.rsplit("= ", 1)[1])
    return calls


def check_before(lines, target):
    """Of an image no more is read than the first bytes, by which it is known whether room to unpack it is needed."""
    if not target.startswith("/"):
        return
    calls = [call for _, call in lines]
    opened = [i for i, call in enumerate(calls) if call.startswith("openat(") and f'"{target}"' in call]
    expect(len(opened) == 1, f"{target} was opened {len(opened)} times")
    file = calls[opened[0]].rsplit("= ", 1)[1]
    after = calls[opened[0] + 1:]
    sizes = [int(call.rsplit("= ", 1)[1]) for call in after if re.match(rf"p?read(64)?\({file},", call)]
    expect(sum(sizes) <= 64, f"{target}: {sizes} bytes were read before the sandbox")
    expect(not [call for call in after if re.match(rf"mmap\([^)]*, {file},", call)], f"{target} was mapped before the sandbox")


def check_images(guest):
    """An image is looked at by nobody who has rights: what says where in it which memory is, what unpacks it."""
    plain = os.path.join(FOLDER.name, "image.core")
    vmsight("snapshot", guest.pid, plain)
    subprocess.run(["gzip", "-1", "-k", plain], check=True)
    packed = plain + ".gz"
    # There is no connection and no view yet, and a file without a name to unpack into may be written.
    wanted = [deed for deed in deeds() if deed not in ("holds", "map", "descriptors")]
    for deed in wanted:
        status, said = misbehaves(packed, "file", deed)
        expect(status in (0, ENDED) and (status == ENDED or said.strip() == "refused"), f"{packed}: {deed}: {status}: {said}")
    names = set()
    for image in (plain, packed):
        for words in (["ps"], ["info"], ["state", "--json"], ["check"], ["snapshot", os.path.join(FOLDER.name, "copy"), "--force"]):
            names |= check_calls(image, words)
    for image in (plain, packed):
        os.unlink(image)
    print(f"images: {len(wanted)} deeds refused; {' '.join(sorted(names))}", flush=True)


def check_calls(target, words, technique=None):
    names = set()
    for call in traced(target, words, technique):
        name = re.match(r"(\w+)\(", call)
        if not name:  # a signal, the end
            continue
        names.add(name.group(1))
        if name.group(1) not in ALLOWED:
            expect(re.search(r"= -1 (EACCES|EPERM|ENOSYS)", call), f"{words} {technique}: {call}")
        if name.group(1) in WRITES:
            expect(words[0] == "snapshot" or str(target).endswith(".gz"), f"{words} {technique}: {call}")
        if name.group(1) == "process_vm_readv":
            expect(call.startswith(f"process_vm_readv({target},"), f"{words} {technique}: {call}")
    return names


def check_identity(guest, backend):
    """Who `monitor` is while it runs, by /proc."""
    with subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--rate", "5", "--duration", "20"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()  # it reads the guest
        status = open(f"/proc/{process.pid}/status", encoding="utf-8").read()
        process.kill()
    fields = dict(re.findall(r"^(\w+):\t(.*)$", status, re.M))
    expect(fields["Seccomp"] == "2" and fields["NoNewPrivs"] == "1", status)
    if os.geteuid() == 0:
        expect("0" not in fields["Uid"].split() and "0" not in fields["Gid"].split() and not fields["Groups"].strip(), status)
    allowed = 0 if backend == "memfd" else 1 << 19  # CAP_SYS_PTRACE, for process_vm_readv
    expect(int(fields["CapEff"], 16) & ~allowed == 0 and int(fields["CapPrm"], 16) & ~allowed == 0, status)
    expect(int(fields["CapInh"], 16) == 0 and int(fields["CapAmb"], 16) == 0, status)


def check_cache(guest):
    """What is learnt in the sandbox is kept by the front, and believed the next time."""
    cache = os.path.join(FOLDER.name, "cache")
    for wanted in ("not used", "cache used"):
        said = vmsight("info", guest.pid, environment={"XDG_CACHE_HOME": cache})
        expect(wanted in said, said)
    files = os.listdir(os.path.join(cache, "vmsight"))
    expect(any(file.endswith(".kernel") for file in files) and all(
        os.stat(os.path.join(cache, "vmsight", file)).st_uid == os.geteuid() for file in files), files)


def check_files_of_verbs(guest):
    """What verbs need files for is done by the front: baselines are taken and found again, a snapshot gets its name, or
    leaves nothing."""
    home = {"XDG_CACHE_HOME": os.path.join(FOLDER.name, "baselines")}
    for wanted in (True, False):
        done = run("check", guest.pid, environment=home)
        expect(done.returncode == 0 and (b"the baseline was taken now" in done.stderr) == wanted, done)
    mine = os.path.join(FOLDER.name, "mine")
    for wanted in (True, False):
        done = run("check", guest.pid, "--baseline", mine, "--only", "kernel-text,module-text", environment=home)
        expect(done.returncode == 0 and (b"the baseline was taken now" in done.stderr) == wanted, done)
    for technique in ("live-read", "halt-snap:copy", "halt-snap:migrate"):
        file = os.path.join(FOLDER.name, technique.replace(":", "-"))
        said = vmsight("snapshot", guest.pid, file, "--technique", technique)
        expect(" on disk" in said and "init" in vmsight("ps", file), said)
        expect(os.stat(file).st_uid == os.geteuid() and os.stat(file).st_mode & 0o777 == 0o600, os.stat(file))
        os.unlink(file)
    for technique in ("live-read", "live-interface:pmemsave"):  # by whom the file is written, and who is busy then
        check_half_a_snapshot(guest, technique)


def check_half_a_snapshot(guest, technique):
    with subprocess.Popen([VMSIGHT, "snapshot", str(guest.pid), os.path.join(FOLDER.name, "half"), "--technique", technique],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        half = os.path.join(FOLDER.name, f"half.partial-{process.pid}")
        while not os.path.exists(half) or os.stat(half).st_size == 0:
            expect(process.poll() is None, f"{technique}: it ended without a file")
        process.send_signal(signal.SIGINT)
    wait_for_fronts()
    left = [name for name in os.listdir(FOLDER.name) if name.startswith("half")]
    expect(not left, f"{technique}, interrupted: {left}")


def check_descriptors(guest):
    """What a shell leaves open is closed, and a standard descriptor that is closed is no trap."""
    with open(os.path.join(FOLDER.name, "log"), "w", encoding="ascii") as log:
        with subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--rate", "5", "--duration", "20"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, pass_fds=[log.fileno()]) as process:
            process.stdout.readline()
            held = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{process.pid}/fd")]
            process.kill()
    expect(not any(name.endswith("/log") for name in held), held)
    for closed in ("<&-", "2>&-"):
        said = subprocess.run(f"{VMSIGHT} ps {guest.pid} {closed}", shell=True, stdout=subprocess.PIPE, check=False)
        expect(said.returncode == 0 and said.stdout.count(b"\n") > 20, f"{closed}: {said}")


def check_reader_ends(guest):
    """Whoever reads by process_vm_readv does not go on when QEMU has ended and its PID is free for others."""
    with subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--technique", "live-read", "--rate", "1", "--duration", "60"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(guest.pid, signal.SIGKILL)
        expect(process.wait(timeout=20) == -signal.SIGKILL, f"{process.returncode}")


def check_switch(guest):
    """--no-sandbox keeps all rights; a verb that does what a sandbox forbids has none, and no such option."""
    with subprocess.Popen([VMSIGHT, "monitor", str(guest.pid), "--no-sandbox", "--rate", "5", "--duration", "20"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        status = open(f"/proc/{process.pid}/status", encoding="utf-8").read()
        process.kill()
    expect("Seccomp:\t0" in status, status)
    expect("sandbox" in vmsight("doctor"), "doctor does not tell of it")
    expect(run("trace", guest.pid, "--no-sandbox").returncode == 2, "trace has a sandbox to do without")


def test(backend="memfd", kernel="6.1-cloud"):
    with Guest(kernel=kernel, backend=backend, cpus=2, agent=True, net=True) as guest:
        guest.puppet("reference")
        check_identity(guest, backend)
        check_cache(guest)
        check_switch(guest)
        check_descriptors(guest)
        check_files_of_verbs(guest)
        check_deeds(guest, SANDBOXED[backend])
        check_no_sandbox(guest, NOT_SANDBOXED)
        names = set()
        for words in VERBS:
            names |= check_calls(guest.pid, words)
        for technique in SANDBOXED[backend]:
            names |= check_calls(guest.pid, ["ps"], technique)
        print(f"{len(VERBS)} verbs and {len(SANDBOXED[backend])} techniques call: {' '.join(sorted(names))}")
        check_images(guest)
        runs_on(guest)
        check_reader_ends(guest)


if __name__ == "__main__":
    main(test)
