"""A TCP proxy between client and server whose connections a test can cut one by one."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class CuttingProxy:
    """Passes bytes on, both ways, for every connection; `pairs` in the order they came."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.byte_counts: list[int] = []  # of each pair, both ways together
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, index: int) -> None:
        """Both sides see a reset."""
        for sock in self.pairs[index]:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads
                sock.close()

    def close(self) -> None:
        self._listener.close()
        for index in range(len(self.pairs)):
            self.cut(index)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self.pairs.append((near, far))
                self.byte_counts.append(0)
                index = len(self.pairs) - 1
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(index, source, sink), daemon=True).start()

    def _pass_on(self, index: int, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.byte_counts[index] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def cutting_proxy(target: tuple[str, int]) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
