#!/usr/bin/env python3
"""changes.py KERNEL... - the shipped rules about what is there, or has come, fire on it, once, and are silent before.

A program that is deleted while it runs, a listener, a packet socket, a module, a user who becomes root; then a string of
the kernel's is changed from outside, which is a finding of its integrity.
"""
import tempfile
import time
from pathlib import Path

from check import Memory, symbol
from harness import Guest, expect, main
from stuck import stick
from watch import Watch, quiet, settles, shell, start

RULES = Path(__file__).parents[2] / "rules"


def told(watch, rule, fields, patience):
    begun = time.monotonic()

    def found():
        watch.read()
        return [alarm for alarm in watch.alarms if alarm["rule"] == rule
                and all(alarm["output_fields"].get(key) == value for key, value in fields.items())]
    settles(found, f"no alarm \"{rule}\" with {fields}; there are {[a['output'] for a in watch.alarms]}", watch, patience)
    time.sleep(0.5)
    expect(len(found()) == 1, found())
    print(f"{rule}: {found()[0]['output']}; after {time.monotonic() - begun - 0.5:.1f} s")
    return found()[0]


def scenes(guest, watch):
    quiet(watch, 12)
    program = start(guest, "sh -c 'cp /bin/busybox /tmp/busybox-gone; exec /tmp/busybox-gone sleep 1000'")
    shell(guest, "sleep 0.5; rm /tmp/busybox-gone")
    alarm = told(watch, "deleted program runs", {"pid": program}, 5)
    expect(alarm["evidence"]["process"]["pid"] == program, alarm["evidence"])

    listener = start(guest, "nc -l -p 4321")
    alarm = told(watch, "new listener", {"pid": listener, "local_port": 4321}, 5)
    expect(any(socket["state"] == "LISTEN" for socket in alarm["evidence"]["sockets"]), alarm["evidence"])

    sender = stick(guest, "sent")
    told(watch, "listener of no process", {"local_port": 4323}, 20)

    sniffer = start(guest, "udhcpc -f -i lo -t 1000 -T 100 -s /bin/true")
    told(watch, "packet socket", {"pid": sniffer}, 5)

    guest.puppet("module dummy")
    told(watch, "module loaded", {"name": "dummy"}, 5)

    user = stick(guest, "root")
    told(watch, "user became root", {"pid": user, "uid": 1000}, 10)

    with Memory(guest).changed((symbol(guest, "modprobe_path"), b"/tmp/x\0")):
        told(watch, "kernel integrity", {"check": "usermode-helpers"}, 25)
    shell(guest, f"kill -9 {program} {listener} {sender} {sniffer} {user}")
    before = len(watch.alarms)
    quiet(watch, 12)
    expect(len(watch.alarms) == before, watch.alarms[before:])


def test(*kernels):
    for kernel in kernels:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules, Guest(kernel=kernel, backend="memfd", cpus=2) as guest:
            rules.write((RULES / "state.yaml").read_text() + (RULES / "integrity.yaml").read_text())
            rules.flush()
            watch = Watch(guest, rules.name)
            watch.started()
            scenes(guest, watch)
            watch.end()
            guest.report()


if __name__ == "__main__":
    main(test)
