"""What vmsight might leave behind in a QEMU process."""
import os
from pathlib import Path


def of_threads(pid):
    """Stopped or traced threads, children, cgroups of ours: what is wrong, or ""."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "status").read_text()
            children = (task / "children").read_text().strip()
            groups = (task / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a worker thread that ended just now
        if "\nTracerPid:\t0\n" not in status:
            return f"thread {task.name} is traced"
        if "\nState:\tT" in status or "\nState:\tt" in status:
            return f"thread {task.name} is stopped"
        if children:
            return f"thread {task.name} has children: {children}"
        if "/vmsight-" in groups:
            return f"thread {task.name} is in a cgroup of ours"
    return ""


def of_process(pid):
    """The same, and userfaultfds."""
    if wrong := of_threads(pid):
        return wrong
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("VmFlags:") and " uw" in line:
            return "memory is registered with a userfaultfd"
    if any("userfaultfd" in link for link in links(pid)):
        return "a userfaultfd is open"
    return ""


def links(pid):
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield os.readlink(fd)
        except OSError:
            pass


def settings(guest):
    """What a technique might leave changed in QEMU: the same before and after."""
    with guest.qmp() as qmp:
        return {
            "status": qmp.command("query-status")["status"],
            "capabilities": qmp.command("query-migrate-capabilities"),
            "bandwidth": qmp.command("query-migrate-parameters")["max-bandwidth"],
            # QEMU keeps the chardev of its gdbstub's own monitor (#chr...) from the first start on.
            "chardevs": sorted(device["label"] for device in qmp.command("query-chardev")
                               if not device["label"].startswith("#")),
            "fdsets": qmp.command("query-fdsets"),
            "files": sorted(link for link in links(guest.pid) if "vmsight" in link or "/tmp/#" in link),
        }


def difference(before, after):
    return ", ".join(f"{key}: {before[key]} became {after[key]}" for key in before if before[key] != after[key])
