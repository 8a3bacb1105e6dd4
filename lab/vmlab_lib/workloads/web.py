"""Debian's nginx under open-loop load: requests start when they are due, whether or not those before
them were answered, as those of a site's visitors do."""

import asyncio
import time

from .. import open_loop
from . import Workload, mount_debian

COMMAND = "busybox chroot /debian /usr/sbin/nginx -c /etc/nginx/workload.conf"
SHARE = 0.4       # of what the server can do, one request after the other
MOST = 200        # requests a second; more would measure the generator


class Web(Workload):
    name = "web"
    what = "median response time of nginx, requests on a fixed schedule"
    unit = "ms"
    better = "less"

    def prepare(self, guest):
        mount_debian(guest)
        guest.puppet("sh busybox mkdir -p /tmp/nginx; busybox pidof nginx || " + COMMAND)

    def calibrate(self, guest, seconds):
        """(requests a second, seconds)"""
        served, end = 0, time.monotonic() + min(2, seconds)
        while time.monotonic() < end:
            asyncio.run(open_loop.request(guest.options.forward))
            served += 1
        return [max(2, round(min(MOST, SHARE * served / min(2, seconds)))), seconds]

    def run(self, guest, amount):
        rate, seconds = amount
        start = time.monotonic()
        outcome = open_loop.run(guest.options.forward, open_loop.schedule(rate, seconds))
        score = outcome.summary()
        return {"value": score["p50_ms"], "host_s": time.monotonic() - start, "rate": rate, **score}


LOAD = Web()
