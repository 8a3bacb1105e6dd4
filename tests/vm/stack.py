#!/usr/bin/env python3
"""stack.py KERNEL... - kernel stacks of all sleeping tasks equal the guest's /proc/PID/stack.

Every frame with its offset and module, and the number of the system call from /proc/PID/syscall, by
mapping and by reads. A task counts if it did not run between the guest's two reports: its context switches
say so.
"""
import collections
import json
import re

from harness import Guest, expect, main, vmsight

# One process for all tasks: a guest under load takes its time for each.
TASKS = "/proc/[0-9]*/task/[0-9]*"
TECHNIQUES = ["live-map", "live-read"]
REPORT = f"grep -H . {TASKS}/stack {TASKS}/syscall; grep -H ctxt {TASKS}/status"


def shell(guest, command):
    return guest.puppet("sh " + command).decode(errors="replace")


def guest_stacks(guest):
    """{tid: (context switches, frames, system call or None)}"""
    files = collections.defaultdict(list)
    for line in shell(guest, REPORT).splitlines():
        match = re.match(r"/proc/\d+/task/(\d+)/(\w+):(.*)", line)
        if match:
            files[int(match[1]), match[2]].append(match[3])
    return {tid: (files[tid, "status"], [parse_frame(line) for line in files[tid, "stack"]], system_call(words[0].split()))
            for (tid, name), words in list(files.items()) if name == "syscall"}


def parse_frame(line):
    """"[<0>] do_poll+0x1/0x2 [module]" without the function's size."""
    return re.sub(r"/0x[0-9a-f]+", "", line.split("] ", 1)[1]).strip()


def system_call(words):
    """Of a kernel thread zeros are printed: it has no user stack."""
    return int(words[0]) if words[0].isdigit() and int(words[-2], 16) else None


def scheduler_text(guest):
    """/proc/PID/stack leaves frames of the scheduler out."""
    lines = shell(guest, "grep __sched_text_ /proc/kallsyms").splitlines()
    ends = {line.split()[2]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}
    return range(ends["__sched_text_start"], ends["__sched_text_end"])


def frame_text(frame):
    module = f" [{frame['module']}]" if frame["module"] else ""
    return f"{frame['symbol']}+{frame['offset']:#x}{module}"


def our_stacks(guest, technique, hidden):
    document = json.loads(vmsight("stack", guest.pid, "--all", "--json", "--technique", technique))
    return {stack["pid"]: ([frame_text(f) for f in stack["frames"] if int(f["address"], 16) not in hidden],
                           stack["system_call"], stack["problem"]) for stack in document["stacks"]}


def check(kernel):
    with Guest(kernel=kernel, backend="memfd", cpus=2, name=f"stack-{kernel}") as guest:
        guest.puppet("reference")
        hidden = scheduler_text(guest)
        before = guest_stacks(guest)
        ours = {technique: our_stacks(guest, technique, hidden) for technique in TECHNIQUES}
        after = guest_stacks(guest)
    slept = [tid for tid in before if after.get(tid) == before[tid]]
    expect(len(slept) > 100, f"{kernel}: only {len(slept)} tasks slept all the time")
    for technique in TECHNIQUES:
        for tid in slept:
            check_task(f"{kernel}, {technique}: task {tid}", before[tid], ours[technique].get(tid))
    print(f"{kernel}: {len(slept)} tasks, {sum(len(before[tid][1]) for tid in slept)} frames")


def check_task(label, guests, ours):
    expect(ours, f"{label} is missing")
    _, expected, number = guests
    found, system_call, problem = ours
    expect(not problem, f"{label}: {problem}")
    expect(found == expected, f"{label}:\n  guest {expected}\n  ours  {found}")
    expect(system_call == number, f"{label}: system call {system_call}, the guest says {number}")


def stack(*kernels):
    for kernel in kernels:
        check(kernel)


if __name__ == "__main__":
    main(stack)
