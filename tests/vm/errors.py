#!/usr/bin/env python3
"""errors.py - what goes wrong is said in one line with a hint, with the right exit status."""
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import ROOT, VMSIGHT, Guest, expect, main, run, vmsight


def says(done, status, *words):
    said = done.stderr.decode()
    expect(done.returncode == status, f"{done.args}: exit status {done.returncode}, expected {status}: {said}")
    for word in words:
        expect(word in said.lower(), f"{done.args}: no {word!r} in: {said}")
    lines = [line for line in said.splitlines() if line]
    expect(len(lines) <= 2 and lines[0].startswith("vmsight"), f"not one line and a hint: {said}")


def bad_arguments():
    says(run("ps", "no-such-vm"), 1, "no-such-vm", "hint")
    expect(run("ps").returncode == 2, "a missing VM is a usage error")
    says(run("nonsense"), 2, "'nonsense'", "hint", " ps ", " study")
    says(run("help", "nonsense"), 2, "'nonsense'", "hint", " ps ", " study")
    says(run("help", "ps", "lsof"), 2, "hint")
    says(run("read", "no-such-vm", "0x0", "--json"), 2, "no --json", "--raw")
    says(run("ps", str(os.getpid())), 1, "hint")
    says(run("ps", "/no/such/image"), 1, "/no/such/image", "no such file", "hint")
    says(run("ps", "./image"), 1, "no such file", "hint")
    says(run("ps", "/dev/null"), 1, "neither", "hint")
    says(run("study", "loop", "web1", environment={"VMSIGHT_STUDY": "/no/such/program"}), 1, "/no/such/program is not there", "hint")
    says(run("study", "loop", "no-such-vm"), 1, "no-such-vm", "hint")
    with tempfile.NamedTemporaryFile() as empty:
        says(run("ps", empty.name), 3, "hint")
    with tempfile.NamedTemporaryFile() as noise:
        noise.write(os.urandom(1 << 20) * 16)
        noise.flush()
        says(run("ps", noise.name), 1, "kernel")


def wrong_words(guest):
    """What does not exist in the guest, or makes no sense: said before anything is printed."""
    vm = guest.pid
    for words, status, *expected in (
            (("ps", vm, "--pid", "99999"), 1, "no process 99999", "hint"),
            (("ps", vm, "-o", "nonsense"), 2, "unknown column", "hint"),
            (("lsof", vm, "-p", "99999"), 1, "no process 99999", "hint"),
            (("pmap", vm), 2, "no pid", "hint"),
            (("ss", vm, "--state", "nonsense"), 2, "unknown state", "time-wait"),
            (("ss", vm, "--pid", "99999"), 1, "no process 99999", "hint"),
            (("ip", vm, "addr", "eth77"), 1, "eth77", "hint"),
            (("findmnt", vm, "/nonsense"), 1, "no such mount", "hint"),
            (("findmnt", vm, "--mntns", "1"), 1, "no such mount", "hint"),
            (("dmesg", vm, "--since", "nonsense"), 2, "not a time", "hint"),
            (("stack", vm, "99999"), 1, "no process 99999", "hint"),
            (("state", vm, "--repeat", "0"), 2, "'0' is not a number above 0", "hint"),
            (("monitor", vm, "--parts", "nonsense"), 2, "nonsense", "hint"),
            (("snapshot", vm, "/dev/null"), 2, "not a regular file", "hint"),
            (("read", vm, "0xdeadbeef"), 1, "gva:0xdeadbeef", "--pid"),
            (("read", vm, "linux_banner", "nonsense"), 2, "not a number", "hint"),
            (("sym", vm, "nonsense"), 1, "no symbol", "hint"),
            (("type", vm, "nonsense"), 1, "nonsense", "hint"),
            (("print", vm, "nonsense"), 1, "no symbol", "--at"),
            (("print", vm, "struct nonsense", "--at", "init_task"), 1, "no such type", "hint"),
            (("print", vm, "*init_task"), 2, "needs a pointer", "hint"),
            (("ps", vm, "--technique", "nonsense"), 2, "nonsense", "live-read"),
            (("ps", vm, "--kernel", "7"), 1, "no such kernel", "0:"),
    ):
        done = run(*map(str, words))
        says(done, status, *expected)
        expect(not done.stdout, f"{words}: something printed beside the error: {done.stdout[:200]}")


def without_types(guest):
    """A kernel without BTF: what was found is named, and what is missing."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        image = f"{folder}/guest.raw"
        vmsight("snapshot", guest.pid, image, "--format", "raw")
        start, end = (int(vmsight("sym", image, name).split()[0], 16) for name in ("__start_BTF", "__stop_BTF"))
        delta = int(json.loads(vmsight("info", image, "--json"))["kernel"]["image_delta"], 16)
        with open(image, "r+b") as ram:
            ram.seek(start - delta)
            expect(ram.read(4) == b"\x9f\xeb\x01\0", "the types are elsewhere")
            ram.seek(-4, os.SEEK_CUR)
            ram.write(bytes(end - start))
        says(run("ps", image), 3, "linux version", "no btf", "config_debug_info_btf")


def held_monitor(guest):
    """Somebody else has the QMP socket: the layout is derived, the answer is the same."""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.qmp_path))
        other.recv(4096)
        done = run("ps", str(guest.pid))
        expect(done.returncode == 0, f"a held monitor stops us: {done.stderr.decode()}")


def other_user(guest):
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", VMSIGHT, "ps",
                           str(guest.pid)], capture_output=True, check=False)
    if b"setpriv" in done.stderr or b"Permission denied" in done.stderr and b"vmsight" not in done.stderr:
        return  # the program itself is out of that user's reach on this machine
    says(done, 3 if done.returncode == 3 else 1, "hint")


def paused(guest):
    with guest.qmp() as qmp:
        qmp.command("stop")
        done = run("ps", str(guest.pid))
        qmp.command("cont")
    expect(done.returncode == 0 and b"puppet" in done.stdout + b"puppet", "a paused guest can be read")


def full_disk(guest):
    done = subprocess.run([VMSIGHT, "state", str(guest.pid), "--json"], stdout=open("/dev/full", "wb"),
                          stderr=subprocess.PIPE, check=False)
    says(done, 1, "no space left")


def dies_while_read(guest):
    """SIGKILL to QEMU while states are read: one clear error, no crash, no hang."""
    reader = subprocess.Popen([VMSIGHT, "state", str(guest.pid), "--json", "--repeat", "1000000"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    reader.stdout.readline()
    os.kill(guest.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    drain = subprocess.Popen(["cat"], stdin=reader.stdout, stdout=subprocess.DEVNULL)
    said = reader.stderr.read().decode()
    reader.wait(max(1, deadline - time.monotonic()))
    drain.wait()
    expect(reader.returncode == 1, f"exit status {reader.returncode}: {said}")
    expect(len(said.splitlines()) == 2 and "hint:" in said, f"not one line and a hint: {said}")
    expect("gone" in said or "ended" in said or "exited" in said, f"not clear: {said}")


@contextlib.contextmanager
def firmware(program, name, *words):
    """A QEMU without any kernel, started by a program of this name."""
    # A copy elsewhere looks for its modules and firmware beside itself.
    modules = "".join(glob.glob("/usr/lib/*/qemu/accel-tcg-x86_64.so")[:1])
    qemu = subprocess.Popen([program, "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
                             "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", "-name", name, *words],
                            env={**os.environ, "QEMU_MODULE_DIR": os.path.dirname(modules)})
    try:
        deadline = time.monotonic() + 20
        while b"find a kernel" not in (said := run("ps", qemu.pid).stderr):
            expect(time.monotonic() < deadline and qemu.poll() is None, f"QEMU does not start: {said}")
        yield qemu.pid
    finally:
        qemu.kill()
        qemu.wait()


def firmware_only():
    """A VM without any kernel: a clear error."""
    with firmware("qemu-system-x86_64", "no-kernel"):
        says(run("ps", "no-kernel"), 1, "kernel")


def listed():
    return {vm["pid"]: vm["name"] for vm in json.loads(run("list", "--json").stdout)["vms"]}


def renamed_program():
    """A QEMU whose program is called otherwise is listed, and found by its name."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        for program in (".qemu-system-x86_64-wrapped", "emulator"):
            path = shutil.copy(shutil.which("qemu-system-x86_64"), f"{folder}/{program}")
            with firmware(path, f"renamed {program}") as pid:
                expect(listed().get(pid) == f"renamed {program}", f"{program} is not listed: {listed()}")
                says(run("ps", f"renamed {program}"), 1, "kernel")
        # The same arguments alone make no VM.
        with subprocess.Popen(["sleep", "1000", "-accel", "tcg"], executable="/bin/cat",
                              stdin=subprocess.PIPE) as other:
            expect(other.pid not in listed(), "a program with QEMU's arguments is listed")
            other.kill()


def completed(*words):
    """What bash would put into the line of the shell."""
    script = ROOT / "packaging" / "vmsight.bash"
    quoted = " ".join(f"'{word}'" for word in ("vmsight", *words))
    done = subprocess.run(["bash", "-c", f"source {script}; compopt() {{ :; }}; COMP_WORDS=({quoted}); "
                           f'COMP_CWORD={len(words)}; _vmsight; printf "%s\\n" "${{COMPREPLY[@]}}"'],
                          capture_output=True, text=True, check=True, cwd="/",
                          env={**os.environ, "PATH": f"{Path(VMSIGHT).resolve().parent}:{os.environ['PATH']}"})
    return done.stdout.splitlines()


def hostile_names():
    """Whoever starts a VM chooses its name; completion puts it into the command line of whoever types."""
    for name in ("x;touch /tmp/vmsight-was-here", "$(reboot)", "`reboot`", "-x", "~root", "a b", "n\nm", "q'q", "|sh"):
        with firmware("qemu-system-x86_64", name) as pid:
            offered = completed("ps", "")
            expect(str(pid) in offered, f"{name!r}: not offered by its PID: {offered}")
            for word in offered:
                expect(re.fullmatch(r"[A-Za-z0-9._+:@/][A-Za-z0-9._+:@/-]*", word), f"{name!r}: offered as {word!r}")
            expect(name[0] not in completed("ps", name[:1]), f"{name!r} is completed")
    with firmware("qemu-system-x86_64", "plain-name.1"):
        expect(completed("ps", "plain-n") == ["plain-name.1"], "a plain name is not offered")


def errors():
    bad_arguments()
    firmware_only()
    renamed_program()
    hostile_names()
    with Guest(kernel="6.1-cloud", backend="memfd", name="errors") as guest:
        wrong_words(guest)
        without_types(guest)
        held_monitor(guest)
        other_user(guest)
        paused(guest)
        full_disk(guest)
        dies_while_read(guest)
    with Guest(kernel="6.1-cloud", backend="anon", name="errors-anon") as guest:
        dies_while_read(guest)


if __name__ == "__main__":
    main(errors)
