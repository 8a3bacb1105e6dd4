#!/usr/bin/env python3
"""probe_kvm.py WHAT[,WHAT...] KERNEL... - probes by the kvm engine, under real stock KVM on the lab's nested host.

calls   the puppet makes known system calls on two CPUs and tells each: every one is seen, at its
        entry and at its return, with the arguments and the result that the guest tells
cycles  armed and disarmed over and over under load; afterwards the guest's code is what it was
many    very many calls: each is counted, at its entry and at its return
kills   vmsight is killed while armed: the guest answers, and soon its code is what it was; once with
        the process that puts it back killed too: then `doctor --recover` does it
refuse  what cannot be probed is refused with a reason
traced  another program traces QEMU, so its vCPUs cannot be halted by ptrace: the monitor is asked instead
overflow vmsight stands until the ring is full: what is not told is told as lost
hundred all system calls are probed at once, at their entry and return: each known call is told
leases  vmsight is stopped, or held by a debugger, in the midst of arming and of disarming, and its events are read
        by nobody: the guest runs on within the lease
storm   a probe that is hit too often is disarmed, and that is told
saved   the guest is saved to a file while armed (a snapshot, or a migration), and restored from it: it
        runs there with nobody who listens, and what ran on here is as it was
texts   names whose last byte is a page's last are those that the guest tells, in filters too
reboot  an unloaded module ends its probes, and a reboot the trace; after it nothing else can be checked
costs   `study probes`: each kind of probe is hit as often as the guest calls, and tells what it should

Runs itself there: the outer part starts the host (HOST_KERNEL, default 6.12), the inner one boots guests.
"""
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import lease
import study
from harness import ROOT, TRACE_NOTHING, TRACER, VMSIGHT, Guest, expect, main_nested, run, vmsight
from trace import Tracer, check_missed, check_module, check_order, check_reset, compare, status, system_call, told_calls
from vmlab_lib import initramfs, nested
from vmlab_lib.kernels import fetch

SITES = ("kprobe:do_sys_openat2", "kretprobe:do_sys_openat2", "kretprobe:__x64_sys_openat")
RECORDS = Path("/run/vmsight")
DRIVER = os.environ.get("PROBE_DRIVER", str(ROOT / "build" / "tests" / "vm" / "probe_driver"))
MANY = int(os.environ.get("MANY", 20_000))
CYCLES = int(os.environ.get("CYCLES", 30))
KILLS = int(os.environ.get("KILLS", 5))
LEASES = int(os.environ.get("LEASES", 3))
BOOT_TIMEOUT = int(os.environ.get("VMSIGHT_LAB_BOOT_TIMEOUT", 300))
HOST_TIMEOUT = int(os.environ.get("HOST_TIMEOUT", 1400))


def code(guest, *functions):
    """The first bytes of functions, by a reading of memory."""
    return [run("read", guest.pid, function, "16", "--raw", timeout=300).stdout for function in functions]


def wait(condition, seconds, what):
    begun = time.monotonic()
    while not condition():
        expect(time.monotonic() < begun + seconds, f"{what}: not after {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - begun


def drive(guest, *arguments, timeout=900):
    """What the program says that arms by the library: KEY VALUE lines."""
    done = subprocess.run([DRIVER, *map(str, arguments[:1]), str(guest.pid), *map(str, arguments[1:])],
                          capture_output=True, timeout=timeout, text=True, check=False)
    expect(done.returncode == 0, f"driver {arguments}: {done.stderr}")
    return {key: int(value) for key, value in (line.split() for line in done.stdout.splitlines())}


def check_calls(guest, kernel):
    tracer = Tracer(guest, *SITES, "--filter", "comm == calls", "--engine", "kvm", "-v")
    expect(tracer.head["engine"] == "kvm", f"engine {tracer.head['engine']}")
    expected = told_calls(guest, 100, 2)
    events, end = tracer.end()
    ids = [probe["probe"] for probe in tracer.head["probes"]]
    seen = {number: [event for event in events if event["probe"] == number] for number in ids}
    compare(f"{kernel}: entries", [(pid, path) for pid, path, *_ in expected],
            [(event["pid"], event["arguments"]["filename"]) for event in seen[ids[0]]])
    compare(f"{kernel}: results", [(pid, path, result) for pid, path, _, _, result in expected],
            [(event["pid"], event["arguments"]["filename"], event["result"]) for event in seen[ids[1]]])
    compare(f"{kernel}: the system call", expected, [system_call(event) for event in seen[ids[2]]])
    for count in end["counts"]:
        expect(count["told"] == len(expected) and count["lost"] == count["missed_returns"] == 0, f"{kernel}: {count}")
    expect(end["foreign"] == 0, f"{end['foreign']} traps of nobody")
    expect({event["comm"] for event in events} == {"calls"}, "comm")
    expect({event["vcpu"] for event in events} == {0, 1}, f"{kernel}: the calls came from one CPU only")
    expect(all(event["duration_ns"] > 0 for event in events if event["at_return"]), "a call took no time")
    check_order(kernel, events, end)
    check_missed(guest, "kvm", "work calls 5 2")
    print(f"{kernel}: {len(expected)} calls, {len(events)} events, every one as the guest told", flush=True)


def check_texts(guest, kernel, longest=40):
    """Names of every length at the end of a page, as the guest told them; and one of them alone."""
    sites = ("kprobe:do_sys_openat2", "kretprobe:__x64_sys_openat")
    wanted = "/" + 7 * chr(ord("a") + 8)
    for condition in ("", f" && filename == {wanted}", f" && filename != {wanted}"):
        tracer = Tracer(guest, *sites, "--filter", f"comm == calls{condition}", "--engine", "kvm")
        told = told_calls(guest, longest, 1, "texts", 2 * (longest - 1) / longest)
        events, end = tracer.end()
        expected = sorted(path for _, path, *_ in told if not condition or (path == wanted) == ("==" in condition.split("filename")[1]))
        for probe in tracer.head["probes"]:
            seen = sorted(event["arguments"]["filename"] or "" for event in events if event["probe"] == probe["probe"])
            expect(seen == expected, f"{kernel}: {probe['site']}{condition}: {seen[:5]} ..., not {expected[:5]} ...: {end}")
    print(f"{kernel}: {len(told)} names that end where a page does, and filters of them", flush=True)


def check_reboot(guest, kernel):
    check_module(guest, "kvm")
    check_reset(guest, "kvm", "does not run this kernel any more", "has vanished", "clock has gone back")
    print(f"{kernel}: an unloaded module ended its probes, and a reboot the trace", flush=True)


def check_many(guest, kernel, calls=MANY):
    """Every one of very many hits is counted, at the entry and at the return, and nothing else is."""
    driver = subprocess.Popen([DRIVER, "count", str(guest.pid), "kprobe:__x64_sys_getppid", "kretprobe:__x64_sys_getppid"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    expect(driver.stdout.readline() == "armed\n", "the driver does not arm")
    begun = time.monotonic()
    guest.puppet(f"work getppid {calls // 2} 2", timeout=1200)
    seconds = time.monotonic() - begun
    said = dict(line.split() for line in driver.communicate("end\n", timeout=120)[0].splitlines())
    for kind in ("kprobe", "kretprobe"):
        expect(int(said[f"{kind}_hits"]) == calls, f"{kernel}: {said}, not {calls} calls")
        expect(int(said[f"{kind}_lost"]) == int(said[f"{kind}_missed_returns"]) == 0, f"{kernel}: {said}")
    expect(int(said["foreign"]) == 0, f"{kernel}: {said}")
    print(f"{kernel}: {calls} calls, all counted at their entry and their return; {seconds:.0f} s", flush=True)


def check_overflow(guest, kernel, calls=100_000):
    """Events that nobody takes while vmsight stands fill the ring; what did not fit is told as lost, and the guest runs on."""
    tracer = Tracer(guest, "kprobe:__x64_sys_getppid", "--engine", "kvm", "--storm-limit", "10000000")
    tracer.process.send_signal(signal.SIGSTOP)
    guest.puppet(f"work getppid {calls // 2} 2", timeout=600)
    tracer.process.send_signal(signal.SIGCONT)
    events, end = tracer.end()
    count = end["counts"][0]
    expect(count["hits"] == calls and count["told"] == len(events) == calls - count["lost"] and count["lost"] > 0,
           f"{kernel}: {count}, {len(events)} events of {calls} calls")
    print(f"{kernel}: {calls} calls while vmsight stood: {len(events)} told, {count['lost']} told as lost", flush=True)


def check_cycles(guest, kernel, cycles=CYCLES):
    functions = ["vfs_read", "vfs_open", "do_sys_openat2", "__x64_sys_mmap", "kernel_clone", "vfs_write"]
    before = code(guest, *functions)
    guest.puppet("sh for i in 1 2 3; do (while :; do cat /etc/passwd; done) >/dev/null 2>&1 & done")
    sites = [f"{'kretprobe' if number % 2 else 'kprobe'}:{function}" for number, function in enumerate(functions)]
    said = drive(guest, "cycles", cycles, *sites)
    expect(said["cycles"] == cycles and said["hits"] > cycles and said["lost"] == 0, f"{kernel}: {said}")
    expect(code(guest, *functions) == before, f"{kernel}: the guest's code is not what it was")
    expect(status(guest) == "running", f"{kernel}: the guest is {status(guest)}")
    guest.puppet("sh killall cat; true")
    print(f"{kernel}: armed and disarmed {cycles} times under load, {said['hits']} hits", flush=True)


def records(guest):
    found = []
    for path in RECORDS.glob(f"{guest.pid}-*.json"):
        try:
            record = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        if record["kind"] == "probes":
            found.append(record)
    return found


def answers(guest):
    begun = time.monotonic()
    guest.puppet("sh cat /etc/passwd")
    return time.monotonic() - begun


def check_kills(guest, kernel, count=KILLS):
    functions = ["vfs_read", "do_sys_openat2"]
    before = code(guest, *functions)
    chance = random.Random(kernel)
    waits = []
    for number in range(count):
        tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_read", "kretprobe:do_sys_openat2", "--json",
                                   "--engine", "kvm"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if number % 3 != 2:  # else it is killed while it attaches and arms
            expect(tracer.stdout.readline(), "trace does not begin")
            expect(code(guest, functions[0]) != before[:1], "armed, and the code is the same")
        time.sleep(chance.uniform(0, 2))
        guards = [record["guard"]["pid"] for record in records(guest)] if number == 0 else []
        for pid in (*guards, tracer.pid):
            os.kill(pid, signal.SIGKILL)
        tracer.wait()
        answered = answers(guest)
        if number == 0:  # the first vmsight that opens the VM would do it too
            expect(guards and records(guest), "nobody was left to put the code back, and there is no record")
            said = json.loads(vmsight("doctor", "--recover", guest.pid, "--json", timeout=300))
            expect([(one["kind"], one["undone"]) for one in said["recovered"]] == [("probes", True)], f"said {said}")
            restored = 0
        else:
            restored = wait(lambda: not records(guest), 20, "the guard")
        expect(code(guest, *functions) == before, f"{kernel}: kill {number}: the guest's code is not what it was")
        waits.append((answered, restored))
        if count < 10:
            print(f"{kernel}: kill {number}: the guest answered after {answered:.2f} s, "
                  f"its code was restored {restored:.2f} s later", flush=True)
    for what, seconds in zip(("the guest answered", "then its code was restored"), zip(*waits)):
        print(f"{kernel}: {count} kills: {what} after {statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s",
              flush=True)


def check_leases(guest, kernel, count=LEASES):
    functions = ["vfs_read", "do_sys_openat2"]
    before = code(guest, *functions)
    chance = random.Random(f"leases {kernel}")
    took = []
    for _ in range(count):
        for phase in ("arming", "disarming"):
            for name, (block, _) in lease.BLOCKED.items():
                tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_read", "kretprobe:do_sys_openat2",
                                           "--json", "--engine", "kvm"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                if phase == "disarming":
                    expect(tracer.stdout.readline(), "trace does not begin")
                    tracer.send_signal(signal.SIGINT)
                time.sleep(chance.uniform(0, 0.4 if phase == "disarming" else 3))
                block(tracer)
                took.append(lease.check_runs(guest, f"engine kvm, {phase}", name))
                lease.end(tracer)
                wait(lambda: not records(guest), 20, f"{phase}, {name}: the guard")
                expect(code(guest, *functions) == before, f"{kernel}: {phase}, {name}: the guest's code is not what it was")
    tracer = subprocess.Popen([VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_read", "--json", "--engine", "kvm"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    expect(tracer.stdout.readline(), "trace does not begin")
    for _ in range(20):
        guest.puppet("sh cat /etc/passwd")
    took.append(lease.check_runs(guest, "engine kvm", "nobody reads"))
    lease.end(tracer)
    wait(lambda: not records(guest), 20, "nobody reads: the guard")
    print(f"{kernel}: blocked {len(took)} times; the guest ran after {max(took):.2f} s at most", flush=True)


def check_refuse(guest, kernel):
    guest.puppet(f"sh {TRACER} && echo vfs_statfs > set_ftrace_filter && echo function > current_tracer")
    other = Tracer(guest, "kprobe:vfs_fsync_range", "--engine", "kvm")
    for site, said in (("kprobe:vfs_statfs", "the guest traces this function itself"),
                       ("kprobe:vfs_fsync_range", "another probe is there already"),
                       ("kprobe:__schedule", "no place that can be patched"),
                       ("kprobe:vfs_read+0x10", "cannot probe inside of functions"),
                       ("kretprobe:do_mmap", "arguments on the stack")):
        done = run("trace", guest.pid, site, "--engine", "kvm", timeout=300)
        expect(done.returncode != 0 and said in done.stderr.decode(), f"{site}: {done.returncode} {done.stderr}")
        print(f"{kernel}: refused: {done.stderr.decode().splitlines()[0]}", flush=True)
    other.end()
    guest.puppet(f"sh {TRACE_NOTHING}")
    expect(not records(guest), f"records are left: {records(guest)}")


def check_traced(guest, kernel):
    before = code(guest, "vfs_read")
    other = subprocess.Popen([sys.executable, str(Path(__file__).with_name("tracer.py")), str(guest.pid)],
                             stdout=subprocess.PIPE, text=True)
    try:
        expect(other.stdout.readline() == "traced\n", "QEMU cannot be traced")
        # The monitor of an emulated host's QEMU, which is asked for registers meanwhile, takes up to a second to answer.
        tracer = Tracer(guest, "kprobe:vfs_read", "--engine", "kvm", "--max-halt", "10000")
        guest.puppet("sh cat /etc/passwd")
        events, end = tracer.end()
        expect(other.poll() is None, "nobody traced QEMU")
    finally:
        other.terminate()
        other.wait()
    expect(events and code(guest, "vfs_read") == before, f"{kernel}: {len(events)} events, {end}")
    print(f"{kernel}: probed by way of the monitor while another program traced QEMU", flush=True)


def check_storm(guest, kernel):
    before = code(guest, "vfs_read")
    guest.puppet("sh (while :; do cat /etc/passwd; done) >/dev/null 2>&1 & echo $! > /tmp/busy")
    done = run("trace", guest.pid, "kprobe:vfs_read", "--engine", "kvm", "--storm-limit", "3", "--stats", "--json",
               "--duration", "300", timeout=600)
    guest.puppet("sh kill $(cat /tmp/busy)")
    expect(done.returncode == 0, f"{kernel}: exit status {done.returncode} {done.stderr}")
    expect(b"vfs_read was hit more than 3 times a second and has been disarmed" in done.stderr, f"{kernel}: {done.stderr}")
    count = json.loads(done.stdout.splitlines()[-1])["counts"][0]
    expect(count["stormed"] and count["hits"] > 3, f"{kernel}: {count}")
    expect(code(guest, "vfs_read") == before, f"{kernel}: the guest's code is not what it was")
    print(f"{kernel}: a probe above its limit was disarmed after {count['hits']} hits", flush=True)


def check_hundred(guest, kernel):
    tracer = Tracer(guest, "--syscalls", "--filter", "comm == calls", "--engine", "kvm")
    armed = len(tracer.head["probes"])
    expect(armed >= 100, f"{kernel}: only {armed} probes")
    expected = told_calls(guest, 20, 2)
    events, end = tracer.end()
    compare(f"{kernel}: openat among all system calls", expected,
            [system_call(event) for event in events if event["function"] == "openat"])
    others = {event["function"] for event in events} - {"openat"}
    expect(len(others) >= 3, f"{kernel}: of the other calls only {others}")
    lost = sum(count["lost"] for count in end["counts"])
    expect(lost == end["foreign"] == 0, f"{kernel}: lost {lost}, foreign {end['foreign']}")
    print(f"{kernel}: {armed} probes at once, {len(events)} events, all calls of openat as the guest told; "
          f"also seen: {' '.join(sorted(others))}", flush=True)


def check_saved(guest, kernel):
    functions = ["vfs_read", "do_sys_openat2"]
    before = code(guest, *functions)
    tracer = Tracer(guest, "kprobe:vfs_read", "kretprobe:do_sys_openat2", "--engine", "kvm", "--filter", "comm == calls")
    armed = code(guest, *functions)
    expect(all(one != other for one, other in zip(before, armed)), f"{kernel}: not armed")
    file = guest.home.parent / "saved"
    with guest.qmp() as qmp:
        qmp.command("migrate", uri=f"exec:cat > {file}")
        wait(lambda: qmp.command("query-migrate").get("status") == "completed", 600, "QEMU saves the guest")
        qmp.command("cont")
    events, _ = tracer.end()
    expect(code(guest, *functions) == before, f"{kernel}: the guest's code is not what it was")
    options = {**vars(guest.options), "qemu_args": ("-incoming", f"exec:cat {file}"), "qmp": False}
    with Guest(name=f"restored-{kernel}", **options) as restored:
        expect(code(restored, *functions) == armed, f"{kernel}: the restored guest is not armed")
        for _ in range(20):
            restored.puppet("sh cat /etc/passwd")
        expect("BUG" not in restored.console().decode(errors="replace"), f"{kernel}: the restored guest complains")
    file.unlink()
    print(f"{kernel}: saved while armed: it runs on where it was restored, and here its code is as before", flush=True)


def check_costs(guest, kernel):
    document = study.check_probe_costs(guest, "kvm,gdbstub", 300, 5, 1, timeout=1200)
    expect(len(document["probes"]) == 11, f"{kernel}: {len(document['probes'])} kinds")
    expect(document["raw_exit_ns"]["median"] > 0, f"{kernel}: raw exit {document['raw_exit_problem']}")
    expect({row["engine"]: row["clock"] for row in document["probes"]} == {"kvm": "command", "gdbstub": "host"}, "clocks")
    print(f"{kernel}: every kind was hit as often as the guest called; in raw exits, as this machine was: " +
          ", ".join(f"{row['engine']} {row['kind']} {row['times_raw_exit']:.2f}" for row in document["probes"]), flush=True)


CHECKS = {"storm": check_storm, "traced": check_traced, "hundred": check_hundred, "saved": check_saved,
          "calls": check_calls, "many": check_many, "cycles": check_cycles, "kills": check_kills,
          "refuse": check_refuse, "costs": check_costs, "texts": check_texts, "leases": check_leases, "overflow": check_overflow,
          "reboot": check_reboot}


def inner(what, *kernels):
    for kernel in kernels:
        with Guest(kernel=kernel, backend="memfd", accel="kvm", cpus=2, name=f"probe-{kernel}") as guest:
            for name in what.split(","):
                CHECKS[name](guest, kernel)
            expect(status(guest) == "running", f"the guest is {status(guest)}")
            guest.puppet("sh cat /etc/passwd")
            console = guest.console().decode(errors="replace")
            expect("WARNING" not in console and "BUG" not in console, f"the guest complains: {console[-2000:]}")


def show(output):
    sys.stdout.write(output.decode(errors="replace"))
    sys.stdout.flush()


def outer_run(program, what, *kernels):
    """Runs a program as this one on the nested host, `inside`."""
    command = (f"cd {ROOT} && VMSIGHT={VMSIGHT} PROBE_DRIVER={DRIVER} MANY={MANY} CYCLES={CYCLES} KILLS={KILLS} LEASES={LEASES} VMSIGHT_LAB_BOOT_TIMEOUT={BOOT_TIMEOUT} "
               f"python3 {program.resolve()} {what} {' '.join(kernels)} inside")
    for kernel in kernels:  # all that takes long is made here
        initramfs.build(fetch(kernel))
    host = os.environ.get("HOST_KERNEL", nested.KERNEL)
    failed, _ = nested.run(command, timeout=HOST_TIMEOUT, kernel=host, echo=show)
    expect(failed == 0, f"exit status {failed} on the nested host")


if __name__ == "__main__":
    main_nested(lambda *arguments: outer_run(Path(__file__), *arguments), inner)
