"""ip, ss and findmnt of ours beside Debian's own in the guest, option by option.

`as_tools.py NAME` compares on a guest that runs (`vmlab boot --tools`) after the scenes.
"""
import contextlib
import json
import re
import sys

from harness import Guest, expect, main, run, vmsight
from vmlab_lib.errors import LabError

SCENES = ["sockets", "network", "mounts"]
DIAGS = ["tcp_diag", "udp_diag", "raw_diag", "unix_diag", "packet_diag", "netlink_diag"]
IP = ["addr", "link", "-br addr", "-br link", "-o link", "-o addr", "-4 addr", "-6 addr", "-4 -o addr show up",
      "addr show dev br0", "addr show br0", "link show type veth", "link show type vlan", "link show master br0",
      "link show dev spare-one", "addr show scope link", "addr show to 10.9.0.0/16", "addr show label br0*",
      "addr show deprecated", "addr show tentative", "addr show secondary", "addr show permanent", "addr show dynamic",
      "-f inet6 addr", "link show group 7"]
SS = ["-tan", "-lt -n", "-tn", "-uan", "-lun", "-wan", "-0an", "-xan", "-xn", "-lx -n", "-an -4", "-an -6",
      "-tan state listening", "-tan state connected", "-tan state bucket", "-tan exclude listening", "-tan state close-wait",
      "-an -A unix_stream,raw", "-an -f inet6 -u", "-tan sport ge :1024", "-tan dst 127.0.0.1",
      "-tan dst [::1] and not sport lt :1024", "-tan ( src 127.0.0.0/8 or src [::1] ) and dst [::1]", "-uan dev = lo",
      "-tan dev = lo", "-tanH", "-tanmO"]
FINDMNT = ["-rn -o TARGET,SOURCE,FSTYPE,OPTIONS", "-rn -o ID,VFS-OPTIONS,FS-OPTIONS,OPT-FIELDS,PROPAGATION,FSROOT,MAJ:MIN",
           "-rn -t tmpfs", "-rn -t notmpfs,proc", "-P -O ro", "-rn -O nosize", "-rn -v /m/slave", "-n -o TARGET -T /m/slave",
           "-rn shared /m/both", "-rn -S proc", "-rn -M /m/pts", "-r -R /sys", "-l", "-a -t tmpfs --tree"]


def words(line):
    """What a line says: not how it is padded, nor how many seconds are left since."""
    return re.sub(r"\d+sec", "Nsec", " ".join(line.split()))


def lines(text, ignored=lambda line: False):
    return sorted(words(line) for line in text.splitlines() if line.strip() and not ignored(words(line)))


different = []  # what differs, all of which is told at the end


def same(what, theirs, ours):
    missing, extra = [line for line in theirs if line not in ours], [line for line in ours if line not in theirs]
    if missing or extra:
        different.append(f"{what}: {len(missing)} lines of the guest's are missing, {len(extra)} are too many:\n"
                         + "\n".join([f"- {line}" for line in missing[:6]] + [f"+ {line}" for line in extra[:6]]))
    return len(theirs)


def in_guest(guest, tool, options):
    quoted = " ".join(f"'{word}'" for word in options.split())
    return guest.puppet(f"sh /usr/bin/{tool} {quoted} 2>&1 || true").decode(errors="replace")


def root_namespace(guest):
    processes = json.loads(vmsight("ps", guest.pid, "--json"))["processes"]
    return next(process["netns"] for process in processes if process["pid"] == 1)


def as_ip(guest):
    netns = root_namespace(guest)
    compared = 0
    for options in IP:
        ours = vmsight("ip", guest.pid, *options.split(), "--netns", netns)
        compared += same(f"ip {options}", lines(in_guest(guest, "ip", options)), lines(ours))
    other = vmsight("ip", guest.pid, "-n", "other", "addr")
    compared += same("ip -n other", lines(in_guest(guest, "ip", "-n other addr")), lines(other))
    expect(compared > 300, f"only {compared} lines of ip")
    print(f"ip: {compared} lines")


def not_in_both(line):
    """Sockets that stand in no table, which ss cannot see; and headings, whose words run together in narrow columns."""
    return bool(re.search(r"(0\.0\.0\.0|\*):\* (0\.0\.0\.0|\*):\*", line) or "Local Address:Port" in line)


def named_raw(text):
    """Debian's ss has no name for raw sockets but those of ICMPv6."""
    return re.sub(r"^(\?\?\?  |icmp6)", "raw  ", text, flags=re.M)


def as_ss(guest):
    for module in DIAGS:
        with contextlib.suppress(LabError):  # it may be built in
            guest.puppet(f"module {module}")
    netns = root_namespace(guest)
    compared = 0
    for options in SS:
        ours = vmsight("ss", guest.pid, "-N", netns, *options.split())
        compared += same(f"ss {options}", lines(named_raw(in_guest(guest, "ss", options)), not_in_both),
                         lines(ours, not_in_both))
    expect(compared > 200, f"only {compared} lines of ss")
    print(f"ss: {compared} lines")


def as_findmnt(guest):
    compared = 0
    for options in FINDMNT:
        ours = vmsight("findmnt", guest.pid, *options.split())
        compared += same(f"findmnt {options}", lines(in_guest(guest, "findmnt", options)), lines(ours))
    expect(compared > 60, f"only {compared} lines of findmnt")
    print(f"findmnt: {compared} lines")


def refusals(guest):
    """What ours do not know they say; none takes it for something else."""
    for tool, options in (("ip", "-j addr"), ("ip", "-d link"), ("ip", "-s -s link"), ("ip", "-b x"), ("ip", "-r addr"),
                          ("ip", "route"), ("ip", "addr add 10.0.0.1/8 dev lo"), ("ip", "link show vrf x"),
                          ("ip", "addr show scope nonsense"), ("ip", "addr show dev"),
                          ("ss", "-i"), ("ss", "-o"), ("ss", "-K"), ("ss", "-E"), ("ss", "-tan state nonsense"),
                          ("ss", "-t dport"), ("ss", "-t ( sport = :22"), ("ss", "-t nonsense"), ("ss", "-t src nohost.invalid"),
                          ("ss", "-t sport = :nonsense"), ("ss", "-A nonsense"), ("ss", "-f nonsense"),
                          ("findmnt", "-p"), ("findmnt", "-o LABEL"), ("findmnt", "-D"), ("findmnt", "a b c"),
                          ("findmnt", "-s"), ("findmnt", "-r -P")):
        done = run(tool, guest.pid, *options.split())
        expect(done.returncode == 2 and not done.stdout and done.stderr, f"{tool} {options} is not refused: {done}")


def as_tools(guest):
    as_ip(guest)
    as_findmnt(guest)
    as_ss(guest)
    refusals(guest)
    expect(not different, "\n".join(different))


if __name__ == "__main__":
    main(lambda name, *which: [check(Guest.attach(name)) for check in
                               ([globals()[one] for one in which] or [as_tools])])
