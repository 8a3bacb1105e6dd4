"""Network throughput: a bulk transfer from the guest to the host."""

import socket
import threading

from . import PuppetWork


class Sink:
    """Takes one transfer on a port of the loopback, and says at its end that it has it all."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        try:
            peer, _ = self.server.accept()
        except OSError:  # closed before anybody came
            return
        with peer:
            while peer.recv(1 << 20):
                pass
            peer.sendall(b"!")

    def close(self):
        self.server.close()


class Network(PuppetWork):
    name = kind = "network"
    what = "bulk transfer to the host through QEMU's user network"
    unit = "MB/s"
    counted, scale = "bytes", 1e-6
    port = 0

    def argument(self, _guest):
        return str(self.port)

    def run(self, guest, amount):
        sink = Sink()
        self.port = sink.port
        try:
            return super().run(guest, amount)
        finally:
            sink.close()


LOAD = Network()
