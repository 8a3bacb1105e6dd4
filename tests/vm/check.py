#!/usr/bin/env python3
"""check.py KERNEL... - `vmsight check` finds nothing in a guest as it is, and what is planted in it by name.

A guest that is clean stays so while it traces its own functions and loads a module. Then its memory is written
from outside, as somebody who has its kernel could: an entry of the table of system calls, a byte of code that
never runs, the links of a process's neighbours, modprobe_path. Each is found by the check that is for it, and gone
when what was there is back. At the end the guest lives: it forks, and its own list of processes is whole.
"""
import json
import os
import re
import struct
import tempfile
from contextlib import contextmanager

from harness import Guest, expect, main, run, vmsight

TRACER = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing"


class Memory:
    """A guest's RAM, by addresses of its kernel, through /proc/PID/mem."""

    def __init__(self, guest):
        self.guest = guest
        self.file = os.open(f"/proc/{guest.pid}/mem", os.O_RDWR)
        maps = open(f"/proc/{guest.pid}/maps").read()
        sizes = [(int(end, 16) - int(start, 16), int(start, 16))
                 for start, end in re.findall(r"^(\w+)-(\w+) rw-s .*memfd", maps, re.M)]
        self.ram = max(sizes)[1]  # guests of the lab have less RAM than there is below the PCI hole

    def close(self):
        os.close(self.file)

    def host(self, address):
        with self.guest.qmp() as qmp:
            said = qmp.command("human-monitor-command", **{"command-line": f"gva2gpa {address:#x}"})
        found = re.search(r"gpa: (0x[0-9a-f]+)", said)
        expect(found, f"{address:#x} is not mapped: {said}")
        return self.ram + int(found[1], 16)

    def read(self, address, size):
        return os.pread(self.file, size, self.host(address))

    def pointer(self, address):
        return struct.unpack("<Q", self.read(address, 8))[0]

    def write(self, address, data):
        expect(os.pwrite(self.file, data, self.host(address)) == len(data), "memory was not written")

    @contextmanager
    def changed(self, *places):
        """(address, bytes) each; all are put back."""
        before = [(address, self.read(address, len(data))) for address, data in places]
        try:
            for address, data in places:
                self.write(address, data)
            yield
        finally:
            for address, data in before:
                self.write(address, data)


def symbol(guest, name):
    return int(json.loads(vmsight("sym", guest.pid, name, "--json"))["symbols"][0]["address"], 16)


def offset(guest, structure, member):
    members = json.loads(vmsight("type", guest.pid, structure, "--json"))["members"]
    return next(one["offset"] for one in members if one["name"] == member)


class Checker:
    def __init__(self, guest, folder, label):
        self.guest, self.baseline, self.label = guest, f"{folder}/baseline", label

    def look(self, *options, status=0):
        done = run("check", self.guest.pid, "--json", "--baseline", self.baseline, *options, timeout=300)
        said = done.stderr.decode(errors="replace")
        expect(done.returncode == status,
               f"{self.label}: exit status {done.returncode}, expected {status}\n{done.stdout.decode()}\n{said}")
        return json.loads(done.stdout)

    def clean(self, what, *options):
        document = self.look(*options)
        sure = [one for one in document["findings"] if one["sure"] != "hint"]
        expect(not sure, f"{self.label}, {what}: {sure}")
        expect(document["checks"], f"{self.label}, {what}: no check was done")
        for skipped in document["skipped"]:
            print(f"{self.label}, {what}: skipped {skipped['check']}: {skipped['reason']}")
        return document

    def finds(self, check, name, sure="certain"):
        document = self.look("--only", check, status=0 if sure == "hint" else 1)
        found = [one for one in document["findings"] if one["check"] == check and name in one["object"]]
        expect(found and found[0]["sure"] == sure, f"{self.label}: {check} does not find {name}: {document}")
        expect(len(document["findings"]) == 1, f"{self.label}: {check} finds more: {document['findings']}")
        print(f"{self.label}: {found[0]['what']}")
        if sure == "hint":
            self.look("--only", check, "--strict", status=1)


def stays_clean(guest, checker):
    first = checker.clean("at first")
    # Kernels without a part have no check of it; the others must not be skipped unseen.
    expect(not first["skipped"], f"{checker.label}: skipped: {first['skipped']}")
    checker.clean("again")
    guest.puppet(f"sh {TRACER} && echo function > current_tracer")
    checker.clean("while functions are traced")
    guest.puppet(f"sh {TRACER} && echo nop > current_tracer")
    guest.puppet(f"sh {TRACER} && echo 'p:integ vfs_statfs' > kprobe_events && echo 1 > events/kprobes/integ/enable")
    checker.clean("with a kprobe")
    guest.puppet(f"sh {TRACER} && echo 0 > events/kprobes/integ/enable && echo > kprobe_events")
    guest.puppet("sh insmod /modules/nbd.ko || insmod /modules/zram.ko")
    checker.clean("with another module")
    guest.puppet("sh rmmod nbd || rmmod zram")
    checker.clean("without it again")


def hook_system_call(guest, memory, checker):
    table, wrong = symbol(guest, "sys_call_table"), symbol(guest, "ksys_read")
    number = 179  # quotactl: nobody here calls it
    with memory.changed((table + 8 * number, struct.pack("<Q", wrong))):
        checker.finds("syscall-table", f"sys_call_table[{number}]")
    checker.clean("the table is as it was", "--only", "syscall-table")
    with memory.changed((table + 8 * number, memory.read(table + 8 * 163, 8))):  # acct
        checker.finds("syscall-table", f"sys_call_table[{number}]", "likely")


def change_code(guest, memory, checker):
    unused = symbol(guest, "__x64_sys_acct") + 24
    before = memory.read(unused, 1)
    with memory.changed((unused, bytes([before[0] ^ 0xff]))):
        checker.finds("kernel-text", "text __x64_sys_acct+0x18")
    checker.clean("the code is as it was", "--only", "kernel-text")


def hide_process(guest, memory, checker):
    """Its neighbours in the list of tasks are made each other's; the process runs on."""
    pid = int(guest.puppet("sh sleep 1000 >/dev/null 2>&1 & echo $!").split()[0])
    processes = json.loads(vmsight("state", guest.pid, "--json"))["processes"]
    task = next(int(one["task"], 16) for one in processes if one["pid"] == pid)
    link = task + offset(guest, "task_struct", "tasks")
    after, before = memory.pointer(link), memory.pointer(link + 8)
    with memory.changed((before, struct.pack("<Q", after)), (after + 8, struct.pack("<Q", before))):
        checker.finds("processes", f"process {pid}")
    checker.clean("the process is back", "--only", "processes")
    guest.puppet(f"sh kill {pid}")


def change_helper(guest, memory, checker):
    with memory.changed((symbol(guest, "modprobe_path"), b"/tmp/evil\0")):
        checker.finds("usermode-helpers", "modprobe_path", "hint")
    expect(not checker.clean("modprobe_path is as it was", "--only", "usermode-helpers")["findings"], "still a hint")


def is_healthy(guest):
    said = guest.puppet("sh for i in 1 2 3 4 5 6 7 8; do (true) ; done; echo forked; dmesg").decode(errors="replace")
    expect(said.startswith("forked"), f"the guest does not fork: {said[:200]}")
    for bad in ("BUG:", "Oops", "general protection", "list_del corruption"):
        expect(bad not in said, f"the guest's kernel says {bad}")


def check(kernel):
    with Guest(kernel=kernel, backend="memfd", cpus=2, name=f"check-{kernel}") as guest, \
            tempfile.TemporaryDirectory() as folder:
        checker, memory = Checker(guest, folder, kernel), Memory(guest)
        try:
            guest.puppet("reference")
            stays_clean(guest, checker)
            for plant in (hook_system_call, change_code, hide_process, change_helper):
                plant(guest, memory, checker)
            checker.clean("at the end")
            is_healthy(guest)
        finally:
            memory.close()
    print(f"{kernel}: done")


def checks(*kernels):
    vmsight("check", "--list")
    for kernel in kernels:
        check(kernel)


if __name__ == "__main__":
    main(checks)
