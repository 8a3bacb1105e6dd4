"""What the guest itself sees of pauses: gaps in its clock, found by looking at it without end.

A guest that is halted by ptrace, a signal or a freezer has a clock that runs on: the gap shows. One
that QEMU stops has not.
"""

from . import Workload, read_pairs


class Jitter(Workload):
    name = "jitter"
    what = "largest gap in the guest's clock while it spins"
    unit = "ms"
    better = "less"

    def calibrate(self, guest, seconds):
        return round(seconds * 1000)

    def run(self, guest, amount):
        told = read_pairs(guest.puppet(f"work jitter {amount}", timeout=600))
        return {"value": told["largest_gap_ns"] / 1e6, "guest_s": told["ns"] / 1e9, "gaps": told["gaps"],
                "lost_share": told["lost_ns"] / told["ns"]}


LOAD = Jitter()
