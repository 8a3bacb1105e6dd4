#!/usr/bin/env python3
"""probe_user.py WHAT[,WHAT...] KERNEL... - probes of user programs by the kvm engine, under real stock KVM.

calls    processes on two CPUs make known calls of a function and tell each: every one is seen once, with the
         arguments that the guest tells; then only those of one process; then only counted
reload   the guest drops the file's page, and its inode: runs of the program that follow are seen again
forged   the trap, executed elsewhere: no hit, and counted
kills    vmsight is killed while armed: the page is put back by its guard, or by `doctor --recover`
refuse   what cannot be probed is refused with a reason, or left to another engine
cycles   armed and disarmed over and over while the function is called without end

Runs itself there, as probe_kvm.py: the outer part starts the host, the inner one boots guests.
"""
import json
import os
import re
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from harness import VMSIGHT, Guest, expect, main_nested, run, vmsight
from probe_kvm import answers, drive, outer_run, records, wait
from trace import Tracer, status
from vmlab_lib import initramfs
from vmlab_lib.errors import LabError

PROGRAM = "/disk/puppet"
CALLS = int(os.environ.get("CALLS", 40))
ENDBR, TRAP = bytes.fromhex("f30f1efa"), bytes.fromhex("3e0f01d9")


def symbols():
    """The program has no dynamic symbols: a copy of it tells where the function is."""
    return "--symbols", str(initramfs.build_puppet())


def site(function="told_call", kind="uprobe"):
    return f"{kind}:{PROGRAM}:{function}"


def trace(guest, *arguments):
    return Tracer(guest, site(), *symbols(), "--text", "arg1", "--engine", "kvm", *arguments)


def told(text):
    """[(pid, number, text)] as the guest says that it passed them."""
    words = [line.split() for line in text.decode().splitlines()]
    return [(int(word[1]), int(word[2]), word[3]) for word in words if word[:1] == ["told"]]


def make_calls(guest, calls=CALLS, processes=2):
    said = told(guest.puppet(f"sh {PROGRAM} work told {calls} {processes}", timeout=600))
    expect(len(said) == calls * processes, f"the guest made {len(said)} calls, not {calls * processes}")
    return said


def as_told(event):
    number = int(event["arguments"]["arg0"], 16)
    return event["pid"], number - (number >> 63 << 64), event["arguments"]["arg1"]


def check_same(what, expected, events):
    seen, wanted = Counter(map(as_told, events)), Counter(expected)
    expect(seen == wanted, f"{what}: {len(events)} events of {len(expected)} calls; "
           f"missing {list((wanted - seen).items())[:3]}, not made {list((seen - wanted).items())[:3]}")


def count_of(end):
    expect(end["counts"][0]["lost"] == 0, f"lost: {end}")
    return end["counts"][0]


class Waiting:
    """A process that makes its calls when it is told to: by then a probe can know it."""

    def __init__(self, guest, name, calls=CALLS):
        self.guest, self.name = guest, name
        guest.puppet(f"sh rm -f /tmp/{name}.go; TOLD_GO=/tmp/{name}.go {PROGRAM} work told {calls} 1 > /tmp/{name}.said 2>&1 & echo $! > /tmp/{name}.pid")
        self.pid = int(guest.puppet(f"sh cat /tmp/{name}.pid"))
        self.calls = calls

    def go(self):
        self.guest.puppet(f"sh touch /tmp/{self.name}.go")
        # Asked again and again: who is its parent does not bury it while a command runs.
        wait(lambda: not self.guest.puppet(f"sh kill -0 {self.pid} 2>/dev/null && echo yes || true"), 120, "its calls")
        said = told(self.guest.puppet(f"sh cat /tmp/{self.name}.said"))
        expect(len(said) == self.calls, f"the guest made {len(said)} calls, not {self.calls}")
        return said


def check_calls(guest, kernel):
    keeper = Waiting(guest, "keeper", 1)
    tracer = trace(guest)
    expect(tracer.head["engine"] == "kvm", f"engine {tracer.head['engine']}")
    expected = make_calls(guest)
    events, end = tracer.end()
    check_same(f"{kernel}: calls", expected, events)
    expect({event["vcpu"] for event in events} == {0, 1}, f"{kernel}: the calls came from one CPU only")
    expect({event["comm"] for event in events} == {"told"}, "comm")
    expect(all(event["registers"].get("rax") is None for event in events), "RAX is told, and was lost")
    expect(all(int(event["registers"]["rip"], 16) & 15 == 0 for event in events), f"rip: {events[0]['registers']}")
    expect(count_of(end)["hits"] == len(expected) and end["foreign"] == 0, f"{kernel}: {end}")
    print(f"{kernel}: {len(expected)} calls of 2 processes, every one as the guest told", flush=True)

    wanted, other = Waiting(guest, "wanted"), Waiting(guest, "other")
    tracer = trace(guest, "--pid", str(wanted.pid))
    others, expected = other.go(), wanted.go()
    events, end = tracer.end()
    check_same(f"{kernel}: --pid", expected, events)
    expect(count_of(end)["hits"] == len(expected) and count_of(end)["foreign"] == len(others), f"{kernel}: {end}")
    print(f"{kernel}: --pid: {len(expected)} calls, {len(others)} of another process not told", flush=True)

    tracer = trace(guest, "--filter", "arg1 == 'text-1-1' || arg0 == 9")
    expected = make_calls(guest)
    events, end = tracer.end()
    check_same(f"{kernel}: --filter", [call for call in expected if call[1] == 9], events)
    expect(count_of(end)["filtered"] == len(expected) - len(events), f"{kernel}: {end}")
    tracer = trace(guest, "--stats")
    expected = make_calls(guest)
    events, end = tracer.end()
    expect(not events and count_of(end)["hits"] == len(expected), f"{kernel}: counted {end}, not {len(expected)} calls")
    keeper.go()


def armed(guest):
    return [patch for record in records(guest) for patch in record["payload"]["patches"]]


def page_of(guest, patch):
    """The bytes where a trap was written, by a reading of memory."""
    return run("read", guest.pid, f"{patch[2]:#x}", "4", "--phys", "--raw", timeout=300).stdout


def check_reload(guest, kernel):
    keeper = Waiting(guest, "keeper", 1)
    tracer = trace(guest)
    first = make_calls(guest)
    before = armed(guest)
    expect(len(before) == 1, f"armed: {before}")
    # The inode stays, for somebody has it open.
    guest.puppet(f"sh sleep 10000 < {PROGRAM} > /dev/null 2>&1 & echo $! > /tmp/holder")
    seen = first + keeper.go()
    guest.puppet("sh echo 3 > /proc/sys/vm/drop_caches")
    wait(lambda: not armed(guest), 60, "the dropped page is forgotten")
    for inode in ("held", "read anew"):
        if inode != "held":
            guest.puppet("sh kill $(cat /tmp/holder); sleep 0.2; for i in 1 2; do echo 3 > /proc/sys/vm/drop_caches; sleep 0.2; done")
            wait(lambda: not armed(guest), 60, "the dropped page is forgotten")
        late = Waiting(guest, "late")
        took = wait(lambda: armed(guest), 60, "the page is armed again")
        seen += late.go()
        print(f"{kernel}: inode {inode}: armed again {took:.1f} s after the program had started", flush=True)
    events, end = tracer.end()
    check_same(f"{kernel}: dropped twice", seen, events)
    expect(count_of(end)["reloads"] == 2 and not count_of(end)["absent"], f"{kernel}: {end}")
    expect(not records(guest), "records are left")


def check_forged(guest, kernel):
    keeper = Waiting(guest, "keeper", 1)
    tracer = trace(guest)
    said = guest.puppet("work forge 50")
    expect(b"forged 50" in said, f"the guest says {said}")
    expected = make_calls(guest, 5)
    events, end = tracer.end()
    check_same(f"{kernel}: beside forged traps", expected, events)
    expect(end["foreign"] == 50 and count_of(end)["foreign"] == 0, f"{kernel}: {end}")
    keeper.go()
    print(f"{kernel}: 50 forged traps, counted as foreign", flush=True)


def check_kills(guest, kernel, count=3):
    keeper = Waiting(guest, "keeper", 1)
    for number in range(count):
        tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), site(), *symbols(), "--json", "--engine", "kvm"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        expect(tracer.stdout.readline(), "trace does not begin")
        patch = armed(guest)[0]
        expect(page_of(guest, patch) == TRAP, f"armed, and the code is {page_of(guest, patch)}")
        guards = [record["guard"]["pid"] for record in records(guest)] if number == 0 else []
        for pid in (*guards, tracer.pid):
            os.kill(pid, signal.SIGKILL)
        tracer.wait()
        answered = answers(guest)
        make_calls(guest, 5)  # goes right, trap or not
        if number == 0:
            expect(guards and records(guest), "nobody was left to put the code back, and there is no record")
            said = json.loads(vmsight("doctor", "--recover", guest.pid, "--json", timeout=300))
            expect([(one["kind"], one["undone"]) for one in said["recovered"]] == [("probes", True)], f"said {said}")
        else:
            wait(lambda: not records(guest), 60, "the guard")
        expect(page_of(guest, patch) == ENDBR, f"{kernel}: kill {number}: the code is {page_of(guest, patch)}")
        print(f"{kernel}: kill {number}: the guest answered after {answered:.2f} s, its code is what it was", flush=True)
    keeper.go()


def check_refuse(guest, kernel):
    keeper = Waiting(guest, "keeper", 1)
    other = trace(guest)
    hint = "--engine gdbstub"
    for arguments, said, told_hint in (
            ([site("getenv")], "does not begin with endbr64", hint),
            ([site("told_call+4")], "cannot probe inside of functions", hint),
            ([site(kind="uretprobe")], "does not see functions of user programs return", hint),
            ([site()], "another probe is there already", "doctor --recover"),
            (["uprobe:0x401000", "--pid", str(keeper.pid)], "probes files, not addresses", hint)):
        done = run("trace", guest.pid, *arguments, *symbols(), "--engine", "kvm", timeout=300)
        text = done.stderr.decode()
        expect(done.returncode == 3 and said in text and told_hint in text, f"{arguments}: {done.returncode} {text}")
        print(f"{kernel}: refused: {text.splitlines()[0]}", flush=True)
    expected = make_calls(guest, 3)
    events, _ = other.end()
    check_same(f"{kernel}: beside what was refused", expected, events)
    # Without a name "auto" takes the engine that can.
    tracer = Tracer(guest, site("getenv"), *symbols())
    expect(tracer.head["engine"] == "gdbstub", f"engine {tracer.head['engine']}")
    tracer.end()
    keeper.go()
    expect(not records(guest), f"records are left: {records(guest)}")


def check_cycles(guest, kernel, cycles=int(os.environ.get("CYCLES", 30))):
    keeper = Waiting(guest, "keeper", 1)
    guest.puppet(f"sh touch /tmp/load; for i in 1 2 3; do (while [ -e /tmp/load ]; do {PROGRAM} work told 1000 1 >/dev/null"
                 " || touch /tmp/wrong; done) >/dev/null 2>&1 & done")
    os.environ["PROBE_SYMBOLS"] = symbols()[1]
    said = drive(guest, "cycles", cycles, site(), timeout=1200)
    expect(said["cycles"] == cycles and said["hits"] > cycles and said["lost"] == 0, f"{kernel}: {said}")
    guest.puppet("sh rm /tmp/load")
    wait(lambda: guest.puppet("sh pidof puppet || true").split() == [b"%d" % keeper.pid], 300, "the end of the load")
    expect(not guest.puppet("sh ls /tmp/wrong 2>/dev/null || true"), f"{kernel}: a call went wrong")
    expect(not records(guest), "records are left")
    keeper.go()
    print(f"{kernel}: armed and disarmed {cycles} times under load, {said['hits']} hits", flush=True)


CHECKS = {"calls": check_calls, "reload": check_reload, "forged": check_forged, "kills": check_kills,
          "refuse": check_refuse, "cycles": check_cycles}


def make_disk(home):
    """A file system with the program: what is on a disk can be dropped from memory."""
    folder = home / "files"
    folder.mkdir()
    (folder / "puppet").write_bytes(initramfs.build_puppet().read_bytes())
    (folder / "puppet").chmod(0o755)
    image = home / "disk.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum,^metadata_csum_seed,^orphan_file", "-d", folder, image, "16M"], check=True)
    return image


def mount_disk(guest):
    for module in ("crc32c_generic", "ext4"):
        try:
            guest.puppet(f"module {module}")
        except LabError:
            pass  # built in, or mount will tell
    guest.puppet("sh mkdir -p /disk && mount -t ext4 /dev/vda /disk")


def inner(what, *kernels):
    with tempfile.TemporaryDirectory() as folder:
        image = make_disk(Path(folder))
        for kernel in kernels:
            with Guest(kernel=kernel, backend="memfd", accel="kvm", cpus=2, name=f"user-{kernel}", disk=str(image)) as guest:
                mount_disk(guest)
                for name in what.split(","):
                    CHECKS[name](guest, kernel)
                expect(status(guest) == "running", f"the guest is {status(guest)}")
                console = guest.console().decode(errors="replace")
                expect(not re.search("WARNING|BUG|segfault|traps:", console), f"the guest complains: {console[-2000:]}")


if __name__ == "__main__":
    main_nested(lambda *arguments: outer_run(Path(__file__), *arguments), inner)
