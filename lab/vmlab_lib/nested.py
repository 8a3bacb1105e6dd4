"""A host with real, stock KVM, on a machine without virtualisation hardware.

QEMU emulates an AMD CPU with SVM and nested paging (`-accel tcg -cpu max,+svm`); in it a stock
Debian kernel loads its own kvm-amd. The host's userland is this machine's root file system,
mounted read-only over 9p, with a RAM overlay on top: what is installed here can be run there, and
nothing that runs there can change anything here.

    vmlab host -- COMMAND      runs it there as root, in this directory; its output and exit status

A guest started there by `vmlab boot` uses KVM by itself. Everything is 20 to 50 times slower than
on metal: right for behaviour, useless for absolute times.

    vmlab host --counted -- COMMAND    the same with a clock that counts instructions, the guest's included

Then one instruction takes one nanosecond by the host's clocks, whatever this machine is doing: times there
are counts of instructions. The emulator executes one at a time, so all is a few times slower once more.
"""

import os
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from . import initramfs, kernels, qemus
from .apt import cache_dir
from .errors import LabError
from .losses import boot_again

KERNEL = "6.12"
QEMU = "10.0"
COUNTED_QEMU = "11.1"  # when its clock counts, a guest may stand still for ever: with 10.0 in most runs, here in some
BOOT_TIMEOUT = 900  # of guests there: all but the clock is slow
MODULES = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "kvm_amd", "virtio_console", "tun"]

# The status goes over its own virtio port: output on the console may hold anything.
INIT = """#!/bin/busybox sh
bb=/bin/busybox
export PATH=/bin
$bb mount -t proc proc /proc; $bb mount -t sysfs sysfs /sys; $bb mount -t devtmpfs devtmpfs /dev
while read module; do $bb insmod /modules/$module.ko; done < /modules/boot
$bb mount -t tmpfs -o size=80% tmpfs /upper; $bb mkdir -p /upper/up /upper/work /lower /root
$bb mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose machine /lower || $bb poweroff -f
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/up,workdir=/upper/work overlay /root || $bb poweroff -f
for kind in proc sysfs devtmpfs; do
  case $kind in proc) at=proc;; sysfs) at=sys;; *) at=dev;; esac
  $bb mount -t $kind $kind /root/$at
done
$bb mount -t tmpfs tmpfs /root/run
$bb mkdir -p /root/dev/shm /root/dev/pts
$bb mount -t tmpfs tmpfs /root/dev/shm; $bb mount -t devpts devpts /root/dev/pts
$bb mount -t debugfs debugfs /root/sys/kernel/debug; $bb mount -t tracefs tracefs /root/sys/kernel/tracing
$bb mount -t bpf bpf /root/sys/fs/bpf; $bb mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$bb ip link set lo up
$bb hostname nested-host
port() { for p in /sys/class/virtio-ports/*; do [ "$($bb cat $p/name)" = $1 ] && echo /dev/${p##*/}; done; }
out=$(port output); status=$(port status)
$bb cp /command /root/run/.command
echo up > $status
$bb chroot /root /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
  HOME=/root TERM=dumb /bin/bash /run/.command > $out 2>&1 < /dev/null
echo "status $?" > $status
$bb sleep 0.2
$bb poweroff -f
"""


def host_initramfs(kernel, command):
    cpio = initramfs.Cpio()
    for folder in ("bin", "dev", "lower", "modules", "proc", "root", "sys", "upper"):
        cpio.directory(folder)
    cpio.file("init", INIT.encode(), executable=True)
    cpio.file("bin/busybox", initramfs.busybox().read_bytes(), executable=True)
    cpio.file("command", command.encode())
    tree = initramfs.ModuleTree(kernel.modules)
    order = list(dict.fromkeys(module for name in MODULES for module in tree.load_order(name)))
    for module in order:
        cpio.file(f"modules/{module}.ko", tree.content(module))
    cpio.file("modules/boot", "".join(f"{module}\n" for module in order).encode())
    return cpio


# Where all there waits, its clock jumps to what comes next.
COUNTED = ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
FREE = ["-accel", "tcg,thread=multi"]


def command_line(home, kernel, mem, cpus, counted=False):
    program, environment = qemus.find(COUNTED_QEMU if counted else QEMU)
    ports = [word for name in ("output", "status") for word in (
        "-chardev", f"file,id={name},path={home / name}", "-device", f"virtserialport,chardev={name},name={name}")]
    return [*program, "-name", "vmlab-nested-host", "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-machine", "q35", *(COUNTED if counted else FREE), "-cpu", "max,+svm",
            "-smp", str(cpus), "-m", mem, "-kernel", str(kernel.image), "-initrd", str(home / "initrd"),
            "-append", "console=ttyS0 quiet panic=-1 no_timer_check", "-serial", f"file:{home / 'console'}",
            "-fsdev", "local,id=machine,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=machine,mount_tag=machine",
            "-device", "virtio-serial-pci", *ports], environment


def run(command, **options):
    """(exit status, output) of a shell command on the nested host; `echo` gets output as it comes.

    `counted`: its clocks count instructions, one a nanosecond; use one CPU, or the others' work counts too.
    A host that is lost while it boots is booted again; once the command has begun, its end is the command's."""
    return boot_again("the nested host", lambda: run_once(command, **options), lambda error: isinstance(error, LostAtBoot))


def run_once(command, mem="3G", cpus=2, timeout=900, kernel=KERNEL, echo=None, counted=False):
    found = kernels.fetch(kernel)
    with tempfile.TemporaryDirectory(prefix="vmlab-host-") as folder:
        home = Path(folder)
        lines = ["export VMSIGHT_LAB_RUN=/run/vmsight-lab", f"export VMSIGHT_LAB_CACHE={shlex.quote(str(cache_dir()))}",
                 f"export VMSIGHT_LAB_BOOT_TIMEOUT={BOOT_TIMEOUT}", f"cd {shlex.quote(os.getcwd())}", command]
        host_initramfs(found, "\n".join(lines) + "\n").write(home / "initrd")
        line, environment = command_line(home, found, mem, cpus, counted)
        with open(home / "stderr", "wb") as errors:
            qemu = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                    env=os.environ | environment)
        try:
            follow(qemu, home / "output", time.monotonic() + timeout, echo)
        finally:
            qemu.kill()
            qemu.wait()
        return verdict(home)


def follow(qemu, output, deadline, echo):
    """Waits for the end, showing what comes meanwhile."""
    shown = 0
    while True:
        ended = qemu.poll() is not None
        if echo and output.exists():
            data = output.read_bytes()[shown:]
            shown += len(data)
            echo(data)
        if ended:
            return
        if time.monotonic() > deadline:
            raise LabError("the command on the nested host did not end in time")
        try:
            qemu.wait(0.2)
        except subprocess.TimeoutExpired:
            pass


class LostAtBoot(LabError):
    """The emulator lost the host before the command began."""


def verdict(home):
    output = content(home / "output")
    words = content(home / "status").decode().split()
    if len(words) == 3:
        return int(words[2]), output
    said = (f"the nested host died {'while the command ran' if words else 'while it booted'}\n--- QEMU\n"
            f"{content(home / 'stderr').decode(errors='replace')}\n--- console\n"
            f"{last_words(content(home / 'console').decode(errors='replace'))}")
    if not words:
        raise LostAtBoot(said)
    raise LabError(f"{said}\n--- the command's output\n{output[-2000:].decode(errors='replace')}")


def content(path):
    return path.read_bytes() if path.exists() else b""


def last_words(console, most=8000):
    """From the first thing that a kernel in trouble says, or the end."""
    trouble = re.search(r"^.*(BUG:|Oops|general protection|invalid opcode|kernel BUG|Kernel panic|stack segment)", console, re.M)
    return console[trouble.start():][:most] if trouble else console[-1500:]
