#!/usr/bin/env python3
"""errors.py - what goes wrong is said in one line with a hint, with the right exit status."""
import os
import signal
import socket
import subprocess
import tempfile
import time

from harness import VMSIGHT, Guest, expect, main, run


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
    expect(run("nonsense").returncode == 2, "an unknown verb is a usage error")
    says(run("ps", str(os.getpid())), 1, "hint")
    with tempfile.NamedTemporaryFile() as empty:
        says(run("ps", empty.name), 3, "hint")
    with tempfile.NamedTemporaryFile() as noise:
        noise.write(os.urandom(1 << 20) * 16)
        noise.flush()
        says(run("ps", noise.name), 1, "kernel")


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
    expect("gone" in said or "ended" in said or "exited" in said, f"not clear: {said}")


def firmware_only():
    """A VM without any kernel: a clear error."""
    qemu = subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-display", "none", "-nodefaults", "-m", "64M",
                             "-name", "no-kernel"])
    try:
        deadline = time.monotonic() + 20
        while b"no VM" in (said := run("ps", "no-kernel").stderr) or b"RAM block" in said:
            expect(time.monotonic() < deadline, f"QEMU does not start: {said}")
        says(run("ps", "no-kernel"), 1, "kernel")
    finally:
        qemu.kill()
        qemu.wait()


def errors():
    bad_arguments()
    firmware_only()
    with Guest(kernel="6.1-cloud", backend="memfd", name="errors") as guest:
        held_monitor(guest)
        other_user(guest)
        paused(guest)
        full_disk(guest)
        dies_while_read(guest)
    with Guest(kernel="6.1-cloud", backend="anon", name="errors-anon") as guest:
        dies_while_read(guest)


if __name__ == "__main__":
    main(errors)
