"""A guest: boot it, talk to its puppet, stop it. Every guest has a runtime directory:

    NAME/pid  guest.json  console  stderr  puppet (socket)  lab.qmp  qmp (free for others)
"""

import itertools
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import kernels, machine
from .errors import LabError
from .line import Line, LineTimeout, read_archive
from .losses import boot_again
from .qmp import Qmp

# How long a boot may take, in seconds of QEMU's CPU time: a busy host is no reason to give up. It takes
# about 3 for a kernel that QEMU loads, and about 40 with firmware, boot loader and services.
PANICKED = "the guest's kernel panicked"
SILENT = "the guest's puppet did not come up in time"
BOOT_TIMEOUT = float(os.environ.get("VMSIGHT_LAB_BOOT_TIMEOUT", 60))
DISK_BOOT_TIMEOUT = 4 * BOOT_TIMEOUT
IDLE_FACTOR = 10  # a guest that does nothing gets so many times as much, by the clock


def lost_by_emulator(error):
    """An emulated machine on a busy host can lose a kernel that patches its own code, which it does most at boot."""
    return any(said in str(error) for said in (PANICKED, SILENT))


def run_dir():
    path = Path(os.environ.get("VMSIGHT_LAB_RUN") or f"/tmp/vmsight-lab-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def process_start(pid):
    """Start time of a process, so that a recycled PID is not taken for ours; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Patience:
    """Time that runs out when QEMU has worked, or we have waited, for too long."""

    def __init__(self, pid, seconds):
        self.pid = pid
        self.work_end = cpu_seconds(pid) + seconds
        self.clock_end = time.monotonic() + seconds * IDLE_FACTOR

    def is_over(self):
        return time.monotonic() > self.clock_end or cpu_seconds(self.pid) > self.work_end


class Guest:
    """`with Guest(kernel='6.1-cloud', backend='memfd') as guest: guest.puppet('zombies 3')`

    The options are those of machine.Options. Entering boots, leaving stops.
    """

    def __init__(self, name=None, **options):
        self.options = machine.Options(**options)
        self.name = name  # or one chosen at boot: KERNEL-N
        self.pid = None
        self.process = None

    def __enter__(self):
        return boot_again(self.name or self.options.kernel, self.boot, lost_by_emulator)

    def __exit__(self, failure, *_):
        self.stop(keep=failure is not None)

    @classmethod
    def attach(cls, name):
        """A guest that runs already."""
        try:
            facts = json.loads((run_dir() / name / "guest.json").read_text())
        except (OSError, ValueError) as error:
            raise LabError(f"no guest is called {name}", "vmlab list shows those that run") from error
        guest = cls(name=name, **facts["options"])
        if process_start(facts["pid"]) != facts["start"]:
            raise LabError(f"guest {name} is dead", f"vmlab stop {name} clears what it left")
        guest.pid = facts["pid"]
        return guest

    @property
    def home(self):
        return run_dir() / self.name

    # ---- life ----

    @property
    def boot_timeout(self):
        return DISK_BOOT_TIMEOUT if self.options.installed else BOOT_TIMEOUT

    def boot(self, timeout=None):
        kernel = None if self.options.installed else kernels.fetch(self.options.kernel)
        self.name = claim(self.name, self.options.kernel)
        command, environment = machine.command(self.options, kernel, self.name, self.home)
        machine.write_lab_monitor(self.home)
        (self.home / "command").write_text(shlex.join(command) + "\n")
        with open(self.home / "stderr", "wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                                            env=os.environ | environment, start_new_session=True)
        self.pid = self.process.pid
        facts = {"pid": self.pid, "start": process_start(self.pid), "options": vars(self.options)}
        (self.home / "guest.json").write_text(json.dumps(facts))
        try:
            self._await_puppet(Patience(self.pid, timeout or self.boot_timeout))
            if self.options.installed:  # the puppet is only one of the services that start
                # and udev goes on to load modules, and to try some that the machine has no use for, when all of them have.
                self.puppet("sh systemctl is-system-running --wait; udevadm settle --timeout=300",
                            self.boot_timeout * IDLE_FACTOR)
            if self.options.dimm:
                self.plug_dimm(self.options.dimm)
        except BaseException as error:
            self._kill()
            raise self._failure(error) if isinstance(error, (LabError, OSError)) else error
        return self

    def _await_puppet(self, patience):
        self._await_socket(patience)
        with self._open_line(patience) as line:
            line.send_hello()
            while True:
                try:
                    return line.await_hello(1)
                except LineTimeout:
                    if b"Kernel panic" in self.console():
                        raise LabError(PANICKED) from None
                    if patience.is_over():
                        raise LabError(SILENT) from None

    def _open_line(self, patience):
        while True:
            try:
                return Line(self.home / "puppet", timeout=5)
            except ConnectionRefusedError:  # QEMU has bound the socket, and does not listen yet
                if patience.is_over():
                    raise
                time.sleep(0.01)

    def _await_socket(self, patience):
        """QEMU makes its sockets before it runs; until then it may still refuse its command line."""
        watch = os.pidfd_open(self.pid)
        try:
            while not (self.home / "puppet").exists():
                if select.select([watch], [], [], 0.02)[0]:
                    raise LabError("QEMU ended at once")
                if patience.is_over():
                    raise LabError("QEMU did not open its sockets in time")
        finally:
            os.close(watch)

    def _failure(self, error):
        said = (self.home / "stderr").read_text(errors="replace").strip()
        tail = self.console()[-2000:].decode(errors="replace").strip()
        return LabError(f"boot {self.name}: {error}\n--- QEMU\n{said}\n--- console, at its end\n{tail}",
                        f"run it again: {(self.home / 'command').read_text().strip()}")

    def stop(self, keep=False):
        """Ends the guest; `keep` leaves its directory for a post-mortem."""
        self._kill()
        if not keep:
            shutil.rmtree(self.home, ignore_errors=True)

    def _kill(self):
        if self.pid is None:
            return
        try:
            watch = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(watch, signal.SIGKILL)
            if not select.select([watch], [], [], 20)[0]:
                raise LabError(f"QEMU {self.pid} does not die")
        except ProcessLookupError:
            pass
        finally:
            os.close(watch)
        if self.process:
            self.process.wait()

    # ---- conversation ----

    def console(self):
        try:
            return (self.home / "console").read_bytes()
        except OSError:
            return b""

    def puppet(self, command, timeout=120):
        """The answer's payload, in bytes; LabError if the puppet says so."""
        try:
            with Line(self.home / "puppet", timeout=timeout) as line:
                line.send_hello()
                line.await_hello(timeout)
                return line.command(command, timeout)
        except OSError as error:
            raise LabError(f"talk to guest {self.name}: {error}") from error

    def raw_report(self, timeout=300):
        """{path: bytes} as the guest's /proc said it."""
        return read_archive(self.puppet("report", timeout))

    def report(self, timeout=300):
        """The guest's own view as a state document."""
        from . import truth
        return truth.state(self.raw_report(timeout))

    def reboot(self, timeout=None):
        """A warm reboot: QEMU and its RAM stay."""
        patience = Patience(self.pid, timeout or self.boot_timeout)
        with self.qmp() as qmp:
            self.puppet("reboot")
            qmp.wait_event("RESET", timeout or self.boot_timeout)
        self._await_puppet(patience)

    def crash(self, arguments, timeout=None):
        """Into the crash kernel on the guest's disk (crash_disk.py), whose puppet answers from then on."""
        self.puppet(f"crash-kernel {arguments}")
        patience = Patience(self.pid, timeout or self.boot_timeout)
        self.puppet("crash")
        while True:  # what the kernel that crashed was told last, the other never hears
            try:
                with self._open_line(patience) as line:
                    line.send_hello()
                    return line.await_hello(5)
            except (LineTimeout, ConnectionError):
                if patience.is_over():
                    raise LabError("the crash kernel's puppet did not come up in time") from None

    def qmp(self):
        """The lab's own monitor; the product's is `qmp_path`."""
        return Qmp(self.home / "lab.qmp")

    @property
    def qmp_path(self):
        return self.home / "qmp" if self.options.qmp else None

    def memory_kib(self):
        return int(self.puppet("sh cat /proc/meminfo").split()[1])

    def plug_dimm(self, size, timeout=30):
        """Hot-plugs memory; returns when the guest uses it."""
        added = machine.parse_size(size)
        wanted = self.memory_kib() + added // 1024
        with self.qmp() as qmp:
            qmp.command("object-add", **{"qom-type": "memory-backend-ram", "id": "dimm-ram", "size": added})
            qmp.command("device_add", driver="pc-dimm", id="dimm", memdev="dimm-ram")
        deadline = time.monotonic() + timeout
        while self.memory_kib() < wanted:
            if time.monotonic() > deadline:
                raise LabError(f"the guest does not use its new {size} of memory")
            self.puppet("online")


def names():
    return sorted(path.parent.name for path in run_dir().glob("*/guest.json"))


def claim(name, kernel):
    """Makes a guest's directory, under the name wanted or the first free one; returns the name."""
    if name:
        clear(name)
    for wish in [name] if name else (f"{kernel}-{number}" for number in itertools.count(1)):
        try:
            (run_dir() / wish).mkdir(mode=0o700)
            return wish
        except FileExistsError:
            continue
    raise LabError(f"another lab boots a guest called {name} right now")


def clear(name):
    """Forget a dead guest; a live one is left alone."""
    try:
        Guest.attach(name)
    except LabError:
        shutil.rmtree(run_dir() / name, ignore_errors=True)
        return
    raise LabError(f"a guest called {name} runs already", f"vmlab stop {name}")
