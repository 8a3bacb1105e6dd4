"""From files of /proc, as kernels print them, to the state document."""

import errno
import struct
import unittest

import context  # noqa: F401
from vmlab_lib import truth, truth_net
from vmlab_lib.line import read_archive
from vmlab_lib.words import octal_text, text

STAT = (b"%d (%s) %s 1 7 7 0 -1 %d 0 0 0 0 12 34 0 0 20 0 3 0 1500 %d %d 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17"
        b" 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
STATUS = (b"Name:\t%s\nUmask:\t0022\nTgid:\t7\nPPid:\t1\nUid:\t21\t22\t23\t22\nGid:\t11\t12\t13\t12\nNSpid:\t7\t1\n"
          b"voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n")


def process(comm=b"sh", state=b"S", flags=0, vsize=65536, rss=2, cmdline=b"", **more):
    base = "/proc/7/"
    return {base + "stat": STAT % (7, comm, state, flags, vsize, rss), base + "status": STATUS % comm,
            base + "cmdline": cmdline} | {base + name: data for name, data in more.items()}


class Words(unittest.TestCase):
    def test_bytes_that_are_not_utf8(self):
        self.assertEqual(text(b"\xff\xc3\xa4\x1b"), "\\xffä\x1b")

    def test_octal(self):
        self.assertEqual(octal_text(rb"/tmp/a\040b\012c\134"), "/tmp/a b\nc\\")


class Archive(unittest.TestCase):
    def record(self, path, size, data=b""):
        return struct.pack("<Ii", len(path), size) + path + data

    def test_content_and_error(self):
        data = self.record(b"a", 3, b"xyz") + self.record(b"b", -errno.ENOENT) + self.record(b"c", 0)
        self.assertEqual(read_archive(data), {"a": b"xyz", "b": -errno.ENOENT, "c": b""})


class Processes(unittest.TestCase):
    def read(self, **options):
        return truth.read_process(process(**options), 7)

    def test_plain(self):
        found = self.read(cmdline=b"sh\0-c\0\0", exe=b"/bin/sh", cwd=-errno.EACCES)
        expected = {"pid": 7, "tgid": 7, "ppid": 1, "comm": "sh", "cmdline": ["sh", "-c", ""], "state": "S",
                    "uid": 21, "euid": 22, "gid": 11, "threads": 3, "start_time_ns": 15_000_000_000,
                    "utime_ns": 120_000_000, "stime_ns": 340_000_000, "rss_bytes": 8192, "vsize_bytes": 65536,
                    "exe": "/bin/sh", "cwd": None, "ns_pids": [7, 1], "kernel_thread": False, "validity": "live",
                    "switches": 7}
        self.assertEqual(found | expected, found)

    def test_names_that_imitate_the_format(self):
        for comm in (b") R 1 1 1", b"a\nb", b"((", b"\xff"):
            found = self.read(comm=comm)
            self.assertEqual((found["comm"], found["state"], found["ppid"]), (text(comm), "S", 1))

    def test_arguments(self):
        for data, words in ((b"", []), (b"\0", [""]), (b"a\0\0b\0", ["a", "", "b"]), (b"title", ["title"])):
            self.assertEqual(truth.arguments(data), words)

    def test_kernel_thread(self):
        found = self.read(flags=truth.PF_KTHREAD, vsize=0, rss=0)
        self.assertEqual((found["kernel_thread"], found["rss_bytes"], found["vsize_bytes"]), (True, None, None))

    def test_zombie(self):
        self.assertEqual(self.read(state=b"Z", vsize=0)["validity"], "zombie")

    def test_reporter_sleeps_but_while_it_reports(self):
        report = process(state=b"R")
        self.assertEqual(truth.read_process(report, 7)["state"], "R")
        self.assertEqual(truth.read_process(report | {"reporter": b"7"}, 7)["state"], "S")

    def test_died_while_it_was_read(self):
        self.assertIsNone(truth.read_process(process() | {"/proc/7/status": -errno.ESRCH}, 7))


class Files(unittest.TestCase):
    def read(self, target, facts, info):
        return truth.read_files({"/proc/7/fd/3": target, "/proc/7/fdstat/3": facts, "/proc/7/fdinfo/3": info})[0]

    def test_plain(self):
        found = self.read(b"/tmp/x (deleted)", b"12 100644 0:0 5 1", b"pos:\t21\nflags:\t0102002\nmnt_id:\t20\nino:\t12\n")
        self.assertEqual(found, {"pid": 7, "tid": 7, "fd": 3, "type": "REG", "path": "/tmp/x (deleted)", "pos": 21,
                                 "flags": "0102002", "inode": 12, "rdev": None, "size": 5, "links": 1,
                                 "lock": None, "targets": []})

    def test_of_a_thread(self):
        found = truth.read_files({"/proc/7/task/9/fd/3": b"/x", "/proc/7/task/9/fdinfo/3": b"pos:\t5\n"})[0]
        self.assertEqual((found["pid"], found["tid"], found["pos"]), (7, 9, 5))

    def test_targets_and_locks(self):
        info = b"pos:\t0\ntfd:        9 events: 1 data: 0  pos:0 ino:1 sdev:d\ntfd:        5 events:       19 data: 0\n"
        self.assertEqual(truth.targets(info), [5, 9])
        locks = (b"1: POSIX  ADVISORY  READ 7 00:01:12 5 14\n1: -> POSIX  ADVISORY  WRITE 8 00:01:12 0 EOF\n"
                 b"2: FLOCK  ADVISORY  WRITE 7 00:01:13 0 EOF\n3: OFDLCK ADVISORY  WRITE -1 00:01:14 0 EOF\n")
        self.assertEqual(truth.read_locks({"/proc/locks": locks}),
                         {(7, "00:01", 12): "r", (7, "00:01", 13): "W", (-1, "00:01", 14): "W"})

    def test_types(self):
        for target, facts, kind in ((b"socket:[5]", b"5 140777 0:0", "SOCK"), (b"pipe:[5]", b"5 10600 0:0", "FIFO"),
                                    (b"anon_inode:[eventfd]", b"5 600 0:0", "ANON"), (b"/", b"5 40755 0:0", "DIR"),
                                    (b"/dev/null", b"5 20666 1:3", "CHR"), (b"/dev/vda", b"5 60660 254:0", "BLK")):
            self.assertEqual(self.read(target, facts, b"")["type"], kind)


class Maps(unittest.TestCase):
    def test_lines(self):
        data = (b"00400000-00401000 r-xp 00001000 fe:01 77                         /tmp/new\\012line\n"
                b"7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n"
                b"7ffc00030000-7ffc00031000 ---p 00000000 00:00 0 \n")
        found = truth.read_maps({"/proc/7/maps": data}, 7)
        self.assertEqual(found[0], {"pid": 7, "start": "0x400000", "end": "0x401000", "perms": "r-xp",
                                    "offset": 4096, "path": "/tmp/new\nline", "inode": 77})
        self.assertEqual([area["path"] for area in found[1:]], ["[stack]", ""])


class System(unittest.TestCase):
    def test_log(self):
        data = b"6,1,1000,-;plain\n SUBSYSTEM=pci\n30,2,2500,-,more=1;esc \\x1b; half\n"
        self.assertEqual(truth.read_log({"kmsg": data}), [
            {"time_ns": 1_000_000, "level": 6, "facility": 0, "text": "plain", "sequence": 1},
            {"time_ns": 2_500_000, "level": 6, "facility": 3, "text": "esc \x1b; half", "sequence": 2}])

    def test_modules(self):
        line = b"virtio 16384 3 virtio_net,virtio_blk, Live 0x0000000000000000\n"
        self.assertEqual(truth.read_modules({"/proc/modules": line}), [
            {"name": "virtio", "state": "Live", "size": 16384, "refcount": 3, "used_by": ["virtio_net", "virtio_blk"]}])

    def test_mounts(self):
        line = b"36 35 0:31 /sub /with\\040blank rw,nosuid shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate\n"
        found = truth.read_mounts({"mnt/4026/mountinfo": line})[0]
        self.assertEqual(found | {"source": "cgroup2", "target": "/with blank", "fstype": "cgroup2", "mntns": 4026,
                                  "options": "rw,nosuid", "root": "/sub", "super_options": "rw,nsdelegate"}, found)

    def test_mount_without_source(self):
        line = b"36 35 0:31 / /a rw - tmpfs  rw\n"
        self.assertEqual(truth.read_mounts({"mnt/1/mountinfo": line})[0]["source"], "")


class Network(unittest.TestCase):
    def test_addresses(self):
        self.assertEqual(truth_net.inet_address(b"0100007F:1F90"), ("127.0.0.1", 8080))
        self.assertEqual(truth_net.inet_address(b"00000000000000000000000001000000:0016"), ("::1", 22))

    def test_sockets_are_joined_with_files(self):
        head = b"  sl  local_address rem_address   st ...\n"
        line = b"   0: 0100007F:1F90 0100007F:0016 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 x\n"
        report = {"net/1/tcp": head + line % (b"01", 55) + line % (b"06", 0),
                  "net/1/unix": b"Num ...\nffff: 00000002 00000000 00010000 0001 01 66 /run/a b\n"}
        files = [{"pid": pid, "tid": pid, "fd": fd, "path": "socket:[55]"} for pid, fd in ((7, 3), (8, 4))]
        found = truth_net.sockets(report, [{"pid": 7, "netns": 1}, {"pid": 8, "netns": 1}], files)
        self.assertEqual([(s["pid"], s["fd"], s["state"], s["protocol"]) for s in found],
                         [(7, 3, "ESTABLISHED", "tcp"), (8, 4, "ESTABLISHED", "tcp"), (None, None, "TIME_WAIT", "tcp"),
                          (None, None, "LISTEN", "unix")])
        self.assertEqual(found[-1]["local"], "/run/a b")

    def test_unbound_socket_is_in_no_table(self):
        report = {"/proc/7/fdproto/3": b"TCPv6\0"}
        found = truth_net.sockets(report, [{"pid": 7, "netns": 1}], [{"pid": 7, "tid": 7, "fd": 3, "path": "socket:[9]"}])
        self.assertEqual((found[0]["family"], found[0]["protocol"], found[0]["state"]), ("inet6", "tcp", "CLOSE"))

    def test_truncated_netlink(self):
        self.assertEqual(list(truth_net.messages(struct.pack("<IHHII", 8, 16, 0, 0, 0))), [])


if __name__ == "__main__":
    unittest.main()
