"""The network as the guest sees it: devices from rtnetlink, sockets from /proc/net joined with files."""

import re
import struct
from socket import AF_INET, AF_INET6, inet_ntop

from .words import text

TCP_STATES = ["", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
              "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"]
DEVICE_FLAGS = ["UP", "BROADCAST", "DEBUG", "LOOPBACK", "POINTOPOINT", "NOTRAILERS", "RUNNING", "NOARP", "PROMISC",
                "ALLMULTI", "MASTER", "SLAVE", "MULTICAST", "PORTSEL", "AUTOMEDIA", "DYNAMIC", "LOWER_UP", "DORMANT",
                "ECHO"]
INET_TABLES = {"tcp": ("inet", "tcp"), "tcp6": ("inet6", "tcp"), "udp": ("inet", "udp"), "udp6": ("inet6", "udp"),
               "udplite": ("inet", "udplite"), "raw": ("inet", "raw"), "raw6": ("inet6", "raw"),
               "icmp": ("inet", "icmp")}
# What getxattr(system.sockprotoname) calls sockets that stand in no table (unbound ones).
PROTOCOL_NAMES = {"TCP": ("inet", "tcp"), "TCPv6": ("inet6", "tcp"), "UDP": ("inet", "udp"), "UDPv6": ("inet6", "udp"),
                  "RAW": ("inet", "raw"), "RAWv6": ("inet6", "raw"), "PING": ("inet", "icmp"),
                  "UNIX": ("unix", "unix"), "UNIX-STREAM": ("unix", "unix"), "NETLINK": ("netlink", "netlink"),
                  "PACKET": ("packet", "packet"), "MPTCP": ("inet", "mptcp"), "MPTCPv6": ("inet6", "mptcp")}

OPER_STATES = ["UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP"]
# IFA_F_* as `ip addr` calls them; an address that is not permanent (0x80) is dynamic.
ADDRESS_FLAGS = {0x01: "secondary", 0x02: "nodad", 0x04: "optimistic", 0x08: "dadfailed", 0x10: "home", 0x20: "deprecated",
                 0x40: "tentative", 0x100: "mngtmpaddr", 0x200: "noprefixroute", 0x400: "autojoin",
                 0x800: "stable-privacy"}
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
LINK_TYPES = {1: "ether", 768: "ipip", 772: "loopback", 776: "sit", 778: "gre", 65534: "none"}


def address_text(raw):
    return inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, bytes(raw))


def namespaces(report):
    return sorted({int(match[1]) for path in report if (match := re.match(r"net/(\d+)/", path))})


def table(report, netns, name):
    data = report.get(f"net/{netns}/{name}")
    return data if isinstance(data, bytes) else b""


# ---- devices ----

def messages(data):
    """(type, payload) of netlink messages in a row."""
    at = 0
    while at + 16 <= len(data):
        size, kind = struct.unpack_from("<IH", data, at)
        if size < 16:
            return
        yield kind, data[at + 16:at + size]
        at += size + 3 & ~3


def attributes(data):
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("<HH", data, at)
        if size < 4:
            break
        found[kind & 0x3fff] = data[at + 4:at + size]
        at += size + 3 & ~3
    return found


def word(values, kind, default=0):
    """A number of one or four bytes among attributes."""
    return int.from_bytes(values[kind], "little") if kind in values else default


def string(values, kind):
    return text(values.get(kind, b"").rstrip(b"\0"))


def devices(report):
    found = []
    for netns in namespaces(report):
        addresses = device_addresses(table(report, netns, "addresses"))
        here = [device(netns, payload, addresses) for kind, payload in messages(table(report, netns, "links"))
                if kind == 16]  # RTM_NEWLINK
        names = {record["ifindex"]: record["name"] for record in here}
        for record in here:
            record["master"] = names.get(record["master_index"], "")
            other = record["link_netnsid"] is None and record["link_index"] != record["ifindex"]
            record["link"] = names.get(record["link_index"], "") if other else ""
        found += here
    return found


def device(netns, payload, addresses):
    """What RTM_NEWLINK says; the numbers are those of IFLA_*."""
    kind, index, flags = struct.unpack_from("<HiI", payload, 2)
    values = attributes(payload[16:])
    counters = struct.unpack_from("<4Q", values[23]) if 23 in values else [None] * 4
    own = [address for family in (2, 10) for address in addresses.get((index, family), [])]
    return {
        "name": string(values, 3), "netns": netns, "hwaddr": values.get(1, b"").hex(":"),
        "flags": [name for bit, name in enumerate(DEVICE_FLAGS) if flags >> bit & 1],
        "mtu": word(values, 4), "ifindex": index,
        "ipv4": [f"{a['local']}/{a['prefixlen']}" for a in own if a["family"] == "inet"],
        "ipv6": [f"{a['local']}/{a['prefixlen']}" for a in own if a["family"] == "inet6"],
        "rx_packets": counters[0], "tx_packets": counters[1], "rx_bytes": counters[2], "tx_bytes": counters[3],
        "addresses": own, "link_type": LINK_TYPES.get(kind, f"[{kind}]"), "operstate": OPER_STATES[word(values, 16)],
        "linkmode": ["DEFAULT", "DORMANT"][word(values, 17)], "broadcast": values.get(2, b"").hex(":"),
        "kind": string(attributes(values.get(18, b"")), 1), "qdisc": string(values, 6), "txqlen": word(values, 13),
        "group": word(values, 27), "ifalias": string(values, 20), "altnames": alternative_names(values.get(52, b"")),
        "master_index": word(values, 10), "link_index": word(values, 5, index),
        "link_netnsid": struct.unpack("<i", values[37])[0] if 37 in values else None,
    }


def alternative_names(data):
    """All of the attributes in IFLA_PROP_LIST, which are of one kind."""
    names, at = [], 0
    while at + 4 <= len(data):
        size, _ = struct.unpack_from("<HH", data, at)
        if size < 4:
            break
        names.append(text(data[at + 4:at + size].rstrip(b"\0")))
        at += size + 3 & ~3
    return names


def device_addresses(data):
    """{(device, family): [address]}, in the words of `ip -j addr`."""
    found = {}
    for kind, payload in messages(data):
        if kind != 20:  # RTM_NEWADDR
            continue
        family, prefix, _, scope, index = struct.unpack_from("<BBBBI", payload)
        values = attributes(payload[8:])
        far, local = values.get(1), values.get(2) or values[1]  # IFA_ADDRESS, IFA_LOCAL
        flags = word(values, 8)
        names = [name for bit, name in ADDRESS_FLAGS.items() if flags & bit] + ([] if flags & 0x80 else ["dynamic"])
        preferred, valid = struct.unpack_from("<II", values[6])  # IFA_CACHEINFO
        found.setdefault((index, family), []).append({
            "family": "inet" if family == 2 else "inet6", "local": address_text(local), "prefixlen": prefix,
            "peer": address_text(far) if far and far != local else "",
            "broadcast": address_text(values[4]) if 4 in values else "", "scope": SCOPES[scope],
            "label": string(values, 3), "flags": ["temporary" if family == 10 and name == "secondary" else name
                                                 for name in names],
            "valid_life_time": valid, "preferred_life_time": preferred,
        })
    return found


# ---- sockets ----

def inet_address(word):
    """`0100007F:1F90`: the address as 32-bit words of the machine's byte order."""
    digits, port = word.split(b":")
    raw = bytes.fromhex(digits.decode())
    raw = b"".join(raw[at:at + 4][::-1] for at in range(0, len(raw), 4))
    return address_text(raw), int(port, 16)


def inet_sockets(report, netns):
    for name, (family, protocol) in INET_TABLES.items():
        for line in table(report, netns, name).splitlines()[1:]:
            fields = line.split()
            local, local_port = inet_address(fields[1])
            remote, remote_port = inet_address(fields[2])
            yield {"netns": netns, "family": family, "protocol": protocol, "state": TCP_STATES[int(fields[3], 16)],
                   "local": local, "local_port": local_port, "remote": remote, "remote_port": remote_port,
                   "inode": int(fields[9])}


def plain(netns, family, inode, state="CLOSE", local="", local_port=0):
    return {"netns": netns, "family": family, "protocol": family, "state": state, "local": local,
            "local_port": local_port, "remote": "", "remote_port": 0, "inode": inode}


def unix_sockets(report, netns):
    for line in table(report, netns, "unix").split(b"\n")[1:]:
        fields = line.split(None, 7)
        if len(fields) < 7:
            continue
        listening = int(fields[3], 16) & 0x10000
        state = "LISTEN" if listening else "ESTABLISHED" if fields[5] == b"03" else "CLOSE"
        yield plain(netns, "unix", int(fields[6]), state, text(fields[7]) if len(fields) > 7 else "")


def other_sockets(report, netns):
    for line in table(report, netns, "netlink").splitlines()[1:]:
        fields = line.split()
        if int(fields[9]):  # port 0 is the kernel's own end: a socket like any other, with no file
            yield plain(netns, "netlink", int(fields[9]), local_port=int(fields[2]))
    for line in table(report, netns, "packet").splitlines()[1:]:
        yield plain(netns, "packet", int(line.split()[8]))


def sockets(report, processes, files):
    """One record for each file that is a socket, and one for each socket that is nobody's file."""
    known, orphans = {}, []
    for netns in namespaces(report):
        for read in (inet_sockets, unix_sockets, other_sockets):
            for socket in read(report, netns):
                if socket["inode"]:
                    known.setdefault(socket["inode"], []).append(socket)
                else:
                    orphans.append(socket)
    netns_of = {process["pid"]: process["netns"] for process in processes}
    found, owned = [], set()
    for file in files:
        if match := re.fullmatch(r"socket:\[(\d+)\]", file["path"]):
            inode = int(match[1])
            owned.add(inode)
            listed = known.get(inode, [])
            own = unlisted(report, file, inode, netns_of.get(file["pid"]))
            if own["protocol"] == "mptcp" and listed:
                # It stands in no table, but its connections do, with its number and its addresses.
                listed = listed + [listed[0] | {"protocol": "mptcp"}]
            owner = {key: file[key] for key in ("pid", "tid", "fd")}
            options = socket_options(report, file, own["family"])
            found += [owner | socket | (options if socket["protocol"] == own["protocol"] else {})
                      for socket in listed or [own]]
    orphans += [socket for inode, sockets in known.items() if inode not in owned for socket in sockets]
    return found + [{"pid": None, "tid": None, "fd": None} | socket for socket in orphans]


def socket_options(report, file, family):
    """What the socket itself says (getsockopt); nothing if it could not be asked, as of a thread's own table."""
    data = report.get(f"/proc/{file['pid']}/sockopt/{file['fd']}")
    if file["tid"] != file["pid"] or not isinstance(data, bytes):
        return {}
    _, _, protocol, device, v6only, groups, receive, send = (int(field) for field in data.split())
    return {"protocol_number": protocol, "ifindex": device, "v6only": v6only == 1 if family == "inet6" else None,
            "groups": groups, "memory": {"receive_buffer": receive, "send_buffer": send}}


def unlisted(report, file, inode, netns):
    base = f"/proc/{file['pid']}" if file["tid"] == file["pid"] else f"/proc/{file['pid']}/task/{file['tid']}"
    name = report.get(f"{base}/fdproto/{file['fd']}")
    name = text(name.rstrip(b"\0")) if isinstance(name, bytes) else ""
    family, protocol = PROTOCOL_NAMES.get(name, (name.lower(), name.lower()))
    socket = plain(netns, family, inode) | {"protocol": protocol}
    if family in ("inet", "inet6"):
        socket["local"] = socket["remote"] = "0.0.0.0" if family == "inet" else "::"
    return socket
