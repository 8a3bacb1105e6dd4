"""ip, ss, findmnt, lsmod, lscpu and dmesg of ours beside Debian's own in the guest, option by option.

`as_tools.py NAME` compares on a guest that runs (`vmlab boot --tools`) after the scenes.
"""
import contextlib
import json
import re

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

# With a name where there is a state: threads of the kernel that the guest's own ps wakes are left out by it.
PS = ["-ef", "-eLf", "-e", "-ej", "-eT", "-eL", "-efj", "aux", "ax", "axj", "axf", "auxc", "-efH", "axo pid,ppid,pgid,sid,tty,stat,ni,pri,comm",
      "-eo pid,uid,euid,gid,egid,nlwp,lstart,vsz,rss,sz", "-eo pid=,cls,rtprio=RT,f,tname --sort -pid",
      "--ppid 2 -o pid,args", "-N --ppid 2 -o pid,comm"]
PMAP = ["{}", "-x {}", "-d {}", "-q {}", "-x -q {}", "-p {}", "-A 4e0000,500000 {}"]
LSOF = ["-n -P", "-p 1", "-i -n -P", "-U", "-u 0", "-c init", "-d 0-2", "-d cwd", "+L1", "-t -d 0-2", "-a -p 1 -d txt",
        "-iTCP -sTCP:LISTEN -n -P", "-iUDP -n -P", "-i4 -n -P", "-c /^s.*s$/", "-p ^1 -d 0", "-R -p 1", "-g 0 -a -d 0"]
LSMOD = [""]
LSCPU = ["", "-e", "-p", "-a -e", "-b -p"]
DMESG = ["", "-T", "-x", "-t", "-d", "-e", "-r -k", "-l warn", "-k", "-u", "--time-format iso", "-f kern -l err,crit"]


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


def in_guest(guest, tool, options, errors="&1"):
    quoted = " ".join(f"'{word}'" for word in options.split())
    return guest.puppet(f"sh /usr/bin/{tool} {quoted} 2>{errors} || true").decode(errors="replace")


def as_theirs(guest, tool, every, known=lines):
    """How many lines were compared, of what does not move meanwhile."""
    return sum(same(f"{tool} {options}", known(in_guest(guest, tool, options)),
                    known(vmsight(tool, guest.pid, *options.split()))) for options in every)


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
    compared = as_theirs(guest, "findmnt", FINDMNT)
    expect(compared > 60, f"only {compared} lines of findmnt")
    print(f"findmnt: {compared} lines")


def as_lsmod(guest):
    def in_order(text):
        """Users of a module stand in the order of a directory there, of the kernel's list here."""
        return lines(re.sub(r"\S+$", lambda users: ",".join(sorted(users[0].split(","))), text, flags=re.M))

    compared = as_theirs(guest, "lsmod", LSMOD, in_order)
    print(f"lsmod: {compared} lines")


def as_lscpu(guest):
    def known(text):
        """Without what is no part of the kernel's memory (BIOS), what we tell in another way, the clock, which lscpu has
        no more, and caches that CPUs share, of which its summary counts one for each."""
        text = re.sub(r"(ONLINE|yes|no) +(MHZ|\d+\.\d+)$", r"\1", text, flags=re.M)
        return lines(text, lambda line: re.match(r"BIOS |Vulnerabilit|L3|Bugs:|CPU MHz|# [A-Zs]\w+ |# programs|#.*unique", line))

    compared = as_theirs(guest, "lscpu", LSCPU, known)
    print(f"lscpu: {compared} lines")


def as_dmesg(guest):
    compared = as_theirs(guest, "dmesg", DMESG)
    expect(compared > 1000, f"only {compared} lines of dmesg")
    print(f"dmesg: {compared} lines")


def between(guest, tool, options, known, theirs=""):
    """What moves: what the tool says both before and after, ours has to say in between; and nothing but what it says at
    one of the two moments, or what moved."""
    def asked():
        return lines(known(in_guest(guest, tool, f"{options} {theirs}".strip(), "/dev/null")))

    before, ours, after = asked(), lines(known(vmsight(tool, guest.pid, *options.split()))), asked()
    steady = [line for line in before if line in after]
    missing = [line for line in steady if line not in ours]
    moved = len(set(before + after)) - len(set(steady))
    extra = [line for line in ours if line not in before + after]
    if missing or len(extra) > moved:
        different.append(f"{tool} {options}: {len(missing)} lines of the guest's are missing, {len(extra)} are too many:\n"
                         + "\n".join([f"- {line}" for line in missing[:6]] + [f"+ {line}" for line in extra[:6]]))
    return len(steady)


USERS = {"root": "0", "daemon": "1", "bin": "2", "nobody": "65534"}  # names are in the guest's files


def as_ps(guest):
    headless = next((str(process["pid"]) for process in json.loads(vmsight("ps", guest.pid, "--json"))["processes"]
                     if process["comm"] == "headless"), "none")

    def known(text):
        """Without what is odd on purpose: names that no terminal may get, and a process whose main thread has ended, of
        which we tell more; and without what runs for the reports, whose share of a CPU goes up and down."""
        # The clock in the memory of a guest whose CPUs all sleep stands, a second at times, and with it their shares.
        text = re.sub(r"(?<= )\d?\d\.\d(?= +\d+\.\d )", "N.N", text)
        threads = r"( +\d+)" if "NLWP STIME" in text else "()"
        text = re.sub(r"(?<= )\d+" + threads + r" (\d\d:\d\d [^ ]+ +\d\d:\d\d:\d\d)", r"C\1 \2", text)
        text = re.sub(r"^(root|daemon|bin|nobody)\b", lambda user: USERS[user[0]], text, flags=re.M)
        return "\n".join(line for line in text.splitlines() if not re.search(r"red|odd|\) S \(|\[31m|headless|/usr/bin/ps|init|kworker|rcu_|softirq", line)
                         and headless not in line.split()[:2])

    compared = sum(between(guest, "ps", options, known) for options in PS)
    expect(compared > 500, f"only {compared} lines of ps")
    print(f"ps: {compared} lines")


def as_pmap(guest):
    def known(text):
        """pmap has no name for a heap and the kernel's pages."""
        return re.sub(r"\[(heap|vvar|vdso|vvar_vclock|vsyscall)\]", "[ anon ]", text)

    pids = [process["pid"] for process in json.loads(vmsight("ps", guest.pid, "--json"))["processes"]
            if process["comm"].startswith(("plain", "many"))]
    compared = sum(between(guest, "pmap", options.format(pids[0]), known) for options in PMAP)
    expect(compared > 50, f"only {compared} lines of pmap")
    print(f"pmap: {compared} lines")


def as_lsof(guest):
    def known(text):
        """Without other network namespaces and what another user's view would hide, pointers that the kernel hides from users, and odd names."""
        # A worker is called by what it did last: its pool is what stays (lab/vmlab_lib/excuses.py).
        text = re.sub(r"^(kworker/[^-+ ]*)\S*", r"\1", text, flags=re.M)
        text = re.sub(r"^(\S+ +\d+( +\d+)?( +\d+)? +)root\b", r"\g<1>0", text, flags=re.M)
        text = re.sub(r" 0x[0-9a-f]{16} +0t0 ", " 0,8 0t0 ", text)
        # A socket of netlink that is not bound stands in no table that lsof can look into.
        text = re.sub(r"(netlink|sock +0,8)( +0t0 +\d+) (ROUTE|protocol: NETLINK)$", r"netlink\2 ROUTE", text, flags=re.M)
        return "\n".join(line for line in text.splitlines() if not re.search(
            r"^container|^\) S|^\S+ +\d+ +\d+ +(helper|own files)|maps.*line|\[31m|\\xff|^many|^all|^headless|txt +unknown|^lsof|COMMAND|^sh | raw6? ", line))

    compared = sum(between(guest, "lsof", options, known, "+c 0") for options in LSOF)
    expect(compared > 300, f"only {compared} lines of lsof")
    print(f"lsof: {compared} lines")


def refusals(guest):
    """What ours do not know they say; none takes it for something else."""
    for tool, options in (("ip", "-j addr"), ("ip", "-d link"), ("ip", "-s -s link"), ("ip", "-b x"), ("ip", "-r addr"),
                          ("ip", "route"), ("ip", "addr add 10.0.0.1/8 dev lo"), ("ip", "link show vrf x"),
                          ("ip", "addr show scope nonsense"), ("ip", "addr show dev"),
                          ("ss", "-i"), ("ss", "-o"), ("ss", "-K"), ("ss", "-E"), ("ss", "-tan state nonsense"),
                          ("ss", "-t dport"), ("ss", "-t ( sport = :22"), ("ss", "-t nonsense"), ("ss", "-t src nohost.invalid"),
                          ("ss", "-t sport = :nonsense"), ("ss", "-A nonsense"), ("ss", "-f nonsense"),
                          ("findmnt", "-p"), ("findmnt", "-o LABEL"), ("findmnt", "-D"), ("findmnt", "a b c"),
                          ("findmnt", "-s"), ("findmnt", "-r -P"), ("lsmod", "-s"), ("dmesg", "-r -T"), ("dmesg", "-C"),
                          ("dmesg", "-l nonsense"), ("lscpu", "-e=NONSENSE"), ("ps", "-F -o pid"), ("lsof", "-c /[/")):
        done = run(tool, guest.pid, *options.split())
        expect(done.returncode == 2 and not done.stdout and done.stderr, f"{tool} {options} is not refused: {done}")


def as_tools(guest):
    as_ip(guest)
    as_findmnt(guest)
    as_ss(guest)
    as_lsmod(guest)
    as_lscpu(guest)
    as_dmesg(guest)
    as_ps(guest)
    as_pmap(guest)
    as_lsof(guest)
    refusals(guest)
    expect(not different, "\n".join(different))


if __name__ == "__main__":
    main(lambda name, *which: [check(Guest.attach(name)) for check in
                               ([globals()[one] for one in which] or [as_tools])])
