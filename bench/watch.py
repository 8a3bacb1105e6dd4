#!/usr/bin/env python3
"""bench/watch.py [BUILD_DIR] [SECONDS] [each] - what `vmsight watch` costs, by the rules that ship.

CPU time (user and system, of all its processes) over that time (60 s), on the lab's `reference` guest, beside a loop
that reads the whole state once a second and writes it nowhere; starting up is in it. All rules about records and
integrity together may take 5 % of a core. Rules with probes cost the guest as docs/probes.md says of its engine: here it
is counted how often their places are hit while the guest works (files, pipes, programs, sockets of its shell).

each   every rule by itself: of those that read, the CPU time of a `watch` with no other rule; of those that probe, how
       often their places are hit in a guest whose servers (nginx, redis, cron) rest, and work (200 web requests a
       second, a shell's loops). That is counted by the guest's own kprobes, so that nobody stops at a hit: times what a
       hit costs it is what the rule costs.
"""
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lab"))

from vmlab_lib import open_loop, services  # noqa: E402
from vmlab_lib.guest import Guest  # noqa: E402
from vmlab_lib.workloads import free_port  # noqa: E402

BOUND = 5.0  # % of a core
SERVERS = ["nginx", "redis-server", "cron"]
REQUESTS = 200  # of the web server, a second
WORK = "sh while :; do ls -lR /proc/self /bin | grep busybox | sort | head -3; cat /proc/mounts; true; done > /dev/null 2>&1 &"


def measured(command, seconds):
    """(% of a core, MiB)"""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds / 2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode != 0:
        sys.exit(f"{command}: exit status {process.returncode}")
    anonymous = int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024
    return (usage.ru_utime + usage.ru_stime) / seconds * 100, anonymous


def show(what, cost):
    print(f"{what:<44} {cost[0]:6.2f} % of a core {cost[1]:7.1f} MiB of its own", flush=True)
    return cost[0]


def hits(vmsight, guest, seconds):
    guest.puppet(WORK)
    with subprocess.Popen([vmsight, "watch", str(guest.pid), "--rules", ROOT / "rules/emergency.yaml"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watch:
        time.sleep(seconds)
        said = subprocess.run([vmsight, "watch", "--status", str(guest.pid), "--json"], stdout=subprocess.PIPE, check=True)
        watch.terminate()
    status = json.loads(said.stdout)
    for watched in status["watches"]:
        for vm in watched["vms"]:
            for rule in vm["rules"]:
                print(f"  {rule['rule']:<64} {rule['hits'] / seconds:8.1f} hits/s, {rule['judged'] / seconds:.1f} told",
                      flush=True)


def plan_of(vmsight, guest, rule):
    """What `watch` would arm for the rule, also when it is off as it ships."""
    said = subprocess.run([vmsight, "watch", str(guest.pid), "--rules", ROOT / "rules", "--rules", rule, "--dry-run", "--json"],
                          stdout=subprocess.PIPE, check=True)
    return next(one for one in json.loads(said.stdout)["vms"][0]["rules"] if one["rule"] == rule)


class OwnCounters:
    """The guest's kprobes at the places; it counts itself how often it comes there."""

    def __init__(self, guest, places):
        self.guest, self.names = guest, {place: f"v{number}" for number, place in enumerate(sorted(places))}
        lines = "".join(f"echo 'p:{name} {place}' >> kprobe_events;" for place, name in self.names.items())
        guest.puppet("sh mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || :")
        self.shell(f"{lines} echo 1 > events/kprobes/enable")

    def shell(self, command):
        return self.guest.puppet(f"sh cd /sys/kernel/tracing && {command}").decode()

    def hits(self):
        counts = {line.split()[0]: sum(map(int, line.split()[1:])) for line in self.shell("cat kprobe_profile").splitlines()}
        return {place: counts[name] for place, name in self.names.items()}

    def rates(self, seconds):
        before, begun = self.hits(), time.monotonic()
        time.sleep(seconds)
        after, took = self.hits(), time.monotonic() - begun
        return {place: (after[place] - before[place]) / took for place in before}


def probed(vmsight, rules, seconds):
    with Guest(kernel="6.1", backend="memfd", cpus=2, mem="1G", services=True, forward=free_port(), name="bench-rules") as guest:
        services.start(guest, SERVERS)
        services.crontab(guest, "* * * * * date >> /tmp/cron.log")
        plans = [plan_of(vmsight, guest, rule) for rule in rules]
        counters = OwnCounters(guest, {site["site"] for plan in plans for site in plan["sites"]})
        rest = counters.rates(seconds)
        guest.puppet(WORK)
        guest.puppet(f"sh while :; do printf 'SET a b\\nGET a\\n' | {services.ENTER} /usr/bin/redis-cli; done > /dev/null 2>&1 &")
        asked = threading.Thread(target=open_loop.run, args=(guest.options.forward, open_loop.schedule(REQUESTS, seconds)))
        asked.start()
        work = counters.rates(seconds)
        asked.join()
        for plan in plans:
            places = [site["site"] for site in plan["sites"]]
            cost = [f"{sum(rates[place] for place in places):9.1f} hits/s" if places else f"{'not there':>16}" for rates in (rest, work)]
            print(f"{plan['rule']:<64} {plan['kind']:<10} {cost[0]} {cost[1]}  {' '.join(places)}", flush=True)


def rules_in(name):
    return re.findall(r"^- rule: (.+)$", (ROOT / f"rules/{name}.yaml").read_text(), re.M)


def each(vmsight, seconds):
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="bench-watch") as guest:
        guest.puppet("reference")
        read = [*rules_in("state"), "connections wait", *rules_in("progress"), *rules_in("integrity")]
        for rule in read:
            show(rule, measured([vmsight, "watch", str(guest.pid), "--rules", ROOT / "rules", "--rules", rule, "-d", str(seconds)], seconds))
    probed(vmsight, [rule for rule in rules_in("heartbeat") + rules_in("emergency") if rule not in read], seconds)


def main():
    words = [word for word in sys.argv[1:] if word != "each"]
    build = Path(words[0] if words else ROOT / "build")
    seconds = int(words[1]) if len(words) > 1 else 60
    vmsight = build / "vmsight"
    if "each" in sys.argv:
        return each(vmsight, seconds)
    with Guest(kernel="6.1-cloud", backend="memfd", cpus=2, name="bench-watch") as guest:
        guest.puppet("reference")
        pid, rules = str(guest.pid), ROOT / "rules"
        show("the whole state, once a second",
             measured([vmsight, "monitor", pid, "--duration", str(seconds)], seconds))
        for name in ("state", "progress", "integrity"):
            show(f"rules/{name}.yaml",
                 measured([vmsight, "watch", pid, "--rules", rules / f"{name}.yaml", "-d", str(seconds)], seconds))
        together = show("rules/state.yaml and rules/integrity.yaml",
                        measured([vmsight, "watch", pid, "--rules", rules / "state.yaml", "--rules",
                                  rules / "integrity.yaml", "-d", str(seconds)], seconds))
        print(f"of which {BOUND} % are allowed: {'met' if together <= BOUND else 'not met'}")
        print("hits of rules/emergency.yaml while the guest works:")
        hits(vmsight, guest, min(seconds, 20))
    sys.exit(together > BOUND)


if __name__ == "__main__":
    main()
