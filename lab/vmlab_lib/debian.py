"""A disk with Debian installed: GRUB for both firmwares, systemd, swap, a service for the puppet.

What depends on the puppet or on how the guest is to boot is put in later (disk.py), for this takes
minutes. Built without installing anything here and without loop devices: every tool is unpacked into the
cache, file systems are filled as they are made, and GRUB's boot sectors are written by hand.

    LBA 0      protective MBR with GRUB's boot.img
    2048       BIOS boot partition: core.img
    4096       EFI system partition (FAT): EFI/BOOT/BOOTX64.EFI
    69632      swap
    331776     root (ext4)
"""

import os
import shutil
import struct
from pathlib import Path

from .apt import PrivateApt, cache_dir, kept, mirrors, run
from .errors import LabError
from .initramfs import digest

SECTOR = 512
BIOS_START, BIOS_SECTORS = 2048, 2048
EFI_START, EFI_SECTORS = 4096, 65536
SWAP_START, SWAP_SECTORS = 69632, 262144
ROOT_START, ROOT_SECTORS = 331776, 3 * 1024 * 1024  # 1.5 GiB
TOOLS = ["debootstrap", "grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "ovmf", "mtools", "dosfstools", "fdisk"]
PACKAGES = ["systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "cron", "rsyslog"]
SUITE = "bookworm"

GRUB_CONFIG = "/boot/grub/grub.cfg"  # not written here
# What GRUB starts with: find the root file system, then read the configuration there.
GRUB_EMBEDDED = f"search --no-floppy --set=root --label vmlab-root\nconfigfile {GRUB_CONFIG}\n"
GRUB_MODULES = "part_gpt ext2 search search_label configfile linux normal boot echo".split()

PUPPET = "/usr/local/sbin/puppet"

SERVICE = f"""[Unit]
Description=vmlab puppet
[Service]
ExecStart={PUPPET} serve
Restart=always
TasksMax=infinity
LimitNOFILE=infinity
[Install]
WantedBy=multi-user.target
"""


def tools():
    """The directory that the tools were unpacked into."""
    home = cache_dir() / "disk-tools"
    return kept(home, lambda: PrivateApt().unpack([f"{name}/{SUITE}" for name in TOOLS], home))


def tool(name):
    home = tools()
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (home / folder / name).exists():
            return home / folder / name
    raise LabError(f"{home} holds no {name}", "remove it and try again")


def base_image():
    """The disk, from the cache or built now. The caller holds the lock `disk`."""
    base = cache_dir() / f"disk-{SUITE}-{digest(Path(__file__).read_bytes())}.raw"
    if not base.exists():
        for old in cache_dir().glob("disk-*.raw"):
            old.unlink()
        build(base)
    return base


def build(disk):
    work = cache_dir() / "disk-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        root = install(work / "root")
        partial = work / "disk.raw"
        with open(partial, "wb") as out:
            out.truncate((ROOT_START + ROOT_SECTORS + 2048) * SECTOR)
        partition(partial)
        put(partial, ROOT_START, root_file_system(work, root))
        put(partial, SWAP_START, swap(work))
        put(partial, EFI_START, efi_partition(work))
        write_bios_grub(partial, work)
        partial.replace(disk)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def install(root):
    """A Debian as debootstrap makes it, with a password-less root and a service for the puppet."""
    main, _ = mirrors()
    environment = {**os.environ, "DEBOOTSTRAP_DIR": str(tools() / "usr/share/debootstrap"), "LC_ALL": "C",
                   "DEBIAN_FRONTEND": "noninteractive"}
    cache = cache_dir() / "debs"
    cache.mkdir(exist_ok=True)
    run(tool("debootstrap"), "--variant=minbase", f"--include={','.join(PACKAGES)}",
        f"--cache-dir={cache}", SUITE, root, main, env=environment)
    (root / "etc/systemd/system/puppet.service").write_text(SERVICE)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "puppet.service").symlink_to("/etc/systemd/system/puppet.service")
    (root / "etc/hostname").write_text("vmlab-disk\n")
    (root / "etc/modules-load.d/vmlab.conf").write_text("virtio_console\n")
    (root / "boot/grub").mkdir(parents=True, exist_ok=True)
    run("chroot", root, "passwd", "-d", "root")
    run("chroot", root, "apt-get", "clean")
    return root


def partition(disk):
    script = "\n".join(["label: gpt", "unit: sectors",
                        f"start={BIOS_START}, size={BIOS_SECTORS}, type=21686148-6449-6E6F-744E-656564454649",
                        f"start={EFI_START}, size={EFI_SECTORS}, type=U",
                        f"start={SWAP_START}, size={SWAP_SECTORS}, type=S",
                        f"start={ROOT_START}, size={ROOT_SECTORS}, type=L"]) + "\n"
    run(tool("sfdisk"), "--quiet", disk, input=script)


def put(disk, sector, part):
    run("dd", f"if={part}", f"of={disk}", "bs=512K", f"seek={sector * SECTOR}", "oflag=seek_bytes",
        "conv=notrunc,sparse")


def root_file_system(work, root):
    part = work / "root.ext4"
    run("mkfs.ext4", "-q", "-F", "-L", "vmlab-root", "-d", root, part, f"{ROOT_SECTORS // 2}k")
    return part


def swap(work):
    part = work / "swap"
    with open(part, "wb") as out:
        out.truncate(SWAP_SECTORS * SECTOR)
    run("mkswap", "-q", "-L", "vmlab-swap", part)
    return part


def grub_image(work, target, prefix):
    embedded = work / "embedded.cfg"
    embedded.write_text(GRUB_EMBEDDED)
    out = work / f"core.{target}"
    bus = ["biosdisk"] if target == "i386-pc" else []
    run(tool("grub-mkimage"), "-d", tools() / "usr/lib/grub" / target, "-O", target, "-o", out, "-p", prefix,
        "-c", embedded, *GRUB_MODULES, *bus)
    return out


def efi_partition(work):
    part = work / "efi.fat"
    with open(part, "wb") as out:
        out.truncate(EFI_SECTORS * SECTOR)
    run(tool("mkfs.vfat"), part)
    program = grub_image(work, "x86_64-efi", "/EFI/debian")
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    run(tool("mmd"), "-i", part, "::EFI", "::EFI/BOOT", env=environment)
    run(tool("mcopy"), "-i", part, program, "::EFI/BOOT/BOOTX64.EFI", env=environment)
    return part


def write_bios_grub(disk, work):
    """boot.img into the MBR, core.img into its partition; each told where the next is.

    boot.img has the LBA of core.img at 0x5c; core.img's first sector ends with a list of where
    the rest lies: {u64 LBA, u16 sectors, u16 segment} at 0x1f4 (GRUB manual, images).
    """
    boot = (tools() / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    core = bytearray(grub_image(work, "i386-pc", "/boot/grub").read_bytes())
    core += bytes(-len(core) % SECTOR)
    struct.pack_into("<QHH", core, 0x1F4, BIOS_START + 1, len(core) // SECTOR - 1, 0x820)
    code = bytearray(boot[:440])
    struct.pack_into("<Q", code, 0x5C, BIOS_START)
    code[0x66:0x68] = b"\x90\x90"  # as grub-bios-setup does for a hard disk: trust the BIOS's drive
    if len(core) > BIOS_SECTORS * SECTOR:
        raise LabError("GRUB's core image does not fit its partition")
    with open(disk, "r+b") as out:
        out.write(code)
        out.seek(BIOS_START * SECTOR)
        out.write(core)
