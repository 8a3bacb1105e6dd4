#!/usr/bin/env python3
"""own_traps.py KERNEL... - a guest that removes, changes or copies vmsight's probes raises an alarm within 2 s.

Under real stock KVM on the lab's nested host, by engine kvm; what a hostile guest would do is done to its memory from
outside. While probes are armed no other check finds anything. A guest that reboots raises no alarm, and is probed again.
"""
import tempfile
import time
from pathlib import Path

from check import Checker, Memory, symbol
from harness import Guest, expect, main_nested
from probe_kvm import outer_run
from watch import Watch, settles

RULES = """
- rule: accounting
  desc: nobody switches accounting on
  probe: kprobe:__x64_sys_acct
  condition: pid exists
  output: "pid=%pid acct"
  priority: notice
- rule: returns
  desc: nobody asks for quotas
  probe: kretprobe:__x64_sys_quotactl
  condition: pid exists
  output: "pid=%pid quotactl"
  priority: notice
- rule: own traps
  desc: probes of vmsight are where they were armed
  integrity: {check: own-traps, every: 1s}
  output: "%object: %what"
  priority: critical
"""
TRAP = b"\x3e\x3e\x3e\x0f\x08"
PROMISED = 2  # seconds


def place(memory, function):
    """Of the NOP at a function's beginning."""
    return function + (4 if memory.read(function, 4) in (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00") else 0)


def alarms(watch, beginning):
    watch.read()
    return [alarm for alarm in watch.alarms if alarm["rule"] == "own traps" and alarm["output"].startswith(beginning)]


def raises(watch, beginning, change):
    """What `change` does raises one alarm of this object; how long after it."""
    before = len(alarms(watch, beginning))
    change()
    begun = time.monotonic()
    settles(lambda: len(alarms(watch, beginning)) > before, f"no alarm of {beginning}", watch)
    taken = time.monotonic() - begun
    alarm = alarms(watch, beginning)[-1]
    print(f"after {taken:.2f} s: {alarm['output']}", flush=True)
    expect(taken < PROMISED, f"the alarm of {beginning} came after {taken:.1f} s")
    expect(alarm["priority"] == "Critical", alarm)


def tampered(guest, memory, watch):
    acct, quotactl = (place(memory, symbol(guest, name)) for name in ("__x64_sys_acct", "__x64_sys_quotactl"))
    settles(lambda: memory.read(acct, 5) == TRAP and memory.read(quotactl, 1) == b"\xe9", "nothing is armed", watch)
    with tempfile.TemporaryDirectory() as folder:
        checker = Checker(guest, folder, "armed")
        armed = checker.clean("with probes", "--only", "ftrace-sites,own-traps,kernel-text")
        looked = {one["check"]: one["looked_at"] for one in armed["checks"]}
        expect(looked["own-traps"] == 2, armed)
        jump = memory.read(quotactl, 5)
        trampoline = quotactl + 5 + int.from_bytes(jump[1:], "little", signed=True)
        code = memory.read(trampoline, 16)
        raises(watch, "probe __x64_sys_quotactl", lambda: memory.write(trampoline + 15, b"\xcc"))
        memory.write(trampoline, code)
        unused = symbol(guest, "__x64_sys_acct") + 24
        before = memory.read(unused, 5)
        raises(watch, "copy", lambda: memory.write(unused, TRAP))
        memory.write(unused, before)
        checker.clean("all is as it was", "--only", "own-traps")
    raises(watch, "probe __x64_sys_acct", lambda: memory.write(acct, b"\x0f\x1f\x44\x00\x00"))
    settles(lambda: memory.read(acct, 5) == TRAP, "the probe is not armed again", watch)
    print("the probe that was removed is armed again", flush=True)


def rebooted(guest, watch):
    before = len(alarms(watch, ""))
    guest.reboot()
    memory = Memory(guest)
    acct = place(memory, symbol(guest, "__x64_sys_acct"))
    deadline = time.monotonic() + 120
    while memory.read(acct, 5) != TRAP:
        watch.read()
        expect(time.monotonic() < deadline, f"nothing is armed after the reboot: {watch.said()}")
        time.sleep(0.2)
    memory.close()
    expect(len(alarms(watch, "")) == before, f"a reboot raised an alarm: {alarms(watch, '')[before:]}")
    print("a reboot raised no alarm, and the guest is probed again", flush=True)


def watched(kernel):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, \
            Guest(kernel=kernel, backend="memfd", accel="kvm", cpus=2, name=f"traps-{kernel}") as guest:
        file.write(RULES)
        file.flush()
        memory = Memory(guest)
        acct = place(memory, symbol(guest, "__x64_sys_acct"))
        before = memory.read(acct, 5)
        watch = Watch(guest, file.name)
        watch.started(120)
        tampered(guest, memory, watch)
        rebooted(guest, watch)
        watch.end()
        memory.close()
        memory = Memory(guest)
        expect(memory.read(place(memory, symbol(guest, "__x64_sys_acct")), 5) == before, "the code is not as before")
        memory.close()
        guest.puppet("sh cat /etc/passwd")
        console = guest.console().decode(errors="replace")
        expect("BUG" not in console, f"the guest complains: {console[-2000:]}")
    print(f"{kernel}: done", flush=True)


def inner(_, *kernels):
    for kernel in kernels:
        watched(kernel)


if __name__ == "__main__":
    main_nested(lambda *kernels: outer_run(Path(__file__), "all", *kernels), inner)
