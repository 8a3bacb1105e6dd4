"""Work for a guest, and how fast it was done. One file a workload.

    guest = Guest(workloads=True, forward=free_port(), ...)
    load = workloads.find("x264"); load.prepare(guest)
    amount = load.calibrate(guest, seconds=5)    # how much work takes about so long, undisturbed
    score = load.run(guest, amount)

A run is a fixed amount of work (web: a fixed schedule of requests), so runs with the same amount
compare. `score["value"]` is the figure, by the host's clock: the guest's stands still in some kinds of
pauses. `Workload.better` says whether more or less of it is good.
"""

import importlib
import socket
import time

from ..errors import LabError

NAMES = ["x264", "web", "memory", "disk", "network", "churn", "jitter"]


class Workload:
    name = ""
    what = ""      # one line
    unit = ""
    better = "less"

    def prepare(self, guest):
        """Once a guest, before the first run."""

    def calibrate(self, guest, seconds):
        raise NotImplementedError

    def run(self, guest, amount):
        """{"value", "host_s", "guest_s" ...}"""
        raise NotImplementedError


class PuppetWork(Workload):
    """Work that the puppet does: `work KIND AMOUNT`. `counted` is the key of what is divided by time."""

    better = "more"
    kind = counted = ""
    scale = 1.0
    first = 1  # an amount to begin with

    def argument(self, _guest):
        return ""

    def calibrate(self, guest, seconds):
        amount = self.first
        while True:
            took = self.run(guest, amount)["host_s"]
            if took > seconds / 4 or amount > 1 << 24:
                return max(1, round(amount * seconds / took))
            amount *= 4

    def run(self, guest, amount):
        start = time.monotonic()
        told = read_pairs(guest.puppet(f"work {self.kind} {amount} {self.argument(guest)}".strip(), timeout=600))
        host = time.monotonic() - start
        return {"value": told[self.counted] * self.scale / host, "host_s": host, "guest_s": told["ns"] / 1e9}


def read_pairs(text):
    """KEY NUMBER lines, as the puppet's work prints them."""
    pairs = (line.split() for line in text.decode().splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2}


MOUNT = """busybox mkdir -p /debian &&
for disk in /sys/block/vd*; do
  case "$(cat $disk/serial)" in workloads|services) busybox mount -o ro /dev/${disk##*/} /debian ;; esac;
done;
for folder in proc dev run tmp; do busybox mount -o bind /$folder /debian/$folder || exit 1; done"""


def mount_debian(guest):
    """/debian in the guest, from the disk of the workloads or of the services; a second time costs nothing."""
    if guest.puppet("sh ls /debian 2>/dev/null || :").strip():
        return
    for module in ("crc32c_generic", "ext4"):
        try:
            guest.puppet(f"module {module}")
        except LabError:
            pass  # built in, or mount will tell
    guest.puppet("sh " + MOUNT.replace("\n", " "))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find(name):
    if name not in NAMES:
        raise ValueError(f"no workload is called {name}; known: {' '.join(NAMES)}")
    return importlib.import_module(f".{name}", __name__).LOAD
