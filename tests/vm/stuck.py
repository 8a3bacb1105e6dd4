#!/usr/bin/env python3
"""stuck.py KERNEL... - the shipped rules about what does not get on fire on what really does not, and name where.

A process waits in vfork() for a child that never goes; one of real-time priority takes a CPU for itself; a kernel thread,
then a CPU with its interrupts off, then all CPUs go round in code that was written over a function nobody had called
yet. After that the guest is dead, which is what the last rule says. The rules have their shipped times; nothing is said
before, and nothing about a guest that is idle.
"""
import time
from pathlib import Path

from check import Memory, symbol
from harness import Guest, expect, main
from watch import Watch, quiet, settles, shell, start

RULES = Path(__file__).parents[2] / "rules/progress.yaml"
FOR_EVER = b"\xeb\xfe"  # jmp to itself
WITHOUT_INTERRUPTS = b"\xfa" + FOR_EVER  # cli before


def stuck(guest, watch, rule, fields, patience, begun):
    """The alarm of that rule with these values; how long after `begun` it came."""
    def found():
        watch.read()
        return [alarm for alarm in watch.alarms
                if alarm["rule"] == rule and all(alarm["output_fields"].get(key) == value for key, value in fields.items())]
    settles(found, f"no alarm \"{rule}\" with {fields}; there are {[a['output'] for a in watch.alarms]}", watch, patience)
    alarm = found()[0]
    print(f"{rule}: {alarm['output']}; after {time.monotonic() - begun:.1f} s")
    return alarm


def stick(guest, words):
    return int(guest.puppet(f"stick {words}").split()[0].removeprefix(b"pid="))


def waiting(guest, watch):
    begun = time.monotonic()
    pid = stick(guest, "vfork")
    alarm = stuck(guest, watch, "task stuck in D", {"tid": pid}, 60, begun)
    expect(time.monotonic() - begun >= 30, "it came too early")
    expect("vfork" in alarm["output_fields"]["symbol"] or "kernel_clone" in alarm["output_fields"]["symbol"], alarm)
    shell(guest, f"kill -9 {pid}")


def spinning(guest, watch):
    begun = time.monotonic()
    pid = start(guest, "sh -c 'while :; do :; done'")
    alarm = stuck(guest, watch, "spinning process", {"pid": pid}, 40, begun)
    expect(time.monotonic() - begun >= 10 and alarm["output_fields"]["symbol"] != "", alarm)
    shell(guest, f"kill -9 {pid}")


def real_time(guest, watch):
    """Others want to run on its CPU, and do not."""
    shell(guest, "echo -1 > /proc/sys/kernel/sched_rt_runtime_us; for i in 1 2 3; do taskset 2 sh -c 'while :; do sleep 0.1; done' > /dev/null 2>&1 & done")
    begun = time.monotonic()
    pid = stick(guest, "real-time 1")
    alarm = stuck(guest, watch, "CPU does not switch", {"cpu": 1, "pid": pid}, 60, begun)
    expect(alarm["output_fields"]["lockup"] == "soft" and alarm["output_fields"]["waiting"] > 1, alarm)
    time.sleep(15)  # it ends by itself: nobody may be there to be told to kill it
    shell(guest, "killall sleep; killall sh")


def kernel_thread(guest, watch):
    guest.puppet("module loop")
    Memory(guest).write(symbol(guest, "loop_rootcg_workfn"), FOR_EVER)
    begun = time.monotonic()
    shell(guest, "dd if=/dev/zero of=/tmp/image bs=1k count=64 2>/dev/null; losetup /dev/loop0 /tmp/image; (dd if=/dev/loop0 of=/dev/null count=1 > /dev/null 2>&1 &)")
    alarm = stuck(guest, watch, "spinning kernel thread", {}, 60, begun)
    expect(alarm["output_fields"]["comm"].startswith("kworker") and alarm["output_fields"]["symbol"].startswith("loop_rootcg_workfn"), alarm)


def hard(guest, watch):
    """A CPU with its interrupts off; half a minute later the other one, too, and with it the guest's clock."""
    Memory(guest).write(symbol(guest, "__x64_sys_acct"), WITHOUT_INTERRUPTS)
    stick(guest, "acct 0 40")  # nobody could start it later
    begun = time.monotonic()
    pid = stick(guest, "acct 1 0")
    alarm = stuck(guest, watch, "CPU does not switch", {"cpu": 1, "lockup": "hard", "pid": pid}, 38, begun)
    expect(alarm["output_fields"]["symbol"].startswith("__x64_sys_acct"), alarm)
    alarm = stuck(guest, watch, "guest stands", {}, 60, begun + 40)
    expect("__x64_sys_acct" in alarm["output_fields"]["symbol"], alarm)


def watched(kernel, *scenes):
    with Guest(kernel=kernel, backend="memfd", cpus=2) as guest:
        watch = Watch(guest, RULES)
        watch.started()
        quiet(watch, 15)
        for scene in scenes:
            scene(guest, watch)
        watch.end()


# Others get a twentieth of a CPU beside a process of real-time priority (the fair server): it switches.
FAIR_SERVERS = ("6.12", "7.2")


def test(*kernels):
    for kernel in kernels:
        alone = [] if kernel.partition("@")[0] in FAIR_SERVERS else [real_time]
        watched(kernel, spinning, waiting, *alone, kernel_thread)
        watched(kernel, hard)  # the CPU of the kernel thread is lost to others


if __name__ == "__main__":
    main(test)
