"""A disk with Debian's own nginx, redis, cron and PostgreSQL on it, for guests that are to be as servers are.

As workload_disk.py: packages are unpacked, not installed, and the guest mounts the disk read-only at /debian.
"""

import shutil
from pathlib import Path

from .apt import PrivateApt
from .initramfs import digest
from .workload_disk import NGINX, SUITE, cached, finish

PACKAGES = ["nginx-light", "redis-server", "cron", "postgresql-15", "dash", "coreutils", "bash"]
# What their dependencies are needed for here: running the programs. Not for installing them, for Perl's wrappers,
# or for compiling queries (LLVM alone is larger than all of these).
NEEDED = """nginx-light nginx nginx-common redis-server redis-tools cron postgresql-15 postgresql-client-15 dash coreutils bash
libacl1 libattr1 libatomic1 libaudit1 libc6 libcap-ng0 libcap2 libcom-err2 libcrypt1 libffi8 libgcc-s1 libgcrypt20 libgmp10
libgnutls30 libgpg-error0 libgssapi-krb5-2 libhogweed6 libicu72 libidn2-0 libjemalloc2 libk5crypto3 libkeyutils1 libkrb5-3
libkrb5support0 libldap-2.5-0 liblz4-1 liblzf1 liblzma5 libnettle8 libp11-kit0 libpam0g libpam-modules libpcre2-8-0 libpq5 libreadline8
libsasl2-2 libselinux1 libssl3 libstdc++6 libsystemd0 libtasn1-6 libtinfo6 libunistring2 libxml2 libzstd1 tzdata
zlib1g""".split()
LEFT_OUT = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
            "usr/lib/postgresql/15/lib/bitcode"]
USERS = {"root": 0, "www-data": 33, "postgres": 100, "redis": 101, "nobody": 65534}
REDIS = """port 6379
dir /tmp/redis
daemonize yes
save ""
"""
# Added to what initdb writes. No port: others in the guest reach it by its socket.
POSTGRES = """listen_addresses = ''
unix_socket_directories = '/tmp/postgres'
logging_collector = off
fsync = off
"""


def image():
    """The disk, from the cache or made now. Boot it with readonly=on: guests share it."""
    return cached("services", digest(NGINX.encode(), Path(__file__).read_bytes()), fill)


def fill(root):
    apt = PrivateApt()
    packages = [word for word in apt.closure_in(SUITE, PACKAGES) if word.split("=")[0] in NEEDED]
    apt.unpack(packages, root)
    finish(root)
    for path in LEFT_OUT:
        shutil.rmtree(root / path, ignore_errors=True)
    (root / "etc/passwd").write_text("".join(f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in USERS.items()))
    (root / "etc/group").write_text("".join(f"{name}:x:{number}:\n" for name, number in USERS.items()) + "crontab:x:102:\n")
    (root / "etc/redis").mkdir(parents=True, exist_ok=True)
    (root / "etc/redis/lab.conf").write_text(REDIS)
    (root / "etc/postgresql").mkdir(parents=True, exist_ok=True)
    (root / "etc/postgresql/lab.conf").write_text(POSTGRES)
    (root / "etc/pam.d/cron").write_text("".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session")))
    # The guest has its own, in memory: what the jobs are is a test's to say.
    shutil.rmtree(root / "var/spool", ignore_errors=True)
    for path, target in (("var/spool", "/tmp/spool"), ("var/run", "/run")):
        (root / path).symlink_to(target)
    for path in (root / "etc").glob("cron.*/*"):
        path.unlink()
    (root / "bin").mkdir(exist_ok=True)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
