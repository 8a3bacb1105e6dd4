"""Workloads: what needs no guest."""

import asyncio
import socket
import threading
import unittest
from unittest import mock

import context  # noqa: F401
from vmlab_lib import open_loop, workloads
from vmlab_lib.workloads import network


class Server(threading.Thread):
    """Answers one request after the other; the first only after a while."""

    def __init__(self, answer, stall=0.0):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.socket.getsockname()[1]
        self.answer, self.stall = answer, stall
        self.start()

    def run(self):
        wait = threading.Event()
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                peer.recv(4096)
                wait.wait(self.stall)
                self.stall = 0
                peer.sendall(self.answer)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class OpenLoop(unittest.TestCase):
    def test_schedule_is_the_same_each_time_and_has_the_rate(self):
        times = open_loop.schedule(100, 20)
        self.assertEqual(times, open_loop.schedule(100, 20))
        self.assertAlmostEqual(len(times), 2000, delta=200)
        self.assertEqual(times, sorted(times))

    def test_percentiles_by_nearest_rank(self):
        self.assertEqual([open_loop.percentile(list(range(1, 101)), share) for share in (50, 99, 100)], [50, 99, 100])
        self.assertEqual(open_loop.percentile([7], 50), 7)

    def test_a_stall_is_charged_to_all_who_waited(self):
        server = Server(GOOD, stall=0.4)
        outcome = open_loop.run(server.port, [0.0, 0.1, 0.2]).summary()
        self.assertEqual((outcome["requests"], outcome["errors"]), (3, 0))
        self.assertGreaterEqual(outcome["backlog"], 3)
        self.assertGreater(outcome["p50_ms"], 250)  # a closed loop would say: two of three were fast

    def test_errors_count(self):
        for answer in (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", GOOD[:-1], b""):
            outcome = open_loop.run(Server(answer).port, [0.0, 0.01]).summary()
            self.assertEqual((outcome["errors"], outcome["requests"]), (2, 2))
        closed = workloads.free_port()
        self.assertEqual(open_loop.run(closed, [0.0]).errors, 1)

    def test_request_reads_a_whole_answer(self):
        asyncio.run(open_loop.request(Server(GOOD).port))


class FakeGuest:
    """A puppet that does 1000 units a second, by the fake clock."""

    def __init__(self):
        self.now, self.commands = 0.0, []

    def puppet(self, command, timeout=0):
        self.commands.append(command)
        amount = int(command.split()[2])
        self.now += amount / 1000
        return f"processes {amount}\nns {amount * 1000000}\n".encode()


class Kinds(unittest.TestCase):
    def test_each_is_what_it_says(self):
        for name in workloads.NAMES:
            load = workloads.find(name)
            self.assertEqual(load.name, name)
            self.assertTrue(load.what and load.unit and load.better in ("less", "more"))
        with self.assertRaises(ValueError):
            workloads.find("solitaire")

    def test_calibration_finds_the_amount(self):
        guest, load = FakeGuest(), workloads.find("churn")
        with mock.patch("time.monotonic", lambda: guest.now):
            self.assertAlmostEqual(load.calibrate(guest, 3), 3000, delta=1)
            self.assertAlmostEqual(load.run(guest, 500)["value"], 1000)

    def test_sink_takes_a_transfer(self):
        sink = network.Sink()
        with socket.create_connection(("127.0.0.1", sink.port)) as peer:
            peer.sendall(b"x" * 100000)
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(peer.recv(1), b"!")
        sink.close()


if __name__ == "__main__":
    unittest.main()
