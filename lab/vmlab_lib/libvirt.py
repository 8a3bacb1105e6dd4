"""A guest under libvirt, as its users have it: a transient domain of qemu:///system, emulated.

libvirt runs QEMU as a user of its own, holds its monitor, and names its process after the domain.
Where no service manager runs them, libvirtd and virtlogd are started here; they end by themselves
when nobody has needed them for two minutes. Needs root, libvirt-daemon-system and libvirt-clients.
"""

import shutil
import socket
import subprocess
import time
from pathlib import Path
from xml.sax.saxutils import escape

from . import initramfs, kernels, machine
from .errors import LabError
from .guest import Guest, Patience

URI = "qemu:///system"
# Inside what libvirt's packages make for images: its QEMU user may get there.
HOME = Path("/var/lib/libvirt/images/vmsight-lab")
DAEMONS = {"virtlogd": "/run/libvirt/virtlogd-sock", "libvirtd": "/run/libvirt/libvirt-sock"}
QEMU_USER = "libvirt-qemu"

DOMAIN = """<domain type='{accelerator}'>
  <name>{name}</name>
  <memory unit='MiB'>{mebibytes}</memory>
  <vcpu>{cpus}</vcpu>
  {backing}
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{home}/kernel</kernel>
    <initrd>{home}/initrd</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <serial type='file'><source path='{home}/console'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{home}/puppet'/>
      <target type='virtio' name='vmsight.puppet'/>
    </channel>
  </devices>
</domain>
"""
BACKINGS = {"anon": "", "memfd": "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
            "file": "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"}


class LibvirtGuest(Guest):
    """`with LibvirtGuest(name='web', kernel='6.1-cloud', backend='memfd') as guest:`

    Takes the options kernel, machine, mem, backend, cpus and append; has the conversation of a Guest,
    but no monitor: that is libvirt's.
    """

    @property
    def home(self):
        return HOME / self.name

    @property
    def qmp_path(self):
        return None

    def qmp(self):
        raise LabError("the monitor of a libvirt guest is libvirt's", f"virsh -c {URI} qemu-monitor-command")

    def boot(self, timeout=None):
        start_daemons()
        self.name = self.name or f"vmlab-{self.options.kernel}"
        forget(self.name)
        self._fill_home(kernels.fetch(self.options.kernel))
        try:
            virsh("create", self.home / "domain.xml")
            self.pid = int(Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())
            self._await_puppet(Patience(self.pid, timeout or self.boot_timeout))
        except (LabError, OSError) as error:
            forget(self.name, keep=True)
            raise LabError(f"boot libvirt guest {self.name}: {error}\n--- console, at its end\n"
                           f"{self.console()[-2000:].decode(errors='replace')}",
                           f"see /var/log/libvirt/qemu/{self.name}.log") from error
        return self

    def _fill_home(self, kernel):
        self.home.mkdir(parents=True)
        shutil.copyfile(kernel.image, self.home / "kernel")
        shutil.copyfile(initramfs.build(kernel), self.home / "initrd")
        (self.home / "domain.xml").write_text(domain_xml(self.options, self.name, self.home))
        shutil.chown(self.home, QEMU_USER)

    def stop(self, keep=False):
        forget(self.name, keep)


def domain_xml(options, name, home):
    if options.backend not in BACKINGS:
        raise LabError(f"no libvirt guest has the backend {options.backend}", "known: " + " ".join(BACKINGS))
    accelerator = {"tcg": "qemu", "kvm": "kvm"}[machine.accelerator(options.accel)]
    return DOMAIN.format(accelerator=accelerator, name=escape(name), home=escape(str(home)), cpus=options.cpus,
                         mebibytes=machine.parse_size(options.mem) >> 20, backing=BACKINGS[options.backend],
                         machine=escape(options.machine), cmdline=escape(machine.kernel_arguments(options)))


def virsh(*arguments):
    done = subprocess.run(["virsh", "-q", "-c", URI, *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise LabError(f"virsh {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def forget(name, keep=False):
    """Ends the domain, if there is one, and removes its files."""
    try:
        virsh("destroy", name)
    except LabError:
        pass  # there was none
    if not keep:
        shutil.rmtree(HOME / name, ignore_errors=True)


def listens(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def start_daemons(timeout=30):
    """libvirt's daemons, unless they run or whoever connects starts them."""
    for daemon, path in DAEMONS.items():
        if listens(path):
            continue
        program = shutil.which(daemon, path="/usr/sbin:/usr/bin")
        if not program:
            raise LabError(f"{daemon} is not installed", "apt-get install libvirt-daemon-system libvirt-clients")
        subprocess.run([program, "--daemon", "--timeout", "120"], stdin=subprocess.DEVNULL, check=True)
        deadline = time.monotonic() + timeout
        while not listens(path):
            if time.monotonic() > deadline:
                raise LabError(f"{daemon} does not open {path}")
            time.sleep(0.05)
