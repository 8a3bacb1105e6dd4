"""Debian's own servers in a guest: nginx, redis, cron and PostgreSQL, started as their packages do, by chroot.

    guest = Guest(services=True, mem="1G", ...)
    started = services.start(guest)              # all of them
    services.redis(guest, "SET key value")       # what redis-cli prints
    pid = services.pid_of(guest, "redis-server")
"""

import time

from .errors import LabError
from .workloads import mount_debian

ENTER = "busybox chroot /debian"
AS_POSTGRES = ENTER + " /usr/bin/env -i PATH=/usr/bin:/bin /usr/sbin/chroot --userspec=postgres /"
BIN = "/usr/lib/postgresql/15/bin"
DATA = "/tmp/postgres/data"
START = {
    "nginx": "mkdir -p /tmp/nginx; CHROOT /usr/sbin/nginx -c /etc/nginx/workload.conf",
    "redis-server": "mkdir -p /tmp/redis; CHROOT /usr/bin/redis-server /etc/redis/lab.conf",
    "cron": "mkdir -p /tmp/spool/cron/crontabs; CHROOT /usr/sbin/cron",
    "postgres": f"""mkdir -p /tmp/postgres; busybox chown 100:100 /tmp/postgres; busybox chmod 1777 /tmp;
        POSTGRES {BIN}/initdb --no-sync -E SQL_ASCII --locale=C -A trust -D {DATA} > /tmp/postgres.log 2>&1 &&
        cat /debian/etc/postgresql/lab.conf >> {DATA}/postgresql.conf &&
        POSTGRES {BIN}/pg_ctl -D {DATA} -l /tmp/postgres/log -t 300 -w start
            >> /tmp/postgres.log 2>&1 || cat /tmp/postgres.log""",
}
BOOT_PATIENCE = 120  # seconds, under TCG


def shell(guest, command, timeout=BOOT_PATIENCE):
    return guest.puppet("sh " + command, timeout=timeout).decode(errors="replace")


def start(guest, names=tuple(START), patience=BOOT_PATIENCE):
    """{name: PID} of those; they run when this returns. Each may take so many seconds."""
    mount_debian(guest)
    for name in names:
        command = START[name].replace("CHROOT", ENTER).replace("POSTGRES", AS_POSTGRES)
        said = shell(guest, " ".join(command.split()), patience)
        if not pids_of(guest, name):
            raise LabError(f"{name} does not start: {said[-600:]}")
    return {name: pid_of(guest, name) for name in names}


def pids_of(guest, name):
    """Of the processes that run the program, the oldest first; none that has ended."""
    return sorted(map(int, shell(guest, f"for pid in $(busybox pidof {name}); do ls /proc/$pid/exe; done 2>/dev/null"
                                        " | busybox grep -o '[0-9]*' || :").split()))


def pid_of(guest, name):
    """Of a program's first process, as soon as there is one."""
    deadline = time.monotonic() + BOOT_PATIENCE
    while not (found := pids_of(guest, name)):
        if time.monotonic() > deadline:
            raise LabError(f"{name} does not run")
        time.sleep(0.1)
    return found[0]


def redis(guest, *commands):
    """What redis-cli prints for each line of its input."""
    lines = "\\n".join(commands)
    return shell(guest, f"printf '{lines}\\n' | {ENTER} /usr/bin/redis-cli")


def sql(guest, statement):
    return shell(guest, f'{AS_POSTGRES} {BIN}/psql -h /tmp/postgres -At -c "{statement}" postgres')


def crontab(guest, *lines):
    """Root's jobs from the next minute on; none without lines. cron sees a change of another second only."""
    text = "\\n".join(lines)
    shell(guest, f"printf '{text}\\n' > /tmp/spool/cron/crontabs/root; busybox chmod 600 /tmp/spool/cron/crontabs/root;"
                 " busybox sleep 2; touch /tmp/spool/cron/crontabs")
