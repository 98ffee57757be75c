"""What answers behind a tunnel in tests of raw services: small TCP servers, one thread a conn."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from spokes._fastpath.engine import Upstream
from tests.support.engines import listening
from tests.support.threads import join_thread

Handler = Callable[[socket.socket], None]


@dataclass
class TcpUpstream:
    """`faults` holds what handlers raised; a test that ends looks there."""

    port: int
    upstream: Upstream
    conns: list[socket.socket] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)


@contextmanager
def tcp_upstream(handler: Handler) -> Iterator[TcpUpstream]:
    sock = listening()
    sock.setblocking(True)
    port = sock.getsockname()[1]
    running = TcpUpstream(port, Upstream(addresses=[("127.0.0.1", port)]))
    threads: list[threading.Thread] = []

    def serve(conn: socket.socket) -> None:
        with conn:
            try:
                handler(conn)
            except OSError as error:
                running.faults.append(error)

    def accept() -> None:
        while True:
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            conn.settimeout(120)             # of a whole sendall(), which a sanitizer makes long
            running.conns.append(conn)
            threads.append(threading.Thread(target=serve, args=(conn,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield running
    finally:
        sock.shutdown(socket.SHUT_RDWR)
        sock.close()
        acceptor.join(5)
        for conn in running.conns:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def echo(conn: socket.socket) -> None:
    """Every byte back, then the end as well."""
    while data := conn.recv(262144):
        conn.sendall(data)
    conn.shutdown(socket.SHUT_WR)


def pattern(total_bytes: int, seed: int = 1) -> bytes:
    """Bytes that tell where they belong: a cut, a repetition or a swap shows."""
    block = hashlib.sha256(str(seed).encode()).digest()
    step = 65521  # a prime, so that no power of two lines up with it
    chunk = (block * (step // 32 + 1))[:step]
    whole = b"".join(struct.pack(">I", number) + chunk for number in range(total_bytes // (step + 4) + 1))
    return whole[:total_bytes]


def connect(port: int, *, receive_buffer_bytes: int = 0) -> socket.socket:
    sock = socket.socket()
    if receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_exactly(sock: socket.socket, count: int) -> bytes:
    parts: list[bytes] = []
    left = count
    while left:
        data = sock.recv(min(left, 1 << 20))
        assert data, f"the conn ended {left} bytes early"
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def exchange_bytes(port: int, data: bytes) -> bytes:
    """Send all, half-close, read until the end, both at once."""
    with connect(port) as sock:
        sender = threading.Thread(target=send_and_finish, args=(sock, data), daemon=True)
        sender.start()
        answer = read_all(sock)
        join_thread(sender)
        return answer


def send_and_finish(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the other end may have enough; the reader of the answer judges
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def abort(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(sock: socket.socket) -> bool:
    """Reads until the conn ends: True where it ended with RST."""
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


def is_refused(port: int) -> bool:
    """A conn there ends with RST and without a byte, perhaps before connect() has returned."""
    try:
        with connect(port) as sock:
            sock.recv(1)
    except ConnectionResetError:
        return True
    return False
