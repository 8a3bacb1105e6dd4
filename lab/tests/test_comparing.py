"""What may differ from the guest's own word, and what may not."""

import copy
import unittest

import context  # noqa: F401
from vmlab_lib.comparing import PARTS, SECTIONS, compare
from vmlab_lib.excuses import EXCUSES

OS = {"sysname": "Linux", "nodename": "vmlab", "release": "6.1", "version": "#1", "machine": "x86_64",
      "uptime_s": 10, "cmdline": "quiet"}
PROCESS = {"pid": 7, "tgid": 7, "ppid": 1, "comm": "sleeper", "cmdline": ["sleeper", "-x"], "state": "S", "uid": 0,
           "gid": 0, "euid": 0, "kernel_thread": False, "threads": 1, "start_time_ns": 50_000_000,
           "utime_ns": 10_000_000, "stime_ns": 0, "rss_bytes": 8192, "vsize_bytes": 65536, "exe": "/bin/s",
           "cwd": "/", "pidns": 1, "mntns": 2, "netns": 3, "ns_pids": [7], "switches": 5, "sleeps": 3}
KWORKER = PROCESS | {"pid": 9, "comm": "kworker/0:1-events", "cmdline": [], "kernel_thread": True, "state": "I",
                     "rss_bytes": None, "vsize_bytes": None, "exe": None}
TIME_WAIT = {"pid": None, "fd": None, "netns": 3, "family": "inet", "protocol": "tcp", "state": "TIME_WAIT",
             "local": "127.0.0.1", "local_port": 1000, "remote": "127.0.0.1", "remote_port": 80, "inode": 0}


def document(**sections):
    return {"os": dict(OS)} | {name: [] for name in SECTIONS} | copy.deepcopy(sections)


def processes(*records):
    return document(processes=list(records))


def fields(comparison):
    return [difference.field for difference in comparison.differences]


class Equal(unittest.TestCase):
    def test_same(self):
        self.assertTrue(compare(*[processes(PROCESS, KWORKER)] * 3))

    def test_counts(self):
        comparison = compare(*[processes(PROCESS, KWORKER)] * 3)
        self.assertEqual(comparison.compared["processes"], 2)
        self.assertEqual(comparison.excused.total(), 0)

    def test_granularity_of_the_guest(self):
        ours = processes(PROCESS | {"utime_ns": 12_345_678, "start_time_ns": 59_999_999})
        self.assertTrue(compare(processes(PROCESS), ours, processes(PROCESS)))

    def test_order_of_records_does_not_matter(self):
        self.assertTrue(compare(processes(PROCESS, KWORKER), processes(KWORKER, PROCESS), processes(PROCESS, KWORKER)))

    def test_sections_can_be_chosen(self):
        ours = processes(PROCESS | {"uid": 5})
        self.assertTrue(compare(processes(PROCESS), ours, processes(PROCESS), ["mounts"]))

    def test_unconnected_is_closed(self):
        socket = TIME_WAIT | {"pid": 7, "fd": 3, "inode": 12, "state": "CLOSE"}
        ours = document(sockets=[socket | {"state": "UNCONN"}])
        self.assertTrue(compare(document(sockets=[socket]), ours, document(sockets=[socket])))

    def test_carrier_flags_are_not_compared(self):
        device = {"netns": 3, "name": "lo", "flags": ["UP", "RUNNING"]}
        ours = document(net_devices=[device | {"flags": ["UP"]}])
        self.assertTrue(compare(document(net_devices=[device]), ours, document(net_devices=[device])))


class Nothing(unittest.TestCase):
    """null and 0, null and [] mean the same only where the guest has no such thing."""

    def test_kernel_thread_has_no_memory(self):
        for value in (None, 0):
            ours = processes(KWORKER | {"rss_bytes": value, "vsize_bytes": value})
            self.assertTrue(compare(processes(KWORKER), ours, processes(KWORKER)))

    def test_kernel_thread_has_no_arguments(self):
        ours = processes(KWORKER | {"cmdline": None})
        self.assertTrue(compare(processes(KWORKER), ours, processes(KWORKER)))

    def test_unread_is_not_zero(self):
        for name in ("rss_bytes", "vsize_bytes", "cmdline", "exe", "uid", "ppid"):
            ours = processes(PROCESS | {name: None})
            self.assertEqual(fields(compare(processes(PROCESS), ours, processes(PROCESS))), [name])

    def test_zero_in_the_guest_is_not_null(self):
        ours = processes(PROCESS | {"stime_ns": None})
        self.assertEqual(fields(compare(processes(PROCESS), ours, processes(PROCESS))), ["stime_ns"])


class Different(unittest.TestCase):
    def test_every_field_counts(self):
        for section, (keys, names) in SECTIONS.items():
            for name in names:
                key = PARTS.get(name, name)
                record = dict.fromkeys(keys, 1) | {PARTS.get(field, field): None for field in names}
                guest, ours = document(**{section: [record]}), document(**{section: [record | {key: "wrong"}]})
                with self.subTest(section=section, name=name):
                    self.assertEqual(fields(compare(guest, ours, guest)),
                                     [field for field in names if PARTS.get(field, field) == key])

    def test_what_the_guest_does_not_say_is_not_compared(self):
        told = {"pid": None, "fd": None, "netns": 1, "inode": 0, "family": "inet"}
        guest, ours = document(sockets=[told]), document(sockets=[told | {"ifindex": 3}])
        self.assertEqual(fields(compare(guest, ours, guest)), [])

    def test_life_times_lapse(self):
        def device(seconds, *more):
            addresses = [address(f"10.0.0.{number}", valid) for number, valid in enumerate((seconds, *more), start=1)]
            return document(net_devices=[{"netns": 1, "name": "eth0", "addresses": addresses}])

        def address(local, seconds):
            return {"family": "inet", "local": local, "prefixlen": 8, "peer": "", "broadcast": "", "scope": "link",
                       "label": "", "flags": [], "valid_life_time": seconds, "preferred_life_time": 5}

        self.assertEqual(fields(compare(device(9), device(8), device(7))), [])
        self.assertEqual(fields(compare(device(9), device(6), device(7))), ["life_times"])
        self.assertEqual(fields(compare(device(9), device(8, 5), device(7, 4))), [])  # one came
        self.assertEqual(fields(compare(device(9), device(6, 5), device(7, 4))), ["life_times"])
        self.assertEqual(fields(compare(device(9), device(8, 3), device(7, 4))), ["life_times"])
        self.assertEqual(fields(compare(device(9, 5), device(8, 6), device(7))), ["life_times"])
        self.assertEqual(fields(compare(device(9), device(9, 5), device(9))), ["addresses", "life_times"])

    def test_a_router_renews_a_life_time(self):
        def differences(first, mine, last, elapsed_s):
            def told(seconds, uptime_s):
                life = {"family": "inet6", "local": "fec0::1", "prefixlen": 64, "peer": "", "broadcast": "",
                        "scope": "global", "label": "", "flags": [], "valid_life_time": seconds,
                        "preferred_life_time": 5}
                return document(net_devices=[{"netns": 1, "name": "eth0", "addresses": [life]}]) | {
                    "os": OS | {"uptime_s": uptime_s}}
            return fields(compare(told(first, 10), told(mine, 10), told(last, 10 + elapsed_s)))

        self.assertEqual(differences(397, 396, 400, 4), [])               # renewed after we looked
        self.assertEqual(differences(397, 399, 398, 4), [])               # and before
        self.assertEqual(differences(397, 390, 400, 4), ["life_times"])   # further than time passed
        self.assertEqual(differences(397, 406, 400, 4), ["life_times"])   # more than it was renewed to
        self.assertEqual(differences(397, 398, 394, 3), ["life_times"])   # nobody renewed it
        self.assertEqual(differences(0xffffffff, 0xfffffffe, 0xffffffff, 4), ["life_times"])

    def test_os(self):
        ours = document() | {"os": OS | {"release": "6.12"}}
        self.assertEqual(fields(compare(document(), ours, document())), ["release"])

    def test_missing_record_even_if_it_changes(self):
        after = processes(PROCESS | {"utime_ns": 20_000_000})
        self.assertEqual(fields(compare(processes(PROCESS), processes(), after)), [""])

    def test_record_too_many(self):
        self.assertEqual(fields(compare(processes(), processes(PROCESS), processes())), [""])

    def test_record_twice(self):
        self.assertEqual(fields(compare(processes(PROCESS), processes(PROCESS, PROCESS), processes(PROCESS))), [""])

    def test_kernel_threads_name_to_the_last_byte(self):
        for comm in ("kworker/0:1", "kworker/0:1+events", "kworker/0:1-event"):
            ours = processes(KWORKER | {"comm": comm})
            self.assertEqual(fields(compare(processes(KWORKER), ours, processes(KWORKER))), ["comm"])

    def test_nonsense(self):
        ours = processes(PROCESS | {"utime_ns": "many"})
        self.assertEqual(fields(compare(processes(PROCESS), ours, processes(PROCESS))), ["utime_ns"])


class Excused(unittest.TestCase):
    def test_only_the_field_that_changed(self):
        after = processes(PROCESS | {"cwd": "/tmp"})
        self.assertTrue(compare(processes(PROCESS), processes(PROCESS | {"cwd": "/tmp"}), after))
        ours = processes(PROCESS | {"cwd": "/tmp", "uid": 5})
        self.assertEqual(fields(compare(processes(PROCESS), ours, after)), ["uid"])

    def test_counters_lie_between(self):
        after = processes(PROCESS | {"utime_ns": 90_000_000})
        for ticks, good in ((0, False), (1, True), (5, True), (9, True), (10, False)):
            ours = processes(PROCESS | {"utime_ns": ticks * 10_000_000})
            self.assertEqual(bool(compare(processes(PROCESS), ours, after)), good)

    def test_uptime_lies_between(self):
        after = document() | {"os": OS | {"uptime_s": 12}}
        for uptime, good in ((9, False), (11, True), (13, False)):
            ours = document() | {"os": OS | {"uptime_s": uptime}}
            self.assertEqual(bool(compare(document(), ours, after)), good)

    def test_came_or_went(self):
        for before, after in ((processes(PROCESS), processes()), (processes(), processes(PROCESS))):
            self.assertTrue(compare(before, processes(PROCESS), after))
            self.assertTrue(compare(before, processes(), after))

    def test_running_at_that_moment(self):
        ours = processes(PROCESS | {"state": "R"})
        self.assertFalse(compare(processes(PROCESS), ours, processes(PROCESS)))
        self.assertTrue(compare(processes(PROCESS), ours, processes(PROCESS | {"switches": 6})))
        ours = processes(PROCESS | {"state": "Z"})
        self.assertFalse(compare(processes(PROCESS), ours, processes(PROCESS | {"switches": 6})))

    def test_worker_that_works_at_that_moment(self):
        after = processes(KWORKER | {"switches": 6})
        for comm, good in (("kworker/0:1+vmstat", True), ("kworker/0:2-events", False), (None, False)):
            ours = processes(KWORKER | {"comm": comm})
            self.assertEqual(bool(compare(processes(KWORKER), ours, after)), good)


RCU = PROCESS | {"pid": 15, "comm": "rcu_preempt", "cmdline": [], "kernel_thread": True, "state": "R"}
REPORTER = PROCESS | {"reporter": True, "utime_ns": 2_000_000_000, "stime_ns": 3_000_000_000}


class Disturbed(unittest.TestCase):
    """What the table of excuses covers, and what is just beside it."""

    def test_threads_that_work_for_the_report(self):
        after = processes(RCU | {"switches": 9, "sleeps": 7})
        for state, good in (("I", True), ("S", True), ("D", False), (None, False)):
            self.assertEqual(bool(compare(processes(RCU), processes(RCU | {"state": state}), after)), good)
        self.assertFalse(compare(processes(RCU), processes(RCU | {"state": "I"}), processes(RCU)))

    def test_a_thread_that_waits_for_a_disk_has_run(self):
        sleeper = RCU | {"comm": "jbd2/vda1-8", "state": "S"}
        for state, switches, good in (("D", 9, True), ("D", RCU["switches"], False), ("Z", 9, False)):
            ours, after = processes(sleeper | {"state": state}), processes(sleeper | {"switches": switches})
            self.assertEqual(bool(compare(processes(sleeper), ours, after)), good)
        busy = sleeper | {"state": "R"}
        self.assertFalse(compare(processes(busy), processes(busy | {"state": "D"}), processes(busy | {"switches": 9})))

    def test_what_gave_up_no_processor_did_not_sleep(self):
        busy = RCU | {"comm": "sleeper"}
        asleep = processes(busy | {"state": "S"})
        self.assertFalse(compare(processes(busy), asleep, processes(busy | {"switches": 9})))
        self.assertTrue(compare(processes(busy), asleep, processes(busy | {"switches": 9, "sleeps": 7})))

    def test_shares_of_a_run_time_move_within_their_sum(self):
        after = processes(REPORTER | {"utime_ns": 2_100_000_000, "stime_ns": 3_400_000_000})
        for utime, stime, good in ((2_200_000_000, 3_100_000_000, True), (2_600_000_000, 3_100_000_000, False),
                                   (1_900_000_000, 3_000_000_000, False)):
            ours = processes(REPORTER | {"utime_ns": utime, "stime_ns": stime})
            self.assertEqual(bool(compare(processes(REPORTER), ours, after)), good)
        ours = {"utime_ns": 2_200_000_000, "stime_ns": 3_100_000_000}
        other = {"reporter": False}
        after["processes"][0] |= other
        self.assertFalse(compare(processes(REPORTER | other), processes(REPORTER | ours), after))
        after["processes"][0] |= {"switches": 99}  # it has run
        self.assertTrue(compare(processes(REPORTER | other), processes(REPORTER | ours), after))

    def test_only_an_agent_has_kcore_open(self):
        file = {"pid": 7, "fd": 4, "type": "REG", "path": "/proc/kcore"}
        for comm, path, good in (("qemu-ga", "/proc/kcore", True), ("qemu-ga", "/proc/stat", False),
                                 ("sleeper", "/proc/kcore", False)):
            guest = processes(PROCESS | {"comm": comm})
            ours = document(processes=guest["processes"], open_files=[file | {"path": path}])
            self.assertEqual(bool(compare(guest, ours, guest)), good)

    def test_a_reason_is_counted(self):
        comparison = compare(processes(RCU), processes(RCU | {"state": "I"}), processes(RCU | {"switches": 9, "sleeps": 7}))
        self.assertEqual(list(comparison.disturbed.values()), [1])

    def test_every_entry_says_why(self):
        for entry in EXCUSES:
            self.assertIn(entry.section, SECTIONS)
            self.assertTrue(not entry.field or entry.field in SECTIONS[entry.section][1])
            self.assertGreater(len(entry.reason.split()), 5)


class NobodysSockets(unittest.TestCase):
    def test_told_apart_by_their_ends(self):
        other = TIME_WAIT | {"local_port": 1001, "state": "SYN_RECV"}
        guest = document(sockets=[TIME_WAIT, other])
        self.assertTrue(compare(guest, document(sockets=[other, TIME_WAIT]), guest))
        wrong = [TIME_WAIT | {"state": "SYN_RECV"}, other]
        self.assertEqual(fields(compare(guest, document(sockets=wrong), guest)), ["state"])


if __name__ == "__main__":
    unittest.main()
