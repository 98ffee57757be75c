"""The other side of a link by hand: docs/protocol.md over Python's own TLS, as honest or hostile as a test wants."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from tests.support.engines import CHAIN_PEM, DOMAIN, KEY_PEM, listening

WINDOW_BYTES = 262144


class FrameType(IntEnum):
    OPEN = 1
    DATA = 2
    FIN = 3
    RESET = 4
    CREDIT = 5
    PING = 6
    PONG = 7
    CONTROL = 8
    DRAIN = 9
    DATAGRAM = 10
    WINDOW = 11


class Service(IntEnum):
    HTTP = 1
    TCP = 2
    TLS = 3
    UDP = 4


class Frame(NamedTuple):
    type: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, stream: int = 0, payload: bytes = b"", *, flags: int = 0) -> bytes:
    return struct.pack(">HBBI", len(payload), kind, flags, stream) + payload


def open_payload(
    service: int = Service.TCP, port: int = 22, *, name: bytes = b"", family: int = 4, flags: int = 0, hops: int = 0
) -> bytes:
    visitor = bytes((192, 0, 2, 7)) + bytes(12)
    return struct.pack(">BBHBBH16sB", service, flags, port, hops, family, 50000, visitor, len(name)) + name


def open_frame(stream: int, service: int = Service.TCP, port: int = 22, *, name: bytes = b"") -> bytes:
    return frame(FrameType.OPEN, stream, open_payload(service, port, name=name))


def credit(stream: int, limit: int) -> bytes:
    return frame(FrameType.CREDIT, stream, limit.to_bytes(8, "big"))


class FramePeer:
    """A blocking peer. Frames that were not asked for wait in `frames`."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self.sock.settimeout(10)
        self.received = b""
        self.ended = ""  # "", "eof" or the error's name

    def send(self, *parts: bytes) -> None:
        self.sock.sendall(b"".join(parts))

    def try_send(self, *parts: bytes) -> bool:
        """False once the other side has ended the link."""
        try:
            self.send(*parts)
        except TimeoutError:
            raise
        except OSError:
            return False
        return True

    def _fill(self) -> bool:
        try:
            data = self.sock.recv(262144)
        except TimeoutError:
            raise AssertionError("the engine said nothing in time") from None
        except OSError as error:
            self.ended = type(error).__name__
            return False
        if not data:
            self.ended = "eof"
        self.received += data
        return bool(data)

    def read(self, *kinds: int) -> Frame:
        """The next frame of one of these types; PING is answered, others are skipped."""
        while True:
            one = self.next_frame()
            assert one is not None, f"the link has ended ({self.ended})"
            if one.type == FrameType.PING:
                self.send(frame(FrameType.PONG, 0, one.payload))
            if not kinds or one.type in kinds:
                return one

    def next_frame(self) -> Frame | None:
        """None: the link has ended."""
        while len(self.received) < 8 or len(self.received) < 8 + int.from_bytes(self.received[:2], "big"):
            if not self._fill():
                return None
        length, kind, flags, stream = struct.unpack(">HBBI", self.received[:8])
        payload = self.received[8 : 8 + length]
        self.received = self.received[8 + length :]
        return Frame(kind, flags, stream, payload)

    def until_end(self) -> list[Frame]:
        """Every frame until the engine ends the link."""
        frames = []
        while (one := self.next_frame()) is not None:
            frames.append(one)
        return frames

    def ping(self, payload: bytes = b"are-you?") -> None:
        """Returns once the engine has answered: it has read all that was sent before."""
        self.send(frame(FrameType.PING, 0, payload))
        while True:
            one = self.read(FrameType.PONG, FrameType.DATA)
            assert one.type == FrameType.PONG, "DATA that the test did not expect"
            if one.payload == payload:
                return

    def close(self) -> None:
        self.sock.close()


def client_context(alpn: str = "spokes/1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


def connect_peer(port: int) -> FramePeer:
    """A client by hand, its TLS done."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return FramePeer(client_context().wrap_socket(sock, server_hostname=DOMAIN))


def server_context(chain_pem: bytes = CHAIN_PEM, key_pem: bytes = KEY_PEM, *, alpn: str = "spokes/1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if alpn:
        context.set_alpn_protocols([alpn])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "both.pem"
        path.write_bytes(key_pem + chain_pem)
        context.load_cert_chain(path)
    return context


@contextmanager
def listening_peer() -> Iterator[socket.socket]:
    """A socket that a client engine can be sent to; accept_peer() answers there."""
    sock = listening()
    sock.setblocking(True)
    sock.settimeout(10)
    try:
        yield sock
    finally:
        sock.close()


def accept_peer(sock: socket.socket, context: ssl.SSLContext | None = None) -> FramePeer:
    """A server by hand, its TLS done."""
    conn, _ = sock.accept()
    conn.settimeout(10)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return FramePeer((context or server_context()).wrap_socket(conn, server_side=True))
