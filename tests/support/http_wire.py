"""HTTP at the level of bytes: a visitor that sends exactly what it is told, and upstreams that follow a script."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from spokes._fastpath.engine import Upstream

T = TypeVar("T")

TIMEOUT_S = 10.0


@dataclass
class Message:
    """One request or response as it was received."""

    start: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    interims: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """The value of a field that is there at most once; "" when it is not."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is there {len(values)} times: {values}"
        return values[0] if values else ""

    @property
    def code(self) -> str:
        return self.one("X-Spokes-Code")


def parse_head(head: bytes) -> Message:
    lines = head.decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""], head
    pairs = [line.split(":", 1) for line in lines[1:-2]]
    return Message(lines[0], [(name, value.strip()) for name, value in pairs])


class Ended(Exception):
    """The peer closed (`reset` False) or aborted (True) before what was awaited had come."""

    def __init__(self, got: bytes, reset: bool) -> None:
        super().__init__(f"{'reset' if reset else 'closed'} after {len(got)} bytes: {got[:200]!r}")
        self.got, self.reset = got, reset


class Wire:
    """One end of a connection, with what was received and not yet looked at."""

    def __init__(self, sock: socket.socket, index: int = 0) -> None:
        self.sock, self.index = sock, index
        self.waiting = b""
        sock.settimeout(TIMEOUT_S)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def send_in_parts(self, parts: Iterable[bytes], pause_s: float = 0.001) -> None:
        """Each part alone on its way, as far as a scheduler allows."""
        for part in parts:
            self.sock.sendall(part)
            time.sleep(pause_s)

    def end_sending(self) -> None:
        """FIN; no fault where the peer has already aborted."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def fill(self) -> None:
        try:
            more = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            raise Ended(self.waiting, reset=True) from None
        if not more:
            raise Ended(self.waiting, reset=False)
        self.waiting += more

    def read(self, count: int) -> bytes:
        parts, have = [self.waiting], len(self.waiting)
        while have < count:
            self.waiting = b""
            try:
                self.fill()
            except Ended as ended:
                raise Ended(b"".join(parts), ended.reset) from None
            parts.append(self.waiting)
            have += len(self.waiting)
        data = b"".join(parts)
        self.waiting = data[count:]
        return data[:count]

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.waiting:
            self.fill()
        end = self.waiting.index(mark) + len(mark)
        data, self.waiting = self.waiting[:end], self.waiting[end:]
        return data

    def read_to_end(self) -> bytes:
        """Everything up to an orderly close; Ended when it was an abort."""
        parts = []
        while True:
            parts.append(self.waiting)
            self.waiting = b""
            try:
                self.fill()
            except Ended as ended:
                if ended.reset:
                    raise Ended(b"".join(parts), reset=True) from None
                return b"".join(parts)

    def read_chunked(self) -> bytes:
        """Strict: a size, its data, no extensions, no trailers; what this project forwards."""
        parts = []
        while True:
            line = self.read_until(b"\r\n")
            size = int(line[:-2], 16)
            assert b"%x" % size == line[:-2].lower().lstrip(b"0") or size == 0, line
            parts.append(self.read(size))
            assert self.read(2) == b"\r\n"
            if size == 0:
                return b"".join(parts)

    def read_head(self) -> Message:
        return parse_head(self.read_until(b"\r\n\r\n"))

    def read_request(self) -> Message | None:
        """One whole request; None when the conn ends before it begins."""
        try:
            message = self.read_head()
        except Ended as ended:
            if ended.got:
                raise
            return None
        message.body = self.read_framed(message, b"")
        return message

    def read_framed(self, message: Message, otherwise: bytes | None) -> bytes:
        assert not (message.all("Content-Length") and message.all("Transfer-Encoding"))
        if message.one("Transfer-Encoding"):
            assert message.one("Transfer-Encoding") == "chunked"
            return self.read_chunked()
        if message.one("Content-Length"):
            return self.read(int(message.one("Content-Length")))
        return self.read_to_end() if otherwise is None else otherwise

    def read_response(self, method: str = "GET") -> Message:
        interims = []
        while True:
            message = self.read_head()
            if message.status >= 200 or message.status == 101:
                break
            interims.append(message)
        message.interims = interims
        if method != "HEAD" and message.status not in (101, 204, 304):
            message.body = self.read_framed(message, None)
        return message

    def assert_closed(self) -> None:
        """An orderly close, and nothing before it."""
        assert self.read_to_end() == b""

    def assert_gone(self) -> None:
        """No further byte; closed or aborted."""
        try:
            self.fill()
        except Ended:
            return
        raise AssertionError(f"more bytes: {self.waiting!r}")


class TlsWire(Wire):
    """A TLS conn that one thread may write while another reads: in turn, which OpenSSL wants and Python does not see to
    before 3.13."""

    def __init__(self, sock: ssl.SSLSocket, index: int = 0) -> None:
        super().__init__(sock, index)
        sock.setblocking(False)
        self._turn = threading.Lock()

    def send(self, *data: bytes) -> None:
        left = memoryview(b"".join(data))
        while left:
            left = left[self._try(partial(self.sock.send, left[:65536])) :]

    def send_in_parts(self, parts: Iterable[bytes], pause_s: float = 0.001) -> None:
        for part in parts:
            self.send(part)
            time.sleep(pause_s)

    def fill(self) -> None:
        try:
            more = self._try(partial(self.sock.recv, 65536))
        except (ConnectionError, ssl.SSLError):
            raise Ended(self.waiting, reset=True) from None
        if not more:
            raise Ended(self.waiting, reset=False)
        self.waiting += more

    def _try(self, act: Callable[[], T]) -> T:
        while True:
            try:
                with self._turn:
                    return act()
            except ssl.SSLWantReadError:
                ready = select.select([self.sock], [], [], TIMEOUT_S)
            except ssl.SSLWantWriteError:
                ready = select.select([], [self.sock], [], TIMEOUT_S)
            if not any(ready):
                raise TimeoutError("neither read nor written")


Script = Callable[[Wire], None]


class ScriptedUpstream:
    """A listening socket; every conn is served by `script` in a thread of its own. Faults in scripts fail the test."""

    def __init__(self, script: Script, *, unix_path: str = "", backlog: int = 128) -> None:
        self.script, self.unix_path = script, unix_path
        self.conns: list[Wire] = []
        self.faults: list[BaseException] = []
        self.ended_count = 0
        self._threads: list[threading.Thread] = []
        self._stopping = False
        if unix_path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(unix_path)
        else:
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(backlog)

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    def upstream(self, host: str = "") -> Upstream:
        if self.unix_path:
            return Upstream(unix_path=self.unix_path, host=host)
        return Upstream(addresses=[("127.0.0.1", self.port)], host=host)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self._stopping:
                sock.close()
                return
            wire = Wire(sock, len(self.conns))
            self.conns.append(wire)
            thread = threading.Thread(target=self._serve, args=(wire,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, wire: Wire) -> None:
        try:
            self.script(wire)
        except (Ended, ConnectionError):
            pass                                        # the other end left; tests look at it from their side
        except BaseException as fault:                  # handed to the test's own thread
            self.faults.append(fault)
        finally:
            wire.close()
            self.ended_count += 1

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopping = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._acceptor.join(TIMEOUT_S)
        if self.unix_path:
            Path(self.unix_path).unlink()
        for wire in self.conns:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        if self.faults and kind is None:
            raise self.faults[0]


def serving(handler: Callable[[Wire, Message], None]) -> Script:
    """A script that reads whole requests and lets `handler` answer each, for as long as the conn lives."""

    def script(wire: Wire) -> None:
        while (request := wire.read_request()) is not None:
            handler(wire, request)

    return script


def answering(*responses: bytes) -> Script:
    """The n-th request of a conn gets the n-th response; the last one for all that follow."""

    def script(wire: Wire) -> None:
        count = 0
        while wire.read_request() is not None:
            wire.send(responses[min(count, len(responses) - 1)])
            count += 1

    return script


def response(body: bytes = b"hello", status: str = "200 OK", *fields: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields))
    return head.encode() + b"\r\n" + body


def request(
    target: str = "/",
    *fields: str,
    host: str = "a.tun.test",
    method: str = "GET",
    version: str = "1.1",
    body: bytes = b"",
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def chunked(body: bytes, chunk_bytes: int, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    parts = []
    for at in range(0, len(body), chunk_bytes):
        data = body[at : at + chunk_bytes]
        parts.append(b"%x%s\r\n%s\r\n" % (len(data), extension, data))
    return b"".join(parts) + b"0" + extension + b"\r\n" + trailers + b"\r\n"
