#!/usr/bin/env python3
"""fifty.py ROUNDS KERNEL - one rule of each kind fires each time that there is something, and never otherwise.

Times are shortened (a heartbeat 3 s, progress 3 s, records each 0.5 s, integrity each 2 s); since a guest under TCG whose
forks are probed by the gdbstub may take 3 s for a fork, the rule about progress is about one program. In each round a worker is
stopped, a program spins, a file is opened, a deleted program runs and modprobe_path is changed, all at once; then all is
as before, and each rule must have told it once.
"""
import tempfile
import time

from check import Memory, symbol
from harness import Guest, expect, main
from watch import Watch, settles, shell, start

RULES = """
- rule: silent
  desc: a worker that started programs again and again does not any more
  heartbeat: {probe: "kprobe:kernel_clone", expect: 3s, grace: 5s}
  condition: cmdline contains worker
  output: "%pid silent for %silence"
  priority: critical
- rule: spins
  desc: a program spins
  progress: {of: process, cpu: 20%, for: 3s}
  condition: cmdline contains "do :; done"
  output: "%pid spins at %symbol"
  priority: warning
- rule: opens
  desc: a file that nobody should open
  probe: kprobe:do_sys_openat2
  condition: filename == "/tmp/secret" and comm == cat
  output: "%tgid opens %filename"
  priority: error
- rule: deleted
  desc: a deleted program runs
  state: {of: processes, when: present, every: 500ms}
  condition: exe endswith " (deleted)"
  output: "%pid runs %exe"
  priority: warning
- rule: changed
  desc: the kernel is not as it should be
  integrity: {check: [usermode-helpers, syscall-table], every: 2s}
  condition: sureness in (certain, likely)
  output: "%object"
  priority: critical
"""


def test(rounds, kernel):
    slowest = {}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules, Guest(kernel=kernel, backend="memfd", cpus=2) as guest:
        rules.write(RULES)
        rules.flush()
        memory, place = Memory(guest), symbol(guest, "modprobe_path")
        watch = Watch(guest, rules.name)
        watch.started()
        for number in range(int(rounds)):
            before = len(watch.alarms)
            worker = start(guest, "sh -c 'while :; do sleep 0.2; done' worker")
            time.sleep(2.5)
            watch.read()
            expect(len(watch.alarms) == before, f"round {number}: alarms before there is anything: {watch.alarms[before:]}")
            begun = time.monotonic()
            with memory.changed((place, b"/tmp/x\0")):
                spinner = start(guest, "sh -c 'while :; do :; done'")
                gone = start(guest, "sh -c 'cp /bin/busybox /tmp/busybox-gone; exec /tmp/busybox-gone sleep 1000'")
                shell(guest, f"kill -STOP {worker}; echo x > /tmp/secret; sleep 0.3; rm /tmp/busybox-gone; cat /tmp/secret")
                wanted = {"silent": worker, "spins": spinner, "deleted": gone, "opens": None, "changed": None}
                seen = {}

                def all_seen():
                    watch.read()
                    for alarm in watch.alarms[before:]:
                        pid = wanted[alarm["rule"]]
                        if pid is None or alarm["output_fields"].get("pid") == pid:
                            seen.setdefault(alarm["rule"], time.monotonic() - begun)
                    return len(seen) == len(wanted)
                settles(all_seen, f"round {number}: only {sorted(seen)}", watch, 30)
            shell(guest, f"kill -9 {worker} {spinner} {gone}")
            time.sleep(2.5)
            watch.read()
            told = [(alarm["rule"], alarm["output"]) for alarm in watch.alarms[before:]]
            expect(len(told) == len(wanted), f"round {number}: {told}")
            for rule, taken in seen.items():
                slowest[rule] = max(slowest.get(rule, 0), taken)
        watch.end()
        guest.report()
    print(f"{rounds} of {rounds}; the slowest: {', '.join(f'{rule} {taken:.1f} s' for rule, taken in slowest.items())}")


if __name__ == "__main__":
    main(test)
