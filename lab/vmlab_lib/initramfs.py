"""The guest's whole userland: the puppet as /init, a static busybox, a few kernel modules."""

import hashlib
import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import agents, programs, tools
from .apt import PrivateApt, cache_dir, locked, run
from .errors import LabError

PUPPET_SOURCES = Path(__file__).resolve().parent.parent / "puppet"

# Loaded by the puppet at boot, in this order (after what each depends on) ...
BOOT_MODULES = ["virtio_pci", "virtio_mmio", "virtio_console", "virtio_net", "virtio_blk", "af_packet"]
# ... and carried along for the puppet's `module NAME`.
SPARE_MODULES = ["overlay", "dummy", "veth", "tun", "loop", "bridge", "vsock", "nbd", "zram",
                 "crc32c_generic", "ext4",
                 # ... and for its `call NAME`.
                 "algif_aead", "authencesn", "ip_tables", "nf_tables", "sch_prio", "cls_route"]
# For the scenes of the network, and for ss, which asks each family by a module of its own.
TOOL_MODULES = ["8021q", "macvlan", "ipip", "sit", "tcp_diag", "udp_diag", "raw_diag", "unix_diag", "packet_diag",
                "netlink_diag"]


class ModuleTree:
    """The modules of a package. Packages carry no modules.dep, so .modinfo is read instead."""

    def __init__(self, root):
        self.files = {module_name(path): path for path in root.rglob("*.ko*")}

    def content(self, name):
        data = self.files[name].read_bytes()
        return lzma.decompress(data) if self.files[name].suffix == ".xz" else data

    def depends(self, name):
        found = re.search(rb"\0depends=([^\0]*)\0", self.content(name))
        return [word.replace("-", "_") for word in found[1].decode().split(",") if word] if found else []

    def load_order(self, name):
        """`name` after all it depends on; empty if the kernel has it built in or not at all."""
        order = []

        def visit(module):
            if module in self.files and module not in order:
                for other in self.depends(module):
                    visit(other)
                order.append(module)

        visit(name)
        return order


def module_name(path):
    return path.name.split(".ko")[0].replace("-", "_")


class Cpio:
    """A newc archive, as the kernel's initramfs unpacker reads it."""

    def __init__(self):
        self.parts = []
        self.inode = 0

    def add(self, path, mode, data=b""):
        self.inode += 1
        name = path.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self.parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]

    def directory(self, path):
        self.add(path, 0o040755)

    def file(self, path, data, executable=False):
        self.add(path, 0o100755 if executable else 0o100644, data)

    def symlink(self, path, target):
        self.add(path, 0o120777, target.encode())

    def write(self, path):
        self.add("TRAILER!!!", 0)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(b"".join(self.parts))
        partial.replace(path)


def digest(*contents):
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def build_puppet():
    """The puppet's program, compiled once per state of its sources."""
    sources = sorted(PUPPET_SOURCES.glob("*.[ch]"))
    program = cache_dir() / f"puppet-{digest(*(path.read_bytes() for path in sources))}"
    if not program.exists():
        partial = program.with_suffix(f".{os.getpid()}")
        code = [path for path in sources if path.suffix == ".c"]
        # With endbr64 where functions begin, as programs of newer distributions have it.
        run("gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-static", "-pthread", "-fcf-protection=branch",
            "-o", partial, *code)
        partial.replace(program)
    return program


def busybox():
    """A static busybox: the machine's own, or one fetched into the cache."""
    installed = shutil.which("busybox")
    if installed and is_static(installed):
        return Path(installed)
    home = cache_dir() / "busybox"
    with locked("apt"):
        if not list(home.glob("**/busybox")):
            PrivateApt().unpack(["busybox-static"], home)
    found = [path for path in home.glob("**/busybox") if path.is_file() and os.access(path, os.X_OK)]
    if not found:
        raise LabError("busybox-static holds no busybox", f"remove {home} and try again")
    return found[0]


def is_static(program):
    headers = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=False)
    return headers.returncode == 0 and "INTERP" not in headers.stdout


def build(kernel, with_agents=False, with_tools=False):
    """The initramfs for `kernel`; kept in the cache until the puppet or this code changes."""
    puppet = build_puppet()
    extra = [agents.build_vmsight_agent(digest).name.encode(), Path(agents.__file__).read_bytes()] if with_agents else []
    if with_tools:
        extra += [Path(tools.__file__).read_bytes(), *(path.read_bytes() for path in scenes())]
    key = digest(puppet.name.encode(), kernel.release.encode(), str(kernel.image).encode(),
                 Path(__file__).read_bytes(), Path(programs.__file__).read_bytes(), *extra)
    name = f"initramfs-{kernel.name}{'-agents' if with_agents else ''}{'-tools' if with_tools else ''}"
    image = cache_dir() / f"{name}-{key}.cpio"
    if not image.exists():
        for old in cache_dir().glob(f"{name}-????????????????.cpio"):
            old.unlink(missing_ok=True)
        cpio = compose(kernel, puppet, TOOL_MODULES if with_tools else [])
        if with_agents or with_tools:
            add_programs(cpio, with_agents, with_tools)
        cpio.write(image)
    return image


def scenes():
    """Scenes that are scripts, of programs that only a guest with the tools has."""
    return sorted(PUPPET_SOURCES.glob("*.sh"))


def add_programs(cpio, with_agents, with_tools):
    for folder in ("lib64", "lib/x86_64-linux-gnu"):
        cpio.directory(folder)
    found = {}
    if with_tools:
        for folder in ("usr", "usr/bin"):
            cpio.directory(folder)
        found |= {path: (data, True) for path, data in tools.files().items()}
        found |= {f"etc/{path.name}": (path.read_bytes(), False) for path in scenes()}
    if with_agents:
        found |= agents.files(digest)
    for path, (data, executable) in found.items():
        cpio.file(path, data, executable)


def compose(kernel, puppet, more_modules=()):
    cpio = Cpio()
    for folder in ("bin", "dev", "etc", "lib", "modules", "proc", "run", "sys", "tmp", "var"):
        cpio.directory(folder)
    cpio.file("init", puppet.read_bytes(), executable=True)
    cpio.file("bin/busybox", busybox().read_bytes(), executable=True)
    for applet in "sh sleep ls cat ps mount ip dd sync sort head netstat lsmod dmesg uname df".split():
        cpio.symlink(f"bin/{applet}", "busybox")
    cpio.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    cpio.file("etc/hostname", b"vmlab\n")
    tree = ModuleTree(kernel.modules)
    boot = list(dict.fromkeys(module for name in BOOT_MODULES for module in tree.load_order(name)))
    spare = {name: tree.load_order(name) for name in [*SPARE_MODULES, *more_modules, *BOOT_MODULES]}
    for module in dict.fromkeys(boot + [module for order in spare.values() for module in order]):
        cpio.file(f"modules/{module}.ko", tree.content(module))
    cpio.file("modules/boot", "".join(f"{module}\n" for module in boot).encode())
    chains = (f"{name} {' '.join(order)}\n" for name, order in spare.items() if order)
    cpio.file("modules/chains", "".join(chains).encode())
    return cpio
