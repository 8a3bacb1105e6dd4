#!/usr/bin/env python3
"""check.py [reboot] KERNEL... - `vmsight check` finds nothing in a guest as it is, and what is planted in it by name.

A guest that is clean stays so while it traces its own functions, filters packets by BPF and loads a module. Then its
memory is written from outside, as somebody who has its kernel could: one place for each check, at most, of which
nothing runs meanwhile. Each is found by the check that is for it, and gone when what was there is back. At the end the
guest lives: it forks, and its own list of processes is whole. With `reboot`: nothing is found after reboots.
"""
import json
import os
import re
import struct
import subprocess
import tempfile
import time
from contextlib import contextmanager

from harness import TRACE_FUNCTIONS, TRACE_NOTHING, TRACER, VMSIGHT, Guest, expect, main, run, vmsight


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

    def page_table_entry(self, address):
        """Where on the host the entry lies that maps a page of 4 KiB."""
        with self.guest.qmp() as qmp:
            said = qmp.command("human-monitor-command", **{"command-line": "info registers"})
        levels = 5 if int(re.search(r"CR4=([0-9a-f]+)", said)[1], 16) >> 12 & 1 else 4  # LA57
        table = int(re.search(r"CR3=([0-9a-f]+)", said)[1], 16)
        for level in reversed(range(levels)):
            place = self.ram + (table & 0xffffffffff000) + 8 * (address >> 12 + 9 * level & 511)
            table = struct.unpack("<Q", os.pread(self.file, 8, place))[0]
            expect(table & 1, f"{address:#x} is not mapped")
            expect(level == 0 or not table & 0x80, f"{address:#x} is in a large page")
        return place

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
    if not members[0]["name"]:  # mm_struct is a structure without a name, and what follows it
        members = members[0]["members"] + members[1:]
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
        return found[0]


def quad(value):
    return struct.pack("<Q", value)


def unlinked(memory, link):
    """Places that take an entry off its list: its neighbours become each other's."""
    after, before = memory.pointer(link), memory.pointer(link + 8)
    return (before, quad(after)), (after + 8, quad(before))


def task_of(guest, pid):
    processes = json.loads(vmsight("state", guest.pid, "--json"))["processes"]
    return next(int(one["task"], 16) for one in processes if one["pid"] == pid)


def start(guest, command):
    return int(guest.puppet(f"sh {command} >/dev/null 2>&1 & echo $!").split()[-1])


def stays_clean(guest, checker):
    first = checker.clean("at first")
    # Kernels without a part have no check of it; the others must not be skipped unseen.
    expect(not first["skipped"], f"{checker.label}: skipped: {first['skipped']}")
    checker.clean("again")
    guest.puppet(f"sh {TRACE_FUNCTIONS}")
    checker.clean("while functions are traced")
    guest.puppet(f"sh {TRACE_NOTHING}")
    guest.puppet(f"sh {TRACER} && echo 'p:integ vfs_statfs' > kprobe_events && echo 1 > events/kprobes/integ/enable")
    checker.clean("with a kprobe")
    guest.puppet(f"sh {TRACER} && echo 0 > events/kprobes/integ/enable && echo > kprobe_events")
    guest.puppet("sh insmod /modules/nbd.ko || insmod /modules/zram.ko")
    checker.clean("with another module")
    guest.puppet("sh rmmod nbd || rmmod zram")
    checker.clean("without it again")
    guest.puppet("bpf")
    checker.clean("with programs of BPF")


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


def hook_function(guest, memory, checker):
    """A call where the kernel keeps a place for tracers, of a function that is none."""
    function, wrong = symbol(guest, "__x64_sys_acct"), symbol(guest, "ksys_read")
    code = memory.read(function, 4)
    site = function + (4 if code in (b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00") else 0)
    with memory.changed((site, b"\xe8" + struct.pack("<i", wrong - site - 5))):
        checker.finds("ftrace-sites", "site __x64_sys_acct")
    checker.clean("the function is as it was", "--only", "ftrace-sites")


def hook_static_call(guest, memory, checker):
    """The trampoline of a trace point that is off: by kernel-text alone it may be anything."""
    trampoline = symbol(guest, "__SCT__tp_func_module_load")
    jump = b"\xe9" + struct.pack("<i", symbol(guest, "init_task") - trampoline - 5)
    with memory.changed((trampoline, jump)):
        checker.finds("patch-sites", "site __SCT__tp_func_module_load")
        checker.clean("what is patched", "--only", "kernel-text")
    checker.clean("the trampoline is as it was", "--only", "patch-sites")


def change_interrupt(guest, memory, checker):
    gate, elsewhere = symbol(guest, "idt_table") + 16 * 4, symbol(guest, "init_task")  # overflow: not in 64-bit code
    low, high = struct.unpack("<QQ", memory.read(gate, 16))
    low = low & 0x0000ffffffff0000 | elsewhere & 0xffff | (elsewhere >> 16 & 0xffff) << 48
    with memory.changed((gate, struct.pack("<QQ", low, high & ~0xffffffff | elsewhere >> 32))):
        checker.finds("idt", "idt_table[4]")
    checker.clean("the gate is as it was", "--only", "idt")


def change_handlers(guest, memory, checker):
    """Of a probe that nobody comes to, and of the tracer by which the kernel implements it."""
    guest.puppet(f"sh {TRACER} && echo 'p:integ vfs_statfs' > kprobe_events && echo 1 > events/kprobes/integ/enable")
    elsewhere = symbol(guest, "init_task")
    chains = struct.unpack("<64Q", memory.read(symbol(guest, "kprobe_table"), 512))
    probe = next(filter(None, chains)) - offset(guest, "kprobe", "hlist")
    with memory.changed((probe + offset(guest, "kprobe", "pre_handler"), quad(elsewhere))):
        checker.finds("kprobes", f"kprobe {probe:#x} pre_handler")
    tracer = memory.pointer(symbol(guest, "ftrace_ops_list"))
    with memory.changed((tracer + offset(guest, "ftrace_ops", "func"), quad(elsewhere))):
        checker.finds("ftrace-handlers", f"ftrace_ops {tracer:#x}")
    checker.clean("handlers are as they were", "--only", "kprobes,ftrace-handlers")
    guest.puppet(f"sh {TRACER} && echo 0 > events/kprobes/integ/enable && echo > kprobe_events")


def change_module(guest, memory, checker):
    """A module is taken off the list, a byte of its code is another, and a page of its data may be executed."""
    guest.puppet("sh insmod /modules/nbd.ko || insmod /modules/zram.ko")
    checker.clean("with a module", "--only", "module-text")
    first = memory.pointer(symbol(guest, "modules"))  # the one that was loaded last
    module = first - offset(guest, "module", "list")
    name = memory.read(module + offset(guest, "module", "name"), 56).split(b"\0")[0].decode()
    expect(name in ("nbd", "zram"), f"the module is {name}")
    with memory.changed(*unlinked(memory, first)):
        checker.finds("modules", f"module {name}")
    code = symbol(guest, {"nbd": "nbd_ioctl", "zram": "zram_reset_device"}[name]) + 24
    before = memory.read(code, 1)
    with memory.changed((code, bytes([before[0] ^ 0xff]))):
        checker.finds("module-text", f"[{name}]")
    entry = memory.page_table_entry(module)
    value = struct.unpack("<Q", os.pread(memory.file, 8, entry))[0]
    expect(value >> 63, f"a page of data may be executed: {value:#x}")
    try:
        os.pwrite(memory.file, quad(value & ~(1 << 63)), entry)
        checker.finds("executable-pages", f"pages gva:{module & ~0xfff:#x}")
    finally:
        os.pwrite(memory.file, quad(value), entry)
    checker.clean("the module is as it was", "--only", "modules,module-text,executable-pages")
    guest.puppet(f"sh rmmod {name}")
    checker.clean("without the module", "--only", "modules,module-text,executable-pages")


def hook_security(guest, memory, checker):
    """What is asked before the clock is set."""
    if " static_calls_table" in run("sym", guest.pid, "static_calls_table").stdout.decode():
        slot = symbol(guest, "static_calls_table") + offset(guest, "lsm_static_calls_table", "settime")
        entry = memory.pointer(slot + offset(guest, "lsm_static_call", "hl"))
    else:
        entry = memory.pointer(symbol(guest, "security_hook_heads") + offset(guest, "security_hook_heads", "settime"))
        entry -= offset(guest, "security_hook_list", "list")
    with memory.changed((entry + offset(guest, "security_hook_list", "hook"), quad(symbol(guest, "init_task")))):
        checker.finds("lsm-hooks", "hook settime")
    checker.clean("the hook is as it was", "--only", "lsm-hooks")


def change_pointer(guest, memory, checker):
    show = symbol(guest, "tcp4_seq_ops") + offset(guest, "seq_operations", "show")
    with memory.changed((show, quad(symbol(guest, "init_task")))):
        checker.finds("function-pointers", "tcp4_seq_ops.show")
    checker.clean("the table is as it was", "--only", "function-pointers")


def hide_process(guest, memory, checker):
    """Its neighbours in the list of tasks are made each other's; the process runs on."""
    pid = start(guest, "sleep 1000")
    with memory.changed(*unlinked(memory, task_of(guest, pid) + offset(guest, "task_struct", "tasks"))):
        checker.finds("processes", f"process {pid}")
    checker.clean("the process is back", "--only", "processes")
    guest.puppet(f"sh kill {pid}")


def place_of_pid(guest, memory, pid):
    """Where the kernel's table of PIDs has a PID."""
    place = symbol(guest, "init_pid_ns") + offset(guest, "pid_namespace", "idr") + offset(guest, "xarray", "xa_head")
    while (entry := memory.pointer(place)) & 3 == 2:
        node = entry - 2
        shift = memory.read(node + offset(guest, "xa_node", "shift"), 1)[0]
        place = node + offset(guest, "xa_node", "slots") + 8 * (pid >> shift & 63)
    return place


def hide_running(guest, memory, checker):
    """A process that is nowhere but where it must be to run."""
    pid = start(guest, "sh -c 'while :; do :; done'")
    task = task_of(guest, pid)
    with memory.changed(*unlinked(memory, task + offset(guest, "task_struct", "tasks")),
                        *unlinked(memory, task + offset(guest, "task_struct", "sibling")),
                        (place_of_pid(guest, memory, pid), quad(0))):
        sources = set(checker.finds("processes", f"process {pid}")["sources"])
        expect("task_struct_cachep" in sources and sources & {"rq.curr", "rq.cfs_tasks"}, sources)
        expect(not sources & {"init_task.tasks", "init_pid_ns.idr", "task_struct.children"}, sources)
    checker.clean("the process is back", "--only", "processes")
    guest.puppet(f"sh kill -9 {pid}")


def change_credentials(guest, memory, checker):
    """A program of nobody's becomes root between two looks."""
    pid = start(guest, "sleep 1000")
    task = task_of(guest, pid)
    cred = memory.pointer(task + offset(guest, "task_struct", "real_cred"))
    ids = cred + offset(guest, "cred", "uid")  # eight of them, gids too
    permitted = cred + offset(guest, "cred", "cap_permitted")
    with memory.changed((permitted, quad(0)), (ids, struct.pack("<8I", *[1000] * 8))):
        checker.clean("credentials at first", "--only", "credentials", "--for", "2")
        looking = subprocess.Popen([VMSIGHT, "check", str(guest.pid), "--json", "--only", "credentials", "--for", "9"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(4)  # its first look has been
        memory.write(ids, bytes(32))
        findings = json.loads(looking.communicate(timeout=60)[0])["findings"]
        expect([(one["object"], one["sure"]) for one in findings] == [(f"process {pid}", "certain")], findings)
        print(f"{checker.label}: {findings[0]['what']}")
    checker.clean("credentials again", "--only", "credentials", "--for", "2")
    guest.puppet(f"sh kill {pid}")


def run_deleted(guest, memory, checker):
    pid = start(guest, "sh -c 'cp /bin/busybox /tmp/busybox-gone; exec /tmp/busybox-gone sleep 1000'")
    guest.puppet("sh while [ ! -e /tmp/busybox-gone ] || ! pidof busybox-gone; do sleep 0.1; done; rm /tmp/busybox-gone")
    checker.finds("deleted-executables", f"process {pid}", "hint")
    guest.puppet(f"sh kill {pid}")
    expect(not checker.look("--only", "deleted-executables")["findings"], "still a hint")


def open_packet_socket(guest, memory, checker):
    """Others in the guest have such sockets, too."""
    def owners():
        return {one["pid"] for one in checker.look("--only", "packet-sockets")["findings"]}
    guest.puppet("sh ip link set lo up")
    pid = start(guest, "udhcpc -f -i lo -t 1000")
    guest.puppet(f"sh while ! ls -l /proc/{pid}/fd | grep -q socket; do sleep 0.1; done")
    expect(pid in owners(), f"the packet socket of {pid} is not found")
    checker.look("--only", "packet-sockets", "--strict", status=1)
    guest.puppet(f"sh kill {pid}")
    expect(pid not in owners(), "still a hint")


def change_helper(guest, memory, checker):
    with memory.changed((symbol(guest, "modprobe_path"), b"/opt/evil\0")):
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
            for plant in (hook_system_call, change_interrupt, change_code, hook_function, hook_static_call,
                          change_handlers, change_module, hook_security, change_pointer, hide_process, hide_running,
                          change_credentials, change_helper, run_deleted, open_packet_socket):
                plant(guest, memory, checker)
            checker.clean("at the end")
            is_healthy(guest)
        finally:
            memory.close()
    print(f"{kernel}: done")


def survives_reboots(kernel):
    """A baseline holds for each boot of its build, wherever the kernel is moved to."""
    with Guest(kernel=kernel, backend="memfd", cpus=2, name=f"check-{kernel}") as guest, \
            tempfile.TemporaryDirectory() as folder:
        checker = Checker(guest, folder, kernel)
        checker.clean("at first")
        places = {symbol(guest, "_stext")}
        for boot in ("second", "third"):
            guest.reboot()
            places.add(symbol(guest, "_stext"))
            document = checker.clean(f"the {boot} boot")
            expect(not document["skipped"], f"{kernel}: skipped: {document['skipped']}")
        expect(len(places) > 1, f"{kernel}: the kernel is where it was: {places}")
    print(f"{kernel}: nothing is found after reboots")


def checks(*kernels):
    if kernels[0] == "reboot":
        for kernel in kernels[1:]:
            survives_reboots(kernel)
        return
    vmsight("check", "--list")
    for kernel in kernels:
        check(kernel)


if __name__ == "__main__":
    main(checks)
