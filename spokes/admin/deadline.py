"""The deadline of a request's body: threads are few, and a body that comes in crumbs would hold one.

Owns: one thread for the process, and the sockets of requests that are under way. Past the deadline the socket's reading
side is shut, so whoever reads the body sees its end and answers 408; a body that is whole by then is not touched.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from spokes import clock

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]


class BodyDeadline:
    """WSGI middleware over `app`; made after the fork, for it starts a thread."""

    def __init__(self, app: Wsgi, limit_s: float) -> None:
        self._app = app
        self._limit_s = limit_s
        self._reading: dict[int, tuple[float, socket.socket]] = {}     # oldest first: all have the same limit
        self._number = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="body-deadline", daemon=True).start()

    def __call__(self, env: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        sock = env.get("gunicorn.socket")
        has_body = env.get("CONTENT_LENGTH") not in (None, "", "0") or "HTTP_TRANSFER_ENCODING" in env
        if sock is None or not has_body:
            return self._app(env, start_response)
        number = self._enter(sock)
        try:
            return self._app(env, start_response)
        finally:
            with self._changed:
                self._reading.pop(number, None)

    def _enter(self, sock: socket.socket) -> int:
        with self._changed:
            self._number += 1
            self._reading[self._number] = (clock.monotonic_s() + self._limit_s, sock)
            if len(self._reading) == 1:
                self._changed.notify()
            return self._number

    def _watch(self) -> None:
        with self._changed:
            while True:
                if not self._reading:
                    self._changed.wait()
                    continue
                number, (deadline, sock) = next(iter(self._reading.items()))
                wait_s = deadline - clock.monotonic_s()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                del self._reading[number]
                _shut_reading(sock)


def _shut_reading(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RD)
    except OSError:
        return                           # the other side was quicker
