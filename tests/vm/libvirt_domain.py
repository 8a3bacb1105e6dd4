#!/usr/bin/env python3
"""libvirt_domain.py - the truth about a domain of qemu:///system, found by the domain's name.

libvirt holds the monitor, so the layout of RAM must be derived.
"""
from harness import check_truth, expect, main, vmsight
from vmlab_lib.libvirt import LibvirtGuest


def libvirt_domain():
    for backend in ("memfd", "anon"):
        with LibvirtGuest(name=f"vmsight-test-{backend}", kernel="6.1-cloud", backend=backend, cpus=2) as guest:
            guest.puppet("workers 5")
            check_truth(guest)
            expect("puppet" in vmsight("ps", guest.name) or "/init" in vmsight("ps", guest.name),
                   "ps of the domain's name does not show its init")
            expect("libvirt" in vmsight("info", guest.name), "info does not say whose VM it is")


if __name__ == "__main__":
    main(libvirt_domain)
