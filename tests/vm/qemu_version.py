#!/usr/bin/env python3
"""qemu_version.py VERSION - the truth under another QEMU of Debian's, unpacked, never installed."""
from harness import Guest, check_truth, main


def qemu_version(version):
    for backend in ("memfd", "anon"):
        for qmp in (True, False):
            with Guest(kernel="6.1-cloud", backend=backend, cpus=2, qmp=qmp, qemu=version,
                       name=f"qemu-{version}-{backend}-{qmp}") as guest:
                guest.puppet("workers 5")
                guest.puppet("sockets")
                check_truth(guest)


if __name__ == "__main__":
    main(qemu_version)
