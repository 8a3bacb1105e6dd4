"""vmlab: guests for tests, demonstrations and benchmarks."""

import argparse
import json
import sys

from . import guest as guests
from . import kernels, machine, nested
from .errors import LabError


def fetch(arguments):
    for name in arguments.kernel:
        kernel = kernels.fetch(name)
        print(f"{name:12} {kernel.release:28} {kernel.image}")


def boot(arguments):
    options = {key: value for key, value in vars(arguments).items() if key in machine.Options.__annotations__}
    guest = guests.Guest(name=arguments.name, **options).boot()
    print(f"{guest.name} pid {guest.pid} qmp {guest.qmp_path or '-'} directory {guest.home}")


def list_guests(_):
    for name in guests.names():
        try:
            guest = guests.Guest.attach(name)
            print(f"{name:24} pid {guest.pid:<8} {guest.options.kernel} {guest.options.machine} "
                  f"{guest.options.mem} {guest.options.backend} qmp {guest.qmp_path or '-'}")
        except LabError:
            print(f"{name:24} dead")


def stop(arguments):
    for name in guests.names() if arguments.all else arguments.name:
        try:
            guests.Guest.attach(name).stop()
        except LabError:
            guests.clear(name)


def report(arguments):
    json.dump(guests.Guest.attach(arguments.name).report(), sys.stdout, indent=1)
    print()


def puppet(arguments):
    answer = guests.Guest.attach(arguments.name).puppet(" ".join(arguments.command), arguments.timeout)
    sys.stdout.buffer.write(answer)


def reboot(arguments):
    guests.Guest.attach(arguments.name).reboot()


def host(arguments):
    def echo(data):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    command = " ".join(arguments.command)
    status, _ = nested.run(command, arguments.mem, arguments.cpus, arguments.timeout, arguments.kernel, echo,
                           arguments.counted)
    sys.exit(status)


def parser():
    top = argparse.ArgumentParser(prog="vmlab", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("fetch", help="fetch kernels into the cache")
    verb.add_argument("kernel", nargs="+", help=" ".join(kernels.KERNELS))
    verb.set_defaults(run=fetch)

    verb = verbs.add_parser("boot", help="boot a guest and leave it running")
    verb.add_argument("kernel", help="a kernel's short name, as 6.1-cloud; or disk: a Debian with "
                      "GRUB, systemd and swap on a disk")
    verb.add_argument("--firmware", default="seabios", choices=["seabios", "ovmf"], help="what boots a disk")
    verb.add_argument("--name", help="of the guest (default: KERNEL-N)")
    verb.add_argument("--machine", default="pc", help="pc, q35 or microvm")
    verb.add_argument("--mem", metavar="SIZE", help="default: 512M, for a disk 1G")
    verb.add_argument("--backend", default="anon", choices=machine.BACKENDS, help="what guest RAM is made of")
    verb.add_argument("--dimm", metavar="SIZE", help="a DIMM plugged in after boot")
    verb.add_argument("--cpus", type=int, default=1)
    verb.add_argument("--cpu", help="QEMU's -cpu")
    verb.add_argument("--la57", action=argparse.BooleanOptionalAction, help="five-level page tables")
    verb.add_argument("--pti", action="store_true", help="kernel page-table isolation")
    verb.add_argument("--append", default="", metavar="WORDS", help="more kernel command line")
    verb.add_argument("--qmp", action=argparse.BooleanOptionalAction, default=True, help="a monitor for the product")
    verb.add_argument("--qemu", metavar="PATH|VERSION")
    verb.add_argument("--accel", default="auto", choices=["auto", "tcg", "kvm"])
    verb.add_argument("--net", action="store_true", help="a virtio-net device at 10.0.2.15")
    verb.add_argument("--tools", action="store_true", help="Debian's ip, ss, ps, lsof and more (tools.py), and the scenes that need them")
    verb.add_argument("--agent", action="store_true", help="vmsight's agent and qemu-guest-agent, with their ports")
    verb.add_argument("--disk", metavar="RAW", help="a virtio-blk device with this image")
    verb.add_argument("--workloads", action="store_true", help="Debian's x264 and nginx at /debian, an empty disk, a network")
    verb.add_argument("--services", action="store_true", help="Debian's nginx, redis, cron and PostgreSQL at /debian, a network")
    verb.add_argument("--forward", type=int, default=0, metavar="PORT", help="of the host's loopback, to the guest's port 80")
    verb.set_defaults(run=boot)

    verb = verbs.add_parser("host", help="run a shell command on a nested host with real KVM")
    verb.add_argument("--kernel", default=nested.KERNEL)
    verb.add_argument("--mem", default="3G")
    verb.add_argument("--cpus", type=int, default=2)
    verb.add_argument("--timeout", type=float, default=900, metavar="SECONDS")
    verb.add_argument("--counted", action="store_true", help="its clocks count instructions: for costs, with --cpus 1")
    verb.add_argument("command", nargs="+")
    verb.set_defaults(run=host)

    verb = verbs.add_parser("list", help="guests")
    verb.set_defaults(run=list_guests)

    verb = verbs.add_parser("stop", help="end guests")
    verb.add_argument("name", nargs="*")
    verb.add_argument("--all", action="store_true")
    verb.set_defaults(run=stop)

    for name, run, text in (("report", report, "the guest's own view, as a state document"),
                            ("reboot", reboot, "warm reboot")):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("name")
        verb.set_defaults(run=run)

    verb = verbs.add_parser("puppet", help="a command to the guest's puppet; `help` lists them")
    verb.add_argument("--timeout", type=float, default=120)
    verb.add_argument("name")
    verb.add_argument("command", nargs=argparse.REMAINDER)
    verb.set_defaults(run=puppet)
    return top


def main():
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except LabError as error:
        print(f"vmlab: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    return 0
