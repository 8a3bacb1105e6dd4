#!/usr/bin/env python3
"""upgrade.py - the shipped rules while a Debian with systemd upgrades a package by dpkg, whose program runs.

The upgrade replaces the program's file, so that one rule says that a deleted program runs, and no other says anything;
the program of the new package is not told of when it is started. The emergency rules are off: QEMU 7.2 throws away all
code that it has translated whenever the gdbstub stops the guest, so that systemd, which meets their probes often, runs
a hundred times as long as it did and is said to spin.
"""
from harness import Guest, expect, main
from watch import quiet, settles, watching

CONTROL = "Package: lab-ticker\\nVersion: {0}\\nArchitecture: all\\nMaintainer: lab <lab@localhost>\\nDescription: a program\\n"
UNIT = "[Service]\\nExecStart=/usr/bin/lab-ticker {0}000\\n"
PACK = f"""cd /root && rm -rf p && mkdir -p p/DEBIAN p/usr/bin p/lib/systemd/system && printf '{CONTROL}' > p/DEBIAN/control &&
    printf '#!/bin/sh\\nsystemctl daemon-reload\\n' > p/DEBIAN/postinst && chmod 755 p/DEBIAN/postinst &&
    printf '{UNIT}' > p/lib/systemd/system/lab-ticker.service &&
    cp /bin/sleep p/usr/bin/lab-ticker && echo {{0}} >> p/usr/bin/lab-ticker && dpkg-deb -b p ticker-{{0}}.deb"""
PIDS = "systemctl show -p MainPID --value lab-ticker"


def command(guest, text, patience=300):
    said = guest.puppet(f"sh ({' '.join(text.split())}) 2>&1; echo status=$?", timeout=patience).decode(errors="replace")
    expect(said.strip().endswith("status=0"), f"{text}: {said}")
    return said.rsplit("status=", 1)[0].strip()


def upgraded(guest, watch):
    quiet(watch, 10)
    old = int(command(guest, PIDS))
    command(guest, "dpkg -i /root/ticker-2.deb")
    expect("2" in command(guest, "dpkg-query -W -f '${Version}' lab-ticker"), "it was not upgraded")

    def told():
        watch.read()
        return watch.alarms
    settles(told, "nothing is told of the old program", watch, 20)
    quiet(watch, 10)
    print(watch.alarms[0]["output"])
    expect([alarm["rule"] for alarm in watch.alarms] == ["deleted program runs"], [one["output"] for one in watch.alarms])
    expect(watch.alarms[0]["output_fields"]["pid"] == old, watch.alarms[0])

    command(guest, "systemctl restart lab-ticker")
    expect(int(command(guest, PIDS)) != old, "the service was not restarted")
    command(guest, "dpkg --purge lab-ticker && systemctl daemon-reload; journalctl -n 5 > /dev/null")
    quiet(watch, 10)


def test():
    with Guest(kernel="disk", firmware="seabios", mem="1G", backend="memfd", cpus=2, name="upgrade") as guest:
        for version in (1, 2):
            command(guest, PACK.format(version))
        command(guest, "dpkg -i /root/ticker-1.deb && systemctl start lab-ticker")
        with watching(guest, None, "--disable", "emergency") as watch:
            upgraded(guest, watch)
        guest.report()


if __name__ == "__main__":
    main(test)
