#!/usr/bin/env python3
"""calls.py [kvm] KERNEL... - the shipped rules about vulnerable functions fire on a harmless call of each.

The guest makes the call in a process of its own and says its PID and what became of it; the alarm must be of the rule,
name that PID, and be the only one. What every program does meanwhile (files, pipes, programs) raises none. Three states
that a kernel which is mended does not come to are written into the guest's memory between two halves of a call: with
Dirty Pipe a file that may only be read is then really changed. With `kvm` the guests run by real KVM on the lab's nested
host, and are probed by engine kvm.
"""
import json
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from check import Memory, offset, quad, symbol, task_of
from harness import VMSIGHT, Guest, expect, main_nested, vmsight
from probe_kvm import outer_run
from watch import Watch, settles, shell

RULES = Path(__file__).parents[2] / "rules/emergency.yaml"
# The rule of keyrings asks for 1,000 calls, the test makes 20. A page of a file that others may add to is not seen on a
# kernel that is mended; that the page is a file's is.
OWN_RULES = """
- rule: keyring reference leak (CVE-2016-0728)
  condition: count(tgid, 1h) > 19
  override: {condition: replace}
- rule: file page in a pipe
  desc: half of Dirty Pipe
  probe: [kprobe:pipe_write, kprobe:anon_pipe_write]
  fields:
    pipe: (struct pipe_inode_info *)iocb->ki_filp->private_data
    last: (pipe->head - 1) & (pipe->ring_size - 1)
    of_file: pipe->bufs[last].ops == &page_cache_pipe_buf_ops
    flags: pipe->bufs[last].flags
  condition: of_file == 1 and flags == 0
  output: "pid=%tgid"
  priority: notice
"""
# call: (rule, kernels that do not have it)
CALLS = {
    "vmsplice": ("vmsplice (CVE-2008-0600)", ()),
    "keyring": ("keyring reference leak (CVE-2016-0728)", ()),
    "packet-ring": ("packet ring with a large private area (CVE-2017-7308)", ()),
    "compat-tables": ("compat netfilter rules in a container (CVE-2021-22555)", ("6.12", "7.2")),
    "long-line": ("long line of a seq_file (CVE-2021-33909)", ()),
    "execve": ("program without arguments (CVE-2021-4034)", ()),
    "mount-options": ("mount option that overflows (CVE-2022-0185)", ("7.2",)),
    "release-agent": ("release agent without rights (CVE-2022-0492)", ()),
    "splice": ("file page in a pipe", ()),
    "register": ("nftables register out of bounds (CVE-2022-1015)", ("5.10-cloud",)),
    "route-filter": ("cls_route handle 0 (CVE-2022-2588)", ()),
    "verdict": ("nftables verdict that is forged (CVE-2024-1086)", ()),
    "urgent": ("out-of-band data between local programs (CVE-2025-38236)", ("5.10-cloud",)),
    "algorithm": ("Copy Fail (CVE-2026-31431)", ()),
}
MODULES = ("crc32c_generic", "nf_tables", "ip_tables", "sch_prio", "cls_route")  # algif_aead comes with its call


def make(guest, name):
    """The PID that the guest says it was."""
    said = guest.puppet(f"call {name}", timeout=60).decode().strip()
    return int(said.split()[0].removeprefix("pid=")), said


def tells(watch, name, make_it):
    """Makes the call, and gives back what the alarms since then are; there must be one. `make_it` says the PID, and what became of it."""
    watch.read()
    before, begun = len(watch.alarms), time.monotonic()
    pid, said = make_it()
    settles(lambda: watch.read() or len(watch.alarms) > before, f"call {name} ({said}) raises no alarm", watch, 60)
    time.sleep(0.5)
    watch.read()
    new = watch.alarms[before:]
    print(f"{name}: {said}; {new[0]['output']}; {time.monotonic() - begun:.1f} s")
    expect(all(alarm["output_fields"]["tgid"] == pid for alarm in new), (name, said, new))
    return [alarm["rule"] for alarm in new]


def fires(guest, watch, name, rule):
    told = tells(watch, name, lambda: make(guest, name))
    expect(told == [rule], (name, told))


# What is written in the guest where a kernel that is not mended would be by itself: (address, bytes).

def mergeable_page(guest, memory, file, _):
    """The flag that a page of a file in a pipe must not have."""
    pipe = memory.pointer(file + offset(guest, "file", "private_data"))
    ring = memory.pointer(pipe + offset(guest, "pipe_inode_info", "bufs"))
    return ring + offset(guest, "pipe_buffer", "flags"), struct.pack("<I", 0x10)  # PIPE_BUF_FLAG_CAN_MERGE


def gigabyte_buffer(guest, memory, file, _):
    lines = memory.pointer(file + offset(guest, "file", "private_data"))
    return lines + offset(guest, "seq_file", "size"), quad(1 << 30)


def upper_protocol(guest, memory, file, zeros):
    """One that has no way to be cloned: all its functions are null."""
    sock = memory.pointer(memory.pointer(file + offset(guest, "file", "private_data")) + offset(guest, "socket", "sk"))
    return sock + offset(guest, "inet_connection_sock", "icsk_ulp_ops"), quad(zeros)


# call: (rules that tell of it, what is written, what becomes of the call)
PREPARED = {
    "dirty-pipe": (["Dirty Pipe (CVE-2022-0847)"], mergeable_page, "0"),
    # The smaller of two sizes is reached as well.
    "gigabyte-line": (["long line of a seq_file (CVE-2021-33909)", "seq_file of a gigabyte (CVE-2021-33909)"], gigabyte_buffer, "0"),
    "tls-listen": (["TLS socket that listens (CVE-2023-0461)"], upper_protocol, "EINVAL"),
}


def comes(guest, name, kind):
    """(descriptor, error) that the prepared call tells when it has come so far."""
    path = f"/tmp/{name}.{kind}"
    return shell(guest, f"while ! test -e {path}; do sleep 0.1; done; cat {path}").split()


def make_prepared(guest, memory, zeros, name):
    """The PID, and what became of the call."""
    _, state_of, result = PREPARED[name]
    pid = int(guest.puppet(f"prepare {name}").decode().strip().removeprefix("pid="))
    descriptor, error = comes(guest, name, "ready")
    expect(error == "0", f"{name}: not prepared: {error}")
    table = memory.pointer(memory.pointer(task_of(guest, pid) + offset(guest, "task_struct", "files"))
                           + offset(guest, "files_struct", "fdt"))
    file = memory.pointer(memory.pointer(table + offset(guest, "fdtable", "fd")) + 8 * int(descriptor))
    with memory.changed(state_of(guest, memory, file, zeros)):
        shell(guest, f"touch /tmp/{name}.go")
        _, error = comes(guest, name, "done")
    expect(error == result, f"{name}: {error}, expected {result}")
    return pid, f"pid={pid} result={error}"


def goes_all_the_way(guest, watch, memory, zeros, name):
    told = tells(watch, name, lambda: make_prepared(guest, memory, zeros, name))
    expect(sorted(told) == PREPARED[name][0], (name, told))


def ordinary(guest, watch):
    shell(guest, "for i in 1 2 3 4 5; do ls -l /bin | grep busybox | cat > /tmp/list; done; cat /proc/self/mountinfo /proc/net/unix")
    time.sleep(1)
    watch.read()
    expect(not watch.alarms, watch.alarms)


def wait_for_module(guest, watch):
    """A rule whose module is loaded later."""
    expect("site 'kprobe:aead_bind'" in watch.said(), watch.said())
    guest.puppet("module algif_aead")

    def is_armed():
        status = json.loads(vmsight("watch", "--status", guest.pid, "--json"))
        return "aead_bind" in json.dumps(status)
    settles(is_armed, "aead_bind is not armed after its module was loaded", watch, 60)


def called(kernel, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as own, \
            Guest(kernel=kernel, backend="memfd", cpus=2, **options) as guest:
        own.write(RULES.read_text() + OWN_RULES)
        own.flush()
        for module in MODULES:
            try:
                guest.puppet(f"module {module}")
            except Exception as error:  # noqa: BLE001  not every kernel has each as a module
                print(f"module {module}: {error}")
        memory = Memory(guest)
        zeros = symbol(guest, "empty_zero_page")
        watch = Watch(guest, own.name)
        watch.started(120)
        if "accel" in options:
            status = json.loads(vmsight("watch", "--status", guest.pid, "--json"))
            expect(all(vm["engine"] == "kvm" for one in status["watches"] for vm in one["vms"]), status)
        ordinary(guest, watch)
        wait_for_module(guest, watch)
        for name, (rule, absent) in CALLS.items():
            if guest.options.kernel not in absent:
                fires(guest, watch, name, rule)
        shell(guest, "echo innocent > /tmp/read-only; chmod 444 /tmp/read-only")
        for name in PREPARED:
            goes_all_the_way(guest, watch, memory, zeros, name)
        changed = shell(guest, "cat /tmp/read-only").strip()
        expect(changed == "iEVILent", f"Dirty Pipe was not done: {changed}")
        watch.end()
        guest.report()  # it lives


def fields_of_trace():
    """--field of trace: of one file only, by the inode number that the guest itself tells."""
    with Guest(kernel="6.1", backend="memfd", cpus=2) as guest:
        inode = shell(guest, "echo x > /tmp/target; ls -i /tmp/target").split()[0]
        tracing = subprocess.Popen(
            [VMSIGHT, "trace", str(guest.pid), "kprobe:vfs_write", "--field", "inode=file->f_inode->i_ino", "--field",
             "odd=count * 2 + 1", "--field", "uid=current->cred->uid.val", "--field", "who=current->comm",
             "--filter", f"inode == {inode} && uid == 0", "-n", "1"], stdout=subprocess.PIPE)
        time.sleep(4)
        shell(guest, "echo hello > /tmp/target")
        line = tracing.communicate(timeout=30)[0].decode()
        for part in (f"inode={inode}", "odd=13", "uid=0", 'who="sh"'):
            expect(part in line, (part, line))


def test(first, *kernels):
    if first == "kvm":
        outer_run(Path(__file__), "kvm", *kernels)
        return
    fields_of_trace()
    for kernel in (first, *kernels):
        called(kernel)


def inner(_, *kernels):
    for kernel in kernels:
        called(kernel, accel="kvm", name=f"calls-{kernel}")


if __name__ == "__main__":
    main_nested(test, inner)
