"""Disk throughput: 64 KiB blocks written to a virtio disk and read back, past the guest's page cache."""

from . import PuppetWork


class Disk(PuppetWork):
    name = kind = "disk"
    what = "virtio disk, written and read back in blocks of 64 KiB"
    unit = "MB/s"
    counted, scale = "bytes", 1e-6
    first = 4

    def argument(self, _guest):
        return "scratch"


LOAD = Disk()
