"""A Debian guest installed on a disk; it boots by GRUB, under SeaBIOS and under OVMF."""

import os
import shutil
import tempfile
from pathlib import Path

from . import debian, initramfs
from .apt import cache_dir, locked, run
from .errors import LabError

# no_timer_check: on a busy host an emulated timer may seem dead to the check.
GRUB_CONFIG = """search --no-floppy --set=root --label vmlab-root
linux /vmlinuz root=LABEL=vmlab-root ro console=ttyS0 quiet no_timer_check
initrd /initrd.img
boot
"""
# A busy host must not cost the guest its swap: wait for devices for ever.
FSTAB = """LABEL=vmlab-root / ext4 defaults,x-systemd.device-timeout=0 0 1
LABEL=vmlab-swap none swap sw,x-systemd.device-timeout=0 0 0
"""


def ovmf():
    """(code, variables template) of the UEFI firmware."""
    folder = debian.tools() / "usr/share/OVMF"
    return folder / "OVMF_CODE_4M.fd", folder / "OVMF_VARS_4M.fd"


def image():
    """The disk with this puppet, from the cache or made now. Boot it with a snapshot=on drive."""
    puppet = initramfs.build_puppet()
    with locked("disk"):
        base = debian.base_image()
        key = initramfs.digest(base.name.encode(), puppet.name.encode(), GRUB_CONFIG.encode(), FSTAB.encode())
        disk = cache_dir() / f"disk-{key}.raw"
        if not disk.exists():
            for old in cache_dir().glob("disk-????????????????.raw"):
                old.unlink()
            partial = disk.with_suffix(".partial")
            run("cp", "--reflink=auto", "--sparse=always", base, partial)
            finish(partial, puppet)
            partial.replace(disk)
    return disk


def finish(disk, puppet):
    put_file(disk, puppet, debian.PUPPET, 0o755)
    with tempfile.TemporaryDirectory() as folder:
        for path, content in ((debian.GRUB_CONFIG, GRUB_CONFIG), ("/etc/fstab", FSTAB)):
            source = Path(folder) / "file"
            source.write_text(content)
            put_file(disk, source, path, 0o644)


def put_file(disk, source, path, mode):
    """Writes a file into the root file system without mounting it."""
    commands = (f"cd {os.path.dirname(path)}\nrm {os.path.basename(path)}\nwrite {source} {os.path.basename(path)}\n"
                f"set_inode_field {path} mode 0{0o100000 | mode:o}\n")
    said = run("debugfs", "-w", "-f", "-", f"{disk}?offset={debian.ROOT_START * debian.SECTOR}", input=commands)
    if "Allocated inode" not in said:
        raise LabError(f"debugfs did not write {path}: {said.strip()}")


def drive(firmware, home):
    """QEMU arguments that boot the disk, leaving the cached image as it is."""
    arguments = ["-drive", f"if=none,id=system,format=raw,file={image()},snapshot=on",
                 "-device", "virtio-blk-pci,drive=system,bootindex=1"]
    if firmware == "ovmf":
        code, template = ovmf()
        variables = home / "ovmf-vars.fd"
        shutil.copy(template, variables)
        arguments += ["-drive", f"if=pflash,format=raw,readonly=on,file={code}",
                      "-drive", f"if=pflash,format=raw,file={variables}"]
    elif firmware != "seabios":
        raise LabError(f"no firmware is called {firmware}", "known: seabios ovmf")
    return arguments
