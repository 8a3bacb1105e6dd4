#!/usr/bin/env python3
"""watch.py KERNEL... - rules fire on what is done in the guest, in time, and are silent when nothing is.

One rule of each kind, with short times. What is done is done by the guest's own shell; the alarm must name its PID.
"""
import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from harness import VMSIGHT, Guest, expect, main, run, vmsight

SECRET = """
- rule: opens secret
  desc: a file that nobody should open
  probe: kprobe:do_sys_openat2
  condition: filename == "/tmp/secret" and comm == cat
  output: "pid=%tgid opens %filename"
  priority: error
"""
RULES = SECRET + """
- rule: silent worker
  desc: a worker that started programs again and again does not any more
  heartbeat: {probe: "kprobe:kernel_clone", expect: 3s, grace: 5s, per: process}
  condition: cmdline contains worker
  output: "%comm pid=%pid silent for %silence"
  priority: critical
- rule: spinner
  desc: a program spins
  progress: {of: process, cpu: 20%, for: 3s}
  output: "pid=%pid spins at %symbol"
  priority: warning
- rule: deleted program
  desc: a deleted program runs
  state: {of: processes, when: present, every: 500ms}
  condition: exe endswith " (deleted)"
  output: "pid=%pid runs %exe"
  priority: warning
- rule: new listener
  desc: somebody listens
  state: {of: sockets, when: appeared, every: 500ms}
  condition: state == LISTEN and protocol == tcp
  output: "pid=%pid %proc.comm listens on port %local_port"
  priority: notice
"""
PATIENCE = 20  # seconds; each rule's own time is 5 s at most


class Watch:
    """A running `vmsight watch`, whose alarms can be waited for. Without rules it runs those that ship."""

    def __init__(self, guest, rules, *options):
        self.start(str(guest.pid), *(["--rules", rules] if rules else []), *options)

    def start(self, *arguments):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([VMSIGHT, "watch", *arguments, "--json"], stdout=subprocess.PIPE, stderr=self.errors)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.alarms, self.rest = [], b""

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace")

    def read(self):
        expect(self.process.poll() is None, f"watch has ended: {self.said()}")
        self.rest += self.process.stdout.read() or b""
        *lines, self.rest = self.rest.split(b"\n")
        self.alarms += map(json.loads, lines)

    def started(self, patience=PATIENCE):
        settles(lambda: "Ctrl-C ends" in self.said(), "watch does not begin", self, patience)

    def wait(self, rule, pid):
        def found():
            self.read()
            return [alarm for alarm in self.alarms if alarm["rule"] == rule and f"pid={pid} " in alarm["output"] + " "]
        begun = time.monotonic()
        settles(found, f"no alarm \"{rule}\" for {pid}; there are {[a['output'] for a in self.alarms]}", self)
        print(f"{rule}: {found()[0]['output']}; after {time.monotonic() - begun:.1f} s")
        return found()[0]

    def end(self):
        self.process.send_signal(signal.SIGINT)
        expect(self.process.wait(20) == 0, f"exit status {self.process.returncode}: {self.said()}")


@contextmanager
def watching(guest, rules, *options):
    """A Watch that has begun; it ends as by Ctrl-C, and without a failure with status 0."""
    watch = Watch(guest, rules, *options)
    try:
        watch.started()
        yield watch
        watch.end()
    finally:
        watch.process.kill()
        watch.process.wait()


def settles(condition, message, watch, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        expect(time.monotonic() < deadline, f"{message}; {watch.said()}")
        time.sleep(0.05)


def shell(guest, command):
    return guest.puppet("sh " + command, timeout=60).decode(errors="replace")


def start(guest, command):
    """The PID of what runs on."""
    return int(shell(guest, f"{command} > /dev/null 2>&1 & echo $!").split()[-1])


def quiet(watch, seconds):
    watch.read()
    before = len(watch.alarms)
    time.sleep(seconds)
    watch.read()
    expect(len(watch.alarms) == before, f"alarms without a cause: {watch.alarms[before:]}")


def injections(guest, watch):
    worker = start(guest, "sh -c 'while :; do sleep 0.2; done' worker")
    quiet(watch, 10)  # it beats, and nothing else is wrong

    shell(guest, "echo x > /tmp/secret; cat /tmp/secret; head /tmp/secret")
    settles(lambda: watch.read() or any(a["rule"] == "opens secret" for a in watch.alarms), "no alarm of the probe", watch)
    opened = [a for a in watch.alarms if a["rule"] == "opens secret"]
    expect(len(opened) == 1 and opened[0]["priority"] == "Error", opened)
    expect("/tmp/secret" in opened[0]["evidence"]["arguments"]["filename"], opened[0]["evidence"])

    spinner = start(guest, "sh -c 'while :; do :; done'")
    alarm = watch.wait("spinner", spinner)
    expect(alarm["evidence"]["process"]["pid"] == spinner, alarm["evidence"])
    shell(guest, f"kill -9 {spinner}")

    program = start(guest, "sh -c 'cp /bin/busybox /tmp/busybox-gone; exec /tmp/busybox-gone sleep 1000'")
    shell(guest, "sleep 0.5; rm /tmp/busybox-gone")
    watch.wait("deleted program", program)

    listener = start(guest, "nc -l -p 4321")
    watch.wait("new listener", listener)

    shell(guest, f"kill -STOP {worker}")
    watch.wait("silent worker", worker)
    shell(guest, f"kill -CONT {worker}; kill -9 {program} {listener}")
    quiet(watch, 5)
    shell(guest, f"kill -STOP {worker}")
    settles(lambda: watch.read() or len([a for a in watch.alarms if a["rule"] == "silent worker"]) == 2,
            "a second silence is no second alarm", watch)
    shell(guest, f"kill -9 {worker}")


def paused(guest, watch):
    """Somebody pauses the VM for longer than any rule's time: no alarm, and the rules go on, those with probes too."""
    worker = start(guest, "sh -c 'while :; do sleep 0.2; done' worker")
    quiet(watch, 3)
    with guest.qmp() as qmp:
        qmp.command("stop")
        time.sleep(8)
        watch.read()
        before = list(watch.alarms)
        qmp.command("cont")
    quiet(watch, 3)
    expect(watch.alarms == before, watch.alarms)
    shell(guest, f"cat /tmp/secret; kill -STOP {worker}")
    settles(lambda: watch.read() or len(watch.alarms) > len(before), "no alarm of the probe after the pause", watch)
    watch.wait("silent worker", worker)
    shell(guest, f"kill -9 {worker}")


def killed(guest, rules):
    """What is left when it is killed is undone by its guard."""
    watch = Watch(guest, rules)
    watch.started()
    watch.process.kill()
    watch.process.wait()
    shell(guest, "cat /tmp/secret")
    left = vmsight("doctor", "--recover", guest.pid)
    expect("not undone" not in left, left)


def rejected():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("- rule: a\n  desc: d\n  output: o\n  priority: warning\n  state: {of: processes, when: present}\n  condition: pid startswith 3\n")
        file.flush()
        done = run("watch", "--check", file.name)
        expect(done.returncode == 1 and f"{file.name}:6".encode() in done.stdout, done)


def test(*kernels):
    rejected()
    expect("all is well" in vmsight("watch", "--check", Path(__file__).parents[2] / "rules"), "shipped rules are wrong")
    for kernel in kernels:
        watched(kernel)


def watched(kernel):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, Guest(kernel=kernel, backend="memfd", cpus=2) as guest:
        file.write(RULES)
        file.flush()
        watch = Watch(guest, file.name)
        watch.started()
        injections(guest, watch)
        paused(guest, watch)
        watch.end()
        killed(guest, file.name)
        guest.report()  # it lives


if __name__ == "__main__":
    main(test)
