"""From a user's wishes to QEMU's command line."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from . import agents, disk, initramfs, qemus, service_disk, workload_disk
from .errors import LabError

BACKENDS = ["anon", "memfd", "file", "numa"]
DISK = "disk"
MACHINES = ["pc", "q35", "microvm"]
SCRATCH_SIZE = 64 << 20


@dataclass
class Options:
    kernel: str = "6.1-cloud"  # or "disk": the Debian installed on a disk (disk.py)
    firmware: str = "seabios"  # what boots a disk: seabios or ovmf
    machine: str = "pc"        # pc, q35, microvm, or any -machine value
    mem: str = None            # default: 512M, and 1G for a disk
    backend: str = "anon"
    dimm: str = None          # size of a DIMM plugged in after boot
    cpus: int = 1
    cpu: str = None           # -cpu, if not the default
    la57: bool = None         # five-level paging, where the kernel knows it
    pti: bool = False
    append: str = ""
    qmp: bool = True          # a monitor socket for the product
    qemu: str = None          # path or version (7.2, 10.0, 11.1); default: the machine's
    accel: str = "auto"
    net: bool = False
    disk: str = None          # path of a raw image
    agent: bool = False       # vmsight's agent and qemu-guest-agent in the guest, with their ports
    tools: bool = False       # Debian's ip, ss, ps, lsof and more (tools.py), and the scenes that need them
    workloads: bool = False   # Debian's x264 and nginx, an empty disk, a network: see workloads/
    services: bool = False    # Debian's nginx, redis, cron and PostgreSQL, and a network: see services.py
    forward: int = 0          # a port of the host's loopback that leads to the guest's port 80
    qemu_args: tuple = ()

    def __post_init__(self):
        self.mem = self.mem or ("1G" if self.installed else "512M")
        if self.installed and self.machine.startswith("microvm"):
            raise LabError("microvm has no firmware that boots a disk", "take --machine pc or q35")
        if self.installed and self.agent:
            raise LabError("the Debian on the disk holds no agents", "take a kernel, as 6.1-cloud")
        self.net = self.net or self.workloads or self.services or bool(self.forward)

    @property
    def installed(self):
        """Does the guest boot from a disk, rather than the kernel being handed over by QEMU?"""
        return self.kernel == DISK


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMG]?)i?B?", text, re.I)
    if not match:
        raise LabError(f"{text} is no size", "write it as 512M or 4G")
    return int(match[1]) << {"": 20, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def accelerator(wish):
    if wish != "auto":
        return wish
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        virtual = re.search(r"^flags\s*:.*\b(vmx|svm)\b", info.read(), re.M)
    return "kvm" if virtual and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def cpu_model(options, accel):
    if options.cpu:
        return options.cpu
    la57 = {None: "", True: ",la57=on", False: ",la57=off"}[options.la57]
    return ("host" if accel == "kvm" else "max") + la57


def memory(options, home):
    """(-machine suffix, arguments): the guest's RAM by the chosen backend."""
    size = parse_size(options.mem)
    slots = ",slots=4,maxmem=64G" if options.dimm else ""
    arguments = ["-m", f"{size >> 20}M{slots}"]
    if options.backend == "anon":
        return "", arguments
    if options.backend == "memfd":
        backend = f"memory-backend-memfd,id=ram,size={size},share=on"
        return ",memory-backend=ram", arguments + ["-object", backend]
    if options.backend == "file":
        backend = f"memory-backend-file,id=ram,size={size},share=on,mem-path={home / 'ram'}"
        return ",memory-backend=ram", arguments + ["-object", backend]
    if options.backend == "numa":
        for node, kind in enumerate(("ram", "memfd")):
            arguments += ["-object", f"memory-backend-{kind},id=ram{node},size={size // 2}",
                          "-numa", f"node,nodeid={node},memdev=ram{node}"]
        return "", arguments
    raise LabError(f"no backend is called {options.backend}", "known: " + " ".join(BACKENDS))


def devices(options, home):
    """Every device in the spelling of its bus: microvm has no PCI."""
    bus = "device" if options.machine.startswith("microvm") else "pci"
    arguments = ["-device", f"virtio-serial-{bus}", "-chardev", f"socket,id=puppet,path={home}/puppet,server=on,wait=off",
                 "-device", "virtserialport,chardev=puppet,name=vmsight.puppet"]
    if options.agent:
        arguments += agents.devices(home)
    if options.net:
        forward = f",hostfwd=tcp:127.0.0.1:{options.forward}-:80" if options.forward else ""
        arguments += ["-netdev", f"user,id=net{forward}", "-device", f"virtio-net-{bus},netdev=net,mac=52:54:00:12:34:56"]
    if options.disk:
        arguments += ["-drive", f"if=none,id=disk,format=raw,file={options.disk}",
                      "-device", f"virtio-blk-{bus},drive=disk"]
    if options.workloads:
        scratch = home / "scratch"
        with open(scratch, "wb") as out:
            out.truncate(SCRATCH_SIZE)
        arguments += named_disk(bus, "workloads", workload_disk.image(), ",readonly=on")
        arguments += named_disk(bus, "scratch", scratch)
    if options.services:
        arguments += named_disk(bus, "services", service_disk.image(), ",readonly=on")
    return arguments


def named_disk(bus, name, path, how=""):
    """The guest tells them apart by their serial numbers."""
    return ["-drive", f"if=none,id={name},format=raw{how},file={path}",
            "-device", f"virtio-blk-{bus},drive={name},serial={name}"]


LAB_MONITOR = """[chardev "lab"]
  backend = "socket"
  path = "{path}"
  server = "on"
  wait = "off"
[mon "lab"]
  mode = "control"
  chardev = "lab"
"""


def write_lab_monitor(home):
    (home / "monitor.cfg").write_text(LAB_MONITOR.format(path=home / "lab.qmp"))


def monitors(options, home):
    """The lab's own monitor stands in a configuration file: nobody finds it on the command line."""
    product = ["-qmp", f"unix:{home / 'qmp'},server=on,wait=off"] if options.qmp else []
    return ["-readconfig", str(home / "monitor.cfg"), *product]


def tsc_khz():
    """The host's, which is what an emulated CPU counts in; None if the host does not tell."""
    found = re.search(r"^cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
    return int(float(found[1]) * 1000) if found else None


def kernel_arguments(options):
    # no_timer_check: on a busy host an emulated timer may seem dead to the check.
    words = ["console=ttyS0", "quiet", "panic=0", "no_timer_check", options.append]
    if options.pti:
        words.append("pti=on")
    if options.machine.startswith("microvm") and (khz := tsc_khz()):
        # It has neither HPET nor PM timer, and against an emulated PIT calibration often fails.
        words.append(f"tsc_early_khz={khz}")
    return " ".join(word for word in words if word)


def boot_source(options, kernel, home):
    if options.installed:
        return disk.drive(options.firmware, home)
    return ["-kernel", str(kernel.image), "-initrd", str(initramfs.build(kernel, options.agent, options.tools)),
            "-append", kernel_arguments(options)]


def command(options, kernel, name, home):
    """(command line, environment) of QEMU for this guest; a disk has its own kernel: None."""
    accel = accelerator(options.accel)
    program, environment = qemus.find(options.qemu)
    backend, memory_arguments = memory(options, home)
    line = [*program, "-name", name, "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", options.machine + backend, "-accel", accel, "-cpu", cpu_model(options, accel),
            "-smp", str(options.cpus), *memory_arguments, *boot_source(options, kernel, home),
            "-serial", f"file:{home / 'console'}",
            *devices(options, home), *monitors(options, home), *options.qemu_args]
    return line, environment
