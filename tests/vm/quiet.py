#!/usr/bin/env python3
"""quiet.py RULES SECONDS KERNEL... - rules that ship and are on are silent while servers work as they do every day.

RULES are `all`, or `few`: all but the emergency rules. Those probe execve(), reads of /proc and pipes, which engine
gdbstub halts the guest for each time.

nginx, redis, cron and (if there are five minutes) PostgreSQL run on the guest and are asked for things; shells run loops
with pipes and files; functions are traced, kprobes are set, modules are loaded, and on 6.1 the kernel is live-patched;
half way the guest reboots. Alarms are excused only by EXPECTED, by rule, text and reason, and those that must come are
missed if they do not.
"""
import re
import sys
import time
from collections import Counter

from harness import TRACE_FUNCTIONS, TRACE_NOTHING, TRACER, Guest, expect, main
from services import ask
from vmlab_lib import live_patch, services
from vmlab_lib.services import shell
from vmlab_lib.workloads import free_port
from watch import watching

BOOT_MODULES = "virtio|virtio_ring|virtio_pci\\w*|virtio_\\w+|net_failover|failover|af_packet|packet|ext4|jbd2|mbcache|crc\\w+"
# (rule, what it says, why): what happens here and is to be told.
EXPECTED = [("module loaded", r"module (nbd|zram|zsmalloc) \(", "the load inserts it"),
            ("module loaded", rf"module ({BOOT_MODULES}) \(", "the guest boots again, and mounts the disk of its services"),
            ("module loaded", rf"module {live_patch.NAME} \(", "the live patch is one"),
            ("new listener", r"(nginx|redis-server|postgres) pid=\d+ listens on \S+:(80|6379|5432)$", "they start after the reboot")]
POSTGRES_FROM = 300  # seconds: it starts slowly, and after the reboot under the probes:
PROBED_PATIENCE = 900  # initdb runs programs and pipes, and engine gdbstub stops the guest at each
FILES = """for i in 1 2 3; do
  cat /proc/self/maps | sort | head -n 5 > /tmp/quiet; dd if=/dev/zero of=/tmp/quiet-2 bs=64k count=20 2>/dev/null;
  mkdir -p /tmp/quiet.d/a/b; cp /tmp/quiet /tmp/quiet.d/a/b; busybox mv /tmp/quiet-2 /tmp/quiet.d; busybox find /tmp/quiet.d | busybox xargs ls -l
    | busybox sha256sum; busybox rm -r /tmp/quiet.d; (sleep 0.1; date) | cat; done"""


def web(guest):
    for _ in range(20):
        expect(b"200 OK" in ask(guest), "nginx does not answer")


def database(guest):
    said = services.redis(guest, "SET a b", "GET a", "LPUSH list 1 2 3", "LRANGE list 0 -1", "PING", "BGSAVE")
    expect("PONG" in said, said)
    if services.pids_of(guest, "postgres"):
        services.sql(guest, "drop table if exists t; create table t as select generate_series(1, 5000) as a; select sum(a) from t")


def files(guest):
    shell(guest, FILES.replace("\n", " "))


def commands(guest):
    shell(guest, "ps > /dev/null; df > /dev/null; busybox free; ip addr; netstat -l > /dev/null; lsmod; uname -a; dmesg | busybox tail -3")
    shell(guest, f"{services.ENTER} /bin/bash -c 'PATH=/bin:/usr/bin; for i in $(seq 20); do echo $i; done | sort -n > /dev/null; exec ls -lR /etc > /dev/null'")


def tracing(guest):
    shell(guest, f"{TRACE_FUNCTIONS} && sleep 1; {TRACE_NOTHING}")


def kprobes(guest):
    shell(guest, f"{TRACER} && echo 'p:quiet vfs_statfs' > kprobe_events && echo 1 > events/kprobes/quiet/enable && df > /dev/null;"
                 " sleep 1; echo 0 > events/kprobes/quiet/enable; echo > kprobe_events")


def modules(guest):
    shell(guest, "insmod /modules/nbd.ko || busybox insmod /modules/zram.ko; sleep 5; busybox rmmod nbd || busybox rmmod zram")


def patching(guest):
    """One kernel, as the lab can build its modules."""
    if guest.options.kernel == "6.1":
        live_patch.apply(guest, guest.options.kernel)
        time.sleep(12)  # integrity is looked at each 10 s
        live_patch.revert(guest)


LOAD = [web, database, files, commands, tracing, web, kprobes, modules, patching]


class Alarms:
    """Each one must be expected; they are counted by their reasons."""

    def __init__(self, watch):
        self.watch, self.seen, self.by_reason = watch, 0, Counter()

    def look(self, during):
        self.watch.read()
        for alarm in self.watch.alarms[self.seen:]:
            reasons = [reason for rule, text, reason in EXPECTED if alarm["rule"] == rule and re.match(text, alarm["output"])]
            expect(reasons, f"an alarm that is not expected, during {during}: {alarm['rule']}: {alarm['output']}: {alarm}")
            self.by_reason[(alarm["rule"], reasons[0])] += alarm["count"]
        self.seen = len(self.watch.alarms)


def begin_services(guest, seconds):
    services.start(guest, [name for name in services.START if name != "postgres" or seconds >= POSTGRES_FROM],
                   PROBED_PATIENCE)
    services.crontab(guest, "* * * * * date >> /tmp/cron.log", "* * * * * sleep 90")


def work(guest, alarms, until):
    rounds = 0
    while time.monotonic() < until or rounds == 0:
        for part in LOAD:
            begun = time.monotonic()
            part(guest)
            alarms.look(part.__name__)
            if "-v" in sys.argv:
                print(f"{part.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
        rounds += 1
    return rounds


def watched(rules, seconds, kernel):
    with Guest(kernel=kernel, backend="memfd", cpus=2, services=True, mem="1G", forward=free_port()) as guest:
        begin_services(guest, seconds)
        with watching(guest, None, "--engine", "auto", *(["--disable", "emergency"] if rules == "few" else [])) as watch:
            alarms, begun = Alarms(watch), time.monotonic()
            rounds = work(guest, alarms, begun + seconds / 2)
            guest.reboot()
            alarms.look("the reboot")
            begin_services(guest, seconds)
            rounds += work(guest, alarms, begun + seconds)
            alarms.look("the end")
            took = time.monotonic() - begun
            loads = alarms.by_reason[EXPECTED[0][0], EXPECTED[0][2]]
            expect(loads >= rounds, f"{rounds} modules were loaded, {loads} told")
            patches = alarms.by_reason[EXPECTED[2][0], EXPECTED[2][2]]
            expect(patches >= (rounds if kernel == "6.1" else 0), f"{rounds} live patches were loaded, {patches} told")
        for (rule, reason), count in alarms.by_reason.items():
            print(f"{kernel}: {count} expected: {rule}: {reason}")
        print(f"{kernel}, {rules} rules: {took:.0f} s, {rounds} rounds and a reboot, no other alarm; watch said: {watch.said()}", flush=True)
        guest.report()  # it lives


def test(rules, seconds, *kernels):
    expect(rules in ("all", "few"), f"no rules are called {rules}")
    for kernel in kernels:
        if kernel != "-v":
            watched(rules, float(seconds), kernel)


if __name__ == "__main__":
    main(test)
