#!/usr/bin/env python3
"""services.py PART KERNEL... - the shipped heartbeats on Debian's own servers, stopped by SIGSTOP.

  redis       redis, by the rule as it ships: silent within its time, by its PID; once; silent no more; one that ends is none
  listener    nginx, stopped: "connections wait" tells when somebody connects, as it ships
  cron        cron and its jobs, with a shortened time: a job that lasts is no cron; 130 s would be twice its minute
  postgres    PostgreSQL's processes, with shortened times
  systemd     journald in a Debian that GRUB booted (KERNEL `disk`), with 140 s: it tells systemd within 135 that it lives

Nothing is told before, while the servers rest and while they work.
"""
import socket
import tempfile
import time
from pathlib import Path

from harness import Guest, expect, main
from vmlab_lib import services
from vmlab_lib.workloads import free_port
from watch import Watch, quiet, settles, shell

RULES = Path(__file__).resolve().parents[2] / "rules" / "heartbeat.yaml"
SLACK = 10  # seconds beyond a rule's own time: the emulated guest is slow, and its clock is what counts


class Watched:
    """`vmsight watch` with the rules of the file called so, some of them changed."""

    def __init__(self, guest, names, overrides=""):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.file.write(overrides)
        self.file.flush()
        more = ["--rules", self.file.name] if overrides else []
        self.watch = Watch(guest, str(RULES), *more, *(word for name in names for word in ("--rules", name)))
        self.watch.started()

    def __enter__(self):
        return self.watch

    def __exit__(self, failure, *_):
        try:
            if failure is None:
                self.watch.end()
        finally:
            self.watch.process.kill()
            self.watch.process.wait()
            self.file.close()


def faster(rule, expect_s, grace_s, probe):
    return (f'- rule: {rule}\n  heartbeat: {{probe: {probe}, expect: {expect_s}s, grace: {grace_s}s, per: process}}\n'
            "  override: {heartbeat: replace}\n")


def stops(guest, watch, rule, pid, within):
    """It is told within its time, by its PID, and once; nothing when it goes on."""
    before = len(watch.alarms)
    shell(guest, f"kill -STOP {pid}")
    begun = time.monotonic()
    settles(lambda: watch.read() or len(watch.alarms) > before, f'no alarm "{rule}" for {pid}', watch, within + SLACK)
    alarm = watch.alarms[before]
    expect(alarm["rule"] == rule and f"pid={pid} " in alarm["output"], alarm)
    print(f"{rule}: {alarm['output']}; after {time.monotonic() - begun:.1f} s of {within}", flush=True)
    quiet(watch, 3)
    shell(guest, f"kill -CONT {pid}")
    quiet(watch, min(within, 10) + 2)  # it beats again at once


def redis(guest):
    """nginx beside it may rest; another redis after it beats for itself."""
    pids = services.start(guest, ["redis-server", "nginx"])
    with Watched(guest, ["redis silent"]) as watch:
        quiet(watch, 8)
        expect("b" in services.redis(guest, "SET a b", "GET a"), "redis does not answer")
        quiet(watch, 3)
        stops(guest, watch, "redis silent", pids["redis-server"], 2)
        expect("b" in services.redis(guest, "GET a"), "redis does not answer")
        shell(guest, f"kill {pids['redis-server']}")
        settles(lambda: not services.pids_of(guest, "redis-server"), "redis does not end", watch)
        quiet(watch, 6)
        stops(guest, watch, "redis silent", services.start(guest, ["redis-server"])["redis-server"], 2)


def listener(guest):
    services.start(guest, ["nginx"])
    pids = services.pids_of(guest, "nginx")
    with Watched(guest, ["connections wait"]) as watch:
        expect(b"200 OK" in ask(guest), "nginx does not answer")
        quiet(watch, 5)
        shell(guest, f"kill -STOP {' '.join(map(str, pids))}")
        quiet(watch, 40)  # nobody has connected: it may rest
        with socket.create_connection(("127.0.0.1", guest.options.forward), 5):
            settles(lambda: watch.read() or watch.alarms, "no alarm", watch, 30 + SLACK)
            print(f"connections wait: {watch.alarms[0]['output']}")
            expect("nginx" in watch.alarms[0]["output"] and "port 80:" in watch.alarms[0]["output"], watch.alarms)
            shell(guest, f"kill -CONT {' '.join(map(str, pids))}")
            quiet(watch, 35)
        expect(b"200 OK" in ask(guest), "nginx does not answer")


def ask(guest):
    with socket.create_connection(("127.0.0.1", guest.options.forward), 20) as line:
        line.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return line.recv(4096)


def cron(guest):
    """With a time of 70 s; a job of 100 s beats not at all, and is none of cron's own."""
    pid = services.start(guest, ["cron"])["cron"]
    services.crontab(guest, "* * * * * date >> /tmp/ran; exec sleep 100")
    changed = faster("cron silent", 70, 10, '"kprobe:hrtimer_nanosleep"')
    with Watched(guest, ["cron silent"], changed) as watch:
        quiet(watch, 190)
        expect(len(shell(guest, "cat /tmp/ran").splitlines()) >= 2, "the job was not run")
        expect(len(services.pids_of(guest, "cron")) > 1, "no job runs while it is looked at")
        stops(guest, watch, "cron silent", pid, 70)


def postgres(guest):
    """With 12 s (background writer), 7 s (WAL writer), and 65 s for those that wait for a minute."""
    postmaster = services.start(guest, ["postgres"])["postgres"]
    wait = '"kprobe:do_epoll_wait"'
    rules = {"background writer": ("PostgreSQL background writer silent", 12, wait),
             "walwriter": ("PostgreSQL WAL writer silent", 7, wait),
             "autovacuum launcher": ("PostgreSQL autovacuum launcher silent", 65, wait),
             "": ("PostgreSQL postmaster silent", 65, f'["kprobe:core_sys_select", {wait}]')}
    changed = "".join(faster(rule, seconds, 10, probe) for rule, seconds, probe in rules.values())
    with Watched(guest, [rule for rule, *_ in rules.values()], changed) as watch:
        quiet(watch, 70)
        services.sql(guest, "create table t as select generate_series(1, 2000) as a")
        expect(services.sql(guest, "select count(*) from t").strip() == "2000", "PostgreSQL does not answer")
        quiet(watch, 70)
        processes = shell(guest, "ps").splitlines()
        for title, (rule, seconds, _) in rules.items():
            pid = postmaster
            if title:
                pid = next(int(line.split()[0]) for line in processes if f"postgres: {title}" in line)
            stops(guest, watch, rule, pid, seconds)
        expect(services.sql(guest, "select count(*) from t").strip() == "2000", "PostgreSQL does not answer")


def systemd(guest):
    journal = int(shell(guest, "pidof systemd-journald").split()[0])
    rule = "service of systemd silent"
    with Watched(guest, [rule], faster(rule, 140, 20, '"kprobe:unix_dgram_sendmsg"')) as watch:
        quiet(watch, 150)
        stops(guest, watch, rule, journal, 140)


PARTS = {"redis": redis, "listener": listener, "cron": cron, "postgres": postgres, "systemd": systemd}


def test(parts, *kernels):
    for kernel in kernels:
        for part in parts.split(","):
            own = {"services": True, "forward": free_port()} if part != "systemd" else {}  # that Debian has its own
            with Guest(kernel=kernel, backend="memfd", cpus=2, mem="1G", **own) as guest:
                PARTS[part](guest)
                guest.report()  # it lives
            print(f"{kernel}: {part} done", flush=True)


if __name__ == "__main__":
    main(test)
