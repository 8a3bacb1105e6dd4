"""Debian's x264 encodes a clip: a program that only computes."""

import time

from . import Workload, mount_debian

CLIP_FRAMES = 100
COMMAND = "busybox chroot /debian /usr/bin/x264 --quiet --no-progress --threads 1 --preset {preset} --frames {frames} -o /dev/null /tmp/clip.y4m 2>&1"


class X264(Workload):
    name = "x264"
    what = "seconds to encode a fixed number of frames, 352x288"
    unit = "s"
    better = "less"
    preset = "veryfast"

    def prepare(self, guest):
        mount_debian(guest)
        guest.puppet(f"work clip {CLIP_FRAMES} /tmp/clip.y4m", timeout=600)
        self.run(guest, 1)  # the program and its libraries come from the disk only once

    def calibrate(self, guest, seconds):
        """Frames. Starting the program costs time too, so two amounts are timed."""
        few, more = self.run(guest, 2)["host_s"], self.run(guest, 12)["host_s"]
        frame = max((more - few) / 10, 1e-3)
        return max(4, round((seconds - few) / frame))

    def run(self, guest, amount):
        frames = [CLIP_FRAMES] * (amount // CLIP_FRAMES) + [amount % CLIP_FRAMES] * (amount % CLIP_FRAMES > 0)
        start = time.monotonic()
        for count in frames:
            guest.puppet("sh " + COMMAND.format(preset=self.preset, frames=count), timeout=600)
        took = time.monotonic() - start
        return {"value": took, "host_s": took, "frames": amount}


LOAD = X264()
