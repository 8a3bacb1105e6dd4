"""Programs in the guest that vmsight may ask: its own agent, and Debian's stock qemu-guest-agent."""

import re
from pathlib import Path

from .apt import PrivateApt, cache_dir, kept, run
from .programs import collect

SOURCES = Path(__file__).resolve().parents[2] / "src"
PORTS = {"agent": "org.vmsight.agent.0", "qga": "org.qemu.guest_agent.0"}  # socket in the guest's directory: port
SUITE = "bookworm"
# Of what the package needs, not wanted here: only its libraries are.
LEFT_OUT = re.compile(r"perl|dpkg|tar=|usrmerge|gdbm|libdb|init-system")

# The ports come up some time after their driver is loaded, one by one; where KVM is emulated, after seconds.
START = """attempt=0
while [ $attempt -lt 600 ]; do
  for port in /sys/class/virtio-ports/*; do
    case $(cat $port/name) in
      org.vmsight.agent.0) agent=/dev/${port##*/};;
      org.qemu.guest_agent.0) qga=/dev/${port##*/};;
    esac
  done
  [ "$agent" ] && [ "$qga" ] && break
  attempt=$((attempt + 1))
  sleep 0.1
done
vmsight-agent $agent &
qemu-ga -p $qga -t /run -l /run/qemu-ga.log &
"""


def sources():
    return sorted((SOURCES / "agent/program").glob("*.[ch]*"))


def build_vmsight_agent(digest):
    """Our agent, compiled once per state of its sources, as CMakeLists.txt does it."""
    program = cache_dir() / f"vmsight-agent-{digest(*(path.read_bytes() for path in sources()))}"
    if not program.exists():
        partial = program.with_suffix(".partial")
        code = [path for path in sources() if path.suffix == ".cpp"]
        run("g++", "-std=c++20", "-Os", "-fno-exceptions", "-fno-rtti", "-static", "-s", "-I", SOURCES, "-o", partial, *code)
        partial.replace(program)
    return program


def guest_agent():
    """{path in the guest: bytes} of qemu-ga and all that it loads."""
    home = cache_dir() / f"qemu-ga-{SUITE}"

    def fetch():
        apt = PrivateApt()
        packages = apt.closure_in(SUITE, ["qemu-guest-agent"])
        apt.unpack([package for package in packages if not LEFT_OUT.search(package)], home)

    kept(home, fetch)
    return collect(home, {"bin/qemu-ga": next(home.glob("usr/sbin/qemu-ga"))})


def files(digest):
    """{path in the guest: (bytes, executable)}"""
    found = {path: (data, True) for path, data in guest_agent().items()}
    found["bin/vmsight-agent"] = (build_vmsight_agent(digest).read_bytes(), True)
    found["etc/start"] = (START.encode(), False)
    return found


def devices(home):
    arguments = []
    for socket, port in PORTS.items():
        arguments += ["-chardev", f"socket,id={socket},path={home / socket},server=on,wait=off",
                      "-device", f"virtserialport,chardev={socket},name={port}"]
    return arguments
