"""A disk with Debian's own x264 and nginx on it, for guests that are to have something to do.

Packages are unpacked, not installed: no maintainer script runs, nothing needs root. The guest mounts
the file system read-only at /debian and starts what is on it by chroot.
"""

import os
import shutil

from .apt import PrivateApt, cache_dir, locked, run
from .initramfs import digest

SUITE = "bookworm"
PACKAGES = ["x264", "nginx-light"]
CONTENT = 16384  # bytes of the page that the web server serves

# One worker, no log: what is measured is the guest, not its disk.
NGINX = """worker_processes 1;
error_log stderr;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path /tmp/nginx;
  proxy_temp_path /tmp/nginx;
  fastcgi_temp_path /tmp/nginx;
  uwsgi_temp_path /tmp/nginx;
  scgi_temp_path /tmp/nginx;
  server { listen 80; root /srv; }
}
"""
LEFT_OUT = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl", "usr/lib/x86_64-linux-gnu/dri",
            "usr/share/fonts", "usr/share/mime", "usr/share/icons"]


def image():
    """The disk, from the cache or made now. Boot it with readonly=on: guests share it."""
    key = digest(NGINX.encode(), " ".join(PACKAGES + LEFT_OUT).encode(), str(CONTENT).encode())
    return cached("workloads", key, fill)


def cached(name, key, fill_root):
    """A disk of that label, whose file system `fill_root` makes."""
    disk = cache_dir() / f"{name}-{SUITE}-{key}.raw"
    if not disk.exists():
        with locked("apt"):
            if not disk.exists():
                for old in cache_dir().glob(f"{name}-*.raw"):
                    old.unlink()
                build(disk, name, fill_root)
    return disk


def build(disk, name, fill_root):
    work = cache_dir() / f"{name}-work"
    shutil.rmtree(work, ignore_errors=True)
    root = work / "root"
    root.mkdir(parents=True)
    try:
        fill_root(root)
        partial = work / "disk.raw"
        used = sum(entry.lstat().st_size + 4096 for entry in root.rglob("*"))
        run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-L", name, "-d", root, partial,
            f"{used * 13 // 10240 + 16384}k", env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
        partial.replace(disk)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fill(root):
    apt = PrivateApt()
    apt.unpack(apt.closure_in(SUITE, PACKAGES), root)
    finish(root)


def finish(root):
    for path in LEFT_OUT:
        shutil.rmtree(root / path, ignore_errors=True)
    for folder in ("dev", "proc", "run", "srv", "tmp", "var/log/nginx", "var/lib/nginx"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nwww-data:x:33:33::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n")
    (root / "etc/nginx").mkdir(parents=True, exist_ok=True)
    (root / "etc/nginx/workload.conf").write_text("user root;\n" + NGINX)
    (root / "srv/index.html").write_bytes(b"vmsight " * (CONTENT // 8))
