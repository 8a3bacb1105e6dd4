"""A small QMP client: one command at a time, every wait with a deadline."""

import json
import socket
import time

from .errors import LabError


class Qmp:
    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(path))
            self.stream = self.socket.makefile("rw", encoding="utf-8", newline="\n")
            self.events = []
            self._receive(time.monotonic() + timeout)  # the greeting
            self.command("qmp_capabilities")
        except (OSError, ValueError) as error:
            self.socket.close()
            raise LabError(f"connect to monitor {path}: {error}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def _receive(self, deadline):
        self.socket.settimeout(max(0.01, deadline - time.monotonic()))
        line = self.stream.readline()
        if not line:
            raise ConnectionResetError("QEMU closed the monitor")
        return json.loads(line)

    def command(self, name, timeout=30, **arguments):
        request = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        self.stream.write(json.dumps(request) + "\n")
        self.stream.flush()
        deadline = time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise LabError(f"monitor command {name}: {answer['error']['desc']}")
            elif "return" in answer:
                return answer["return"]

    def wait_event(self, name, timeout):
        deadline = time.monotonic() + timeout
        while name not in self.events:
            try:
                answer = self._receive(deadline)
            except TimeoutError as error:
                raise LabError(f"no {name} event within {timeout} s") from error
            if "event" in answer:
                self.events.append(answer["event"])
        self.events.remove(name)
