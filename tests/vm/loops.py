#!/usr/bin/env python3
"""loops.py [kvm] KERNEL... - a rule about what a task enters and must leave fires on what does not, and on too many turns.

Opening a FIFO that nobody writes to is a function that is not left; one that gets its writer is. A directory of many
entries is a loop of many turns; a small one is not. With `kvm` the guests run by real KVM on the lab's nested host.
"""
import tempfile
import time
from pathlib import Path

from harness import Guest, expect, main_nested
from probe_kvm import outer_run
from watch import quiet, shell, start, watching

RULES = """
- rule: open does not end
  desc: A task waits for the other end of a FIFO.
  loop: {entry: "kprobe:fifo_open", exit: "kretprobe:fifo_open", for: 3s}
  condition: comm in (cat, busybox)
  output: "%comm pid=%pid is in %function for %standing, at %symbol"
  priority: warning

- rule: many turns
  desc: A directory is long.
  loop: {entry: "kprobe:iterate_dir", body: "kprobe:filldir64", exit: "kretprobe:iterate_dir", turns: 100}
  condition: comm in (ls, busybox)
  output: "%comm pid=%pid turns in %function: %turns"
  priority: warning
"""
MANY = "mkdir -p /tmp/{0} && cd /tmp/{0} && for i in $(seq {1}); do : > entry-$i; done"


def scenes(guest, watch):
    shell(guest, "mkfifo /tmp/fifo /tmp/other; " + MANY.format("few", 20) + "; " + MANY.format("many", 150))
    quiet(watch, 2)
    # Each of these ends in time, or is of a task that the condition does not name.
    shell(guest, "(sleep 1; echo hello > /tmp/fifo) & cat /tmp/fifo")
    shell(guest, "ls /tmp/few > /dev/null")
    start(guest, "sh -c 'exec 3< /tmp/other'")
    quiet(watch, 5)

    begun = time.monotonic()
    reader = start(guest, "cat /tmp/fifo")
    alarm = watch.wait("open does not end", reader)
    print(f"{alarm['output']}; after {time.monotonic() - begun:.1f} s")
    expect(alarm["output_fields"]["function"] == "fifo_open", alarm)
    expect("wait_for_partner" in alarm["output_fields"]["symbol"] or "fifo_open" in alarm["output_fields"]["symbol"], alarm)
    lister = start(guest, "ls /tmp/many")
    alarm = watch.wait("many turns", lister)
    print(alarm["output"])
    expect(alarm["output_fields"]["turns"] == 101, alarm)
    quiet(watch, 4)
    expect(len(watch.alarms) == 2, [one["output"] for one in watch.alarms])

    shell(guest, f"kill -9 {reader}")  # it never leaves, and is forgotten
    quiet(watch, 5)
    expect(len(watch.alarms) == 2, watch.alarms)


def looped(kernel, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules, Guest(kernel=kernel, backend="memfd", cpus=2, **options) as guest:
        rules.write(RULES)
        rules.flush()
        with watching(guest, rules.name, "--engine", "auto") as watch:
            scenes(guest, watch)
        guest.report()


def test(first, *kernels):
    if first == "kvm":
        outer_run(Path(__file__), "kvm", *kernels)
        return
    for kernel in (first, *kernels):
        looped(kernel)


def inner(_, *kernels):
    for kernel in kernels:
        looped(kernel, accel="kvm", name=f"loops-{kernel}")


if __name__ == "__main__":
    main_nested(test, inner)
