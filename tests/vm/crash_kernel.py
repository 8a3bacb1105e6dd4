#!/usr/bin/env python3
"""crash_kernel.py KERNEL... - a guest whose kernel crashed runs its crash kernel (kdump) on one of two vCPUs.

Both kernels are in memory, and vCPUs map both: one vCPU stands where the first kernel stopped it. The one that
runs is chosen, live and in images of every kind; an index of --kernel means the same kernel everywhere. An ELF
core that was cut short is read as far as it goes.
"""
import json
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from harness import Guest, expect, main, run, state, vmsight
from vmlab_lib import crash_disk

ARGUMENTS = "console=ttyS0 quiet panic=0 no_timer_check nr_cpus=1 reset_devices"


def candidates(target):
    """[(place, whether it runs, its init_task)] by index."""
    listed = json.loads(vmsight("info", target, "--json"))["kernel"]["candidates"]
    expect([one["index"] for one in listed] == list(range(len(listed))), f"indices: {listed}")
    return [(one["rodata"], one["live"], vmsight("sym", target, "init_task", "--kernel", one["index"]).split()[0])
            for one in listed]


def names(document):
    return sorted((process["pid"], process["comm"]) for process in document["processes"]
                  if not process["comm"].startswith("kworker"))


def images(guest, folder):
    """{what: path}"""
    paths = {what: f"{folder}/{what.replace(' ', '-')}" for what in
             ("core", "core without registers", "core by QEMU", "raw image")}
    vmsight("snapshot", guest.pid, paths["core"], "--consistent")
    with socket.socket(socket.AF_UNIX) as holder:  # a monitor that somebody holds tells us no registers
        holder.connect(str(guest.qmp_path))
        holder.recv(4096)
        vmsight("snapshot", guest.pid, paths["core without registers"], "--consistent")
    vmsight("snapshot", guest.pid, paths["raw image"], "--format", "raw", "--consistent")
    with guest.qmp() as monitor:
        monitor.command("dump-guest-memory", paging=False, protocol="file:" + paths["core by QEMU"])
    return paths


def check_images(guest, folder, live, known):
    for what, path in images(guest, folder).items():
        expect(candidates(path) == known, f"{what}: {candidates(path)}, and live {known}")
        document = json.loads(vmsight("state", path, "--json"))
        expect(document["os"]["cmdline"] == live["os"]["cmdline"], f"{what}: {document['os']['cmdline']}")
        expect(names(document) == names(live), f"{what}: {names(document)}, and live {names(live)}")
        expect(not document["problems"], f"{what}: {document['problems'][:3]}")


def check_cut(core, end_of_kernel):
    """Cut behind all that the running kernel has, nothing of it is missing; elsewhere, what is missing is said."""
    whole = json.loads(vmsight("state", core, "--json"))
    cut = core + ".cut"
    shutil.copyfile(core, cut)
    os.truncate(cut, end_of_kernel + (1 << 20))
    done = run("state", cut, "--json")
    expect(done.returncode == 0 and b"ends too early" in done.stderr, f"cut: {done.returncode}, {done.stderr}")
    document = json.loads(done.stdout)
    expect(names(document) == names(whole), "processes are missing in the core that was cut")
    expect([one["where"] for one in document["problems"]] == ["image"], f"problems: {document['problems'][:3]}")
    for tenth in range(9, 0, -1):
        size = os.path.getsize(core) * tenth // 10
        if size >= os.path.getsize(cut):
            continue
        os.truncate(cut, size)
        done = run("ps", cut)
        said = done.stderr.decode()
        expect(done.returncode in (0, 1, 3) and "ends too early" in said, f"cut to {tenth}/10: {done.returncode} {said}")


def check(kernel, folder):
    disk = crash_disk.write(Path(folder) / "disk", kernel)
    with Guest(kernel=kernel, backend="memfd", cpus=2, mem="640M", disk=str(disk), append="crashkernel=256M",
               name=f"crash-kernel-{kernel}") as guest:
        reserved = re.search(r"([0-9a-f]+) : Crash kernel", guest.puppet("sh cat /proc/iomem").decode())
        expect(reserved, "the guest has reserved no memory for a crash kernel")
        guest.crash(ARGUMENTS)
        live = state(guest)
        said = guest.puppet("sh cat /proc/cmdline").decode().strip()
        expect("elfcorehdr=" in said and live["os"]["cmdline"] == said, f"cmdline {live['os']['cmdline']}, not {said}")
        known = candidates(guest.pid)
        expect([runs for _, runs, _ in known].count(True) == 1 and len(known) == 2, f"candidates: {known}")
        check_images(guest, folder, live, known)
        check_cut(f"{folder}/core", int(reserved[1], 16))
    print(f"{kernel}: {known}")


def crash_kernel(*kernels):
    for kernel in kernels:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            check(kernel, folder)


if __name__ == "__main__":
    main(crash_kernel)
