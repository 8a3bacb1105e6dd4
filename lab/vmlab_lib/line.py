"""The line to a guest's puppet: a command goes out, a framed answer comes back."""

import fcntl
import os
import select
import socket
import struct
import time

from .errors import LabError


class LineTimeout(LabError):
    pass


class Line:
    """One conversation with the puppet; others that want one wait for their turn."""

    def __init__(self, path, timeout):
        self.lock = open(f"{path}.lock", "w", encoding="utf-8")
        try:
            self._take_turn(timeout)
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(path))
        except BaseException:
            self.lock.close()
            raise
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.lock.close()

    def _take_turn(self, timeout):
        deadline = time.monotonic() + timeout
        while True:
            try:
                return fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LineTimeout("another program talks to this guest's puppet") from None
                time.sleep(0.02)

    def fill(self, deadline):
        """More bytes from the guest."""
        ready, _, _ = select.select([self.socket], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            raise LineTimeout("the puppet does not answer")
        data = self.socket.recv(1 << 20)
        if not data:
            raise LabError("QEMU closed the line to the puppet")
        self.buffer += data

    def send_hello(self):
        """What comes before the echo of this token belongs to somebody else's conversation."""
        self.token = b"\nhello %s\n" % os.urandom(8).hex().encode()
        self.socket.sendall(self.token[1:])

    def await_hello(self, timeout):
        deadline = time.monotonic() + timeout
        while self.token not in self.buffer:
            self.fill(deadline)
        self.buffer = self.buffer.split(self.token, 1)[1]

    def command(self, text, timeout):
        self.socket.sendall(text.encode("utf-8", "surrogateescape") + b"\n")
        deadline = time.monotonic() + timeout
        payload = bytearray()
        while True:
            word, _, rest = self._text(deadline).partition(b" ")
            if word == b"ok":
                return bytes(payload)
            if word == b"error":
                raise LabError(f"puppet: {rest.decode(errors='replace')}")
            if word != b"data":
                raise LabError(f"the puppet's answer makes no sense: {word[:40]!r}")
            payload += self._bytes(int(rest), deadline)

    def _text(self, deadline):
        while b"\n" not in self.buffer:
            self.fill(deadline)
        text, self.buffer = self.buffer.split(b"\n", 1)
        return text

    def _bytes(self, size, deadline):
        while len(self.buffer) < size:
            self.fill(deadline)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data


def read_archive(data):
    """{path: bytes, or a negative errno} of a report."""
    records, at = {}, 0
    while at < len(data):
        path_size, size = struct.unpack_from("<Ii", data, at)
        at += 8
        path = data[at:at + path_size].decode()
        at += path_size
        records[path] = data[at:at + size] if size >= 0 else size
        at += max(size, 0)
    return records
