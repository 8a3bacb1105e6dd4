#!/usr/bin/env python3
"""images.py - every format of memory images says the same as the ELF core of the same moment.

One halted guest is saved by QEMU, makedumpfile and writers of ours; `state --json` of each file must be that of the
ELF core that vmsight took, but for what the tool left out: that is missing, never empty, and counted.
"""
import gzip
import json
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from harness import Guest, expect, main, run, vmsight

PAGE = 4096


def state_of(image, *options, timeout=300):
    return json.loads(vmsight("state", image, "--json", "--threads", *options, timeout=timeout))


def content(document):
    """What a document says of the guest; `vm` names the file, `view` the cost."""
    return {key: value for key, value in document.items() if key not in ("vm", "view", "problems")}


def same(image, expected, what, *options):
    ours = state_of(image, *options)
    for key, value in content(expected).items():
        expect(ours.get(key) == value, f"{what}: {key} is not what the ELF core says")
    expect(ours["problems"] == expected["problems"], f"{what}: problems {ours['problems'][:5]}")
    known = json.loads(vmsight("info", image, "--json", *options))["vm"]["format"]
    print(f"{what}: the same state, of {image.stat().st_size >> 20} MiB of {known}")
    return known


def loads(core):
    """(offset, physical address, bytes in the file, bytes of memory) of each PT_LOAD that is RAM; elf(5)."""
    with open(core, "rb") as file:
        head = file.read(64)
        table, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        for _ in range(count):
            kind, _, offset, _, physical, held, memory, _ = struct.unpack("<IIQQQQQQ", file.read(size))
            if kind == 1:
                yield offset, physical, held, memory


def ranges_of(core):
    """The RAM of a core, (offset, physical address, size), without what overlaps."""
    covered = 0
    for offset, physical, held, _ in sorted(loads(core), key=lambda load: load[1]):
        skip = max(0, covered - physical)
        if held > skip:
            yield offset + skip, physical + skip, held - skip
            covered = physical + held


def write_lime(core, path):
    """doc/README.md of LiME: headers with inclusive ends. Also the same without headers: its format=raw."""
    with open(core, "rb") as source, open(path, "wb") as lime, open(f"{path}.raw", "wb") as raw:
        for offset, physical, size in ranges_of(core):
            source.seek(offset)
            lime.write(struct.pack("<IIQQQ", 0x4C694D45, 1, physical, physical + size - 1, 0))
            memory = source.read(size)
            lime.write(memory)
            raw.write(memory)
    return ",".join(f"{physical:#x}-{physical + size:#x}" for _, physical, size in ranges_of(core))


def write_saved_domain(stream, path):
    """src/qemu/qemu_saveimage.h of libvirt, with a stream packed by gzip."""
    xml = b"<domain type='qemu'/>\0"
    with open(path, "wb") as file, open(stream, "rb") as source:
        file.write(b"LibvirtQemudSave" + struct.pack("<5I", 2, len(xml), 0, 1, 0) + bytes(56) + xml)
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
            shutil.copyfileobj(source, packed)


def makedumpfile(core, out, *options):
    done = subprocess.run(["makedumpfile", "--message-level", "31", *options, core, out], capture_output=True,
                          text=True, timeout=600, check=False)
    expect(done.returncode == 0, f"makedumpfile {options}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout + done.stderr


def report(said, what):
    found = re.search(rf"{what}\s*:\s*(0x[0-9a-f]+)", said, re.I)
    expect(found, f"makedumpfile says nothing of {what}:\n{said[-1500:]}")
    return int(found[1], 16)


def absent_bytes(document):
    found = [re.match(r"(\d+) bytes of memory .* were left out of the image", problem["what"])
             for problem in document["problems"] if problem["where"] == "image"]
    found = [match for match in found if match]
    expect(len(found) <= 1, f"what is absent is said {len(found)} times")
    return int(found[0][1]) if found else 0


def check_excluded(document, whole, what):
    """What was left out is null with a problem; what is there is as it was."""
    excluded = 0
    before = {process["pid"]: process for process in whole["processes"]}
    expect({process["pid"] for process in document["processes"]} == before.keys(), f"{what}: processes are missing")
    said = json.dumps(document["problems"])
    for process in document["processes"]:
        full = before[process["pid"]]["cmdline"]
        if process["cmdline"] == full:
            continue
        expect(process["cmdline"] is None, f"{what}: pid {process['pid']}: {process['cmdline']}, not {full}")
        expect(f"process {process['pid']}" in said, f"{what}: nothing tells why pid {process['pid']} has no command line")
        excluded += 1
    return excluded


def excluded_pages(home, core, whole):
    makedumpfile(core, home / "excluded.elf", "-E", "-d", "31")
    ram, held = set(), set()  # of pages; segments overlap
    for _, physical, size, memory in loads(home / "excluded.elf"):
        ram.update(range(physical // PAGE, (physical + memory) // PAGE))
        held.update(range(physical // PAGE, (physical + size) // PAGE))
    absent = len(ram - held) * PAGE
    document = state_of(home / "excluded.elf")
    expect(absent > 0 and absent_bytes(document) == absent, f"ELF: {absent_bytes(document)} absent, {absent} in fact")
    # Which those are is chance: an ELF of makedumpfile leaves out runs of 256 pages and more only.
    lost = check_excluded(document, whole, "ELF of -d 31")
    text = run("ps", home / "excluded.elf")
    expect(text.returncode == 0 and b"left out" in text.stderr, f"ps does not warn: {text.stderr}")
    print(f"ELF of -d 31: {absent >> 20} MiB absent; {lost} command lines are null")

    zeros = state_of(home / "excluded.elf", "--absent-is-zero")
    expect(absent_bytes(zeros) == 0, "--absent-is-zero: bytes are absent")

    said = makedumpfile(core, home / "excluded.kdump", "-l", "-d", "31")
    ours = state_of(home / "excluded.kdump")
    zero, left_out = report(said, "Pages filled with zero"), report(said, "Excluded pages")
    expect(absent_bytes(ours) == (left_out - zero) * PAGE,
           f"kdump: {absent_bytes(ours) // PAGE} pages absent, {left_out} excluded, of which {zero} zero")
    lost = check_excluded(ours, whole, "kdump of -d 31")
    expect(lost > 0, "kdump of -d 31: no command line was left out")  # it leaves out page by page
    refused = run("snapshot", home / "excluded.kdump", home / "copy")
    expect(refused.returncode != 0 and b"left out" in refused.stderr, f"a copy shows zeros: {refused.stderr}")
    vmsight("snapshot", home / "excluded.kdump", home / "copy", "--absent-is-zero")
    (home / "copy").unlink()
    print(f"kdump of -d 31: {left_out - zero} pages absent, {zero} zero; {lost} command lines are null")


def kdumps(home, core, whole):
    for options in (["-c"], ["-l"], ["-c", "-d", "1"], ["-l", "-d", "1"]):
        said = makedumpfile(core, home / "kdump", *options)
        same(home / "kdump", whole, f"makedumpfile {' '.join(options)}")
        if "-d" in options:
            expect(report(said, "Pages filled with zero") > 1000, "there are no pages of zeros")
        (home / "kdump").unlink()
    with open(home / "flat", "wb") as flat:
        subprocess.run(["makedumpfile", "-F", "-c", core], stdout=flat, stderr=subprocess.DEVNULL, timeout=600, check=True)
    same(home / "flat", whole, "makedumpfile -F -c")
    with open(home / "flat", "wb") as flat:
        subprocess.run(["makedumpfile", "-F", "-E", core], stdout=flat, stderr=subprocess.DEVNULL, timeout=600, check=True)
    same(home / "flat", whole, "makedumpfile -F -E")


def packed(home, core, whole):
    for tool, *options in (["gzip", "-1", "-c"], ["zstd", "-1", "-q", "-c"]):
        with open(home / "packed", "wb") as file:
            subprocess.run([tool, *options, core], stdout=file, timeout=600, check=True)
        same(home / "packed", whole, f"the core in {tool}")
    before = set(Path(tempfile.gettempdir()).iterdir())
    done = run("uname", home / "packed", environment={"TMPDIR": tempfile.gettempdir()})
    expect(b"was unpacked into" in done.stderr, f"nothing tells where it was unpacked: {done.stderr}")
    expect(set(Path(tempfile.gettempdir()).iterdir()) <= before, "unpacking leaves files")


def full_disk(home):
    """Too small a file system is refused, and nothing is left on it."""
    with tempfile.TemporaryDirectory(prefix="vmsight-full-") as small:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", small], check=True)
        try:
            done = run("ps", home / "packed", environment={"TMPDIR": small})
            expect(done.returncode != 0 and b"no space" in done.stderr.lower(), f"a full disk: {done.stderr}")
            expect(not list(Path(small).iterdir()), "unpacking leaves files on a full disk")
        finally:
            subprocess.run(["umount", small], check=True)


def of_qemu(home, guest, whole):
    with guest.qmp() as qmp:
        known = qmp.command("query-dump-guest-memory-capability")["formats"]  # by what this QEMU was built with
        expect("kdump-zlib" in known, f"QEMU writes {known}")
        for kind in (name for name in known if name.startswith("kdump-")):
            path = home / "qemu.kdump"
            qmp.command("dump-guest-memory", paging=False, protocol=f"file:{path}", format=kind)
            read_as = same(path, whole, f"QEMU's {kind}")
            expect(read_as.startswith("kdump"), f"QEMU's {kind} is read as {read_as}")
            path.unlink()
        stream = home / "migration"
        qmp.command("migrate", uri=f"exec:cat > {stream}")
        while qmp.command("query-migrate").get("status") not in ("completed", "failed"):
            pass
    same(stream, whole, "QEMU's migration to a file")
    write_saved_domain(stream, home / "domain.save")
    same(home / "domain.save", whole, "a saved domain, compressed")


def images():
    with tempfile.TemporaryDirectory(prefix="vmsight-images-") as folder, \
         Guest(kernel="6.1-cloud", backend="memfd", cpus=2, mem="384M", name="images") as guest:
        home = Path(folder)
        core = home / "core"
        guest.puppet("workers 5")
        with guest.qmp() as qmp:
            qmp.command("stop")
        vmsight("snapshot", guest.pid, core)
        whole = state_of(core)
        expect(not whole["problems"], f"the core itself has problems: {whole['problems'][:5]}")
        ranges = write_lime(core, home / "lime")
        same(home / "lime", whole, "LiME")
        same(home / "lime.raw", whole, "LiME's format=raw", "--ranges", ranges)
        kdumps(home, core, whole)
        excluded_pages(home, core, whole)
        packed(home, core, whole)
        full_disk(home)
        of_qemu(home, guest, whole)


if __name__ == "__main__":
    main(images)
