"""Memory bandwidth: the triad of STREAM, on integers, over 24 MiB."""

from . import PuppetWork


class Memory(PuppetWork):
    name = kind = "memory"
    what = "memory bandwidth, a[i] = b[i] + 3 c[i]"
    unit = "MB/s"
    counted, scale = "bytes", 1e-6


LOAD = Memory()
