"""A tunnel client reduced to presence: it registers, logs in and answers PING, thousands to a process.

Owns: its link. Bound: a few KB a link. Fails: LightClientError with the server's own words.
It does not check the server's key and must therefore be pointed at a loopback address only.
Source: docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import struct
import time
from typing import Any

HEADER = struct.Struct(">HBBI")
PING, PONG, CONTROL = 6, 7, 8
MORE_PARTS = 1
PING_AFTER_S = 10.0
ANSWER_WITHIN_S = 60.0
RETRY_MAX = 20


class LightClientError(Exception):
    """The server refused, or went away."""


class ByeError(LightClientError):
    """`bye`, with the time after which the server wants to be asked again (None: never)."""

    def __init__(self, message: dict[str, Any]) -> None:
        super().__init__(f"bye {message.get('code')}: {message.get('reason')}")
        self.retry_after_s: float | None = float(message.get("retry_after_s") or 0.1) if message.get("retry") else None


def make_context() -> ssl.SSLContext:
    """One for all links; resumption is left out so that every link costs the server its full price."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["spokes/1"])
    return context


class Link(asyncio.Protocol):
    """One link: frames in, control messages to whoever waits."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._parts = bytearray()
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None
        self.closed = False
        self.heard_s = time.monotonic()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        self._received += data
        while len(self._received) >= HEADER.size:
            length, kind, flags, _ = HEADER.unpack_from(self._received)
            if len(self._received) < HEADER.size + length:
                return
            payload = bytes(self._received[HEADER.size:HEADER.size + length])
            del self._received[:HEADER.size + length]
            self._take(kind, flags, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._messages.put_nowait(None)

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == PING:
            self._send_frame(PONG, payload)
        elif kind == CONTROL:
            self._parts += payload
            if not flags & MORE_PARTS:
                self._messages.put_nowait(json.loads(self._parts))
                self._parts.clear()

    # ours

    def _send_frame(self, kind: int, payload: bytes) -> None:
        if self._transport and not self.closed:
            self._transport.write(HEADER.pack(len(payload), kind, 0, 0) + payload)

    def send(self, **message: Any) -> None:
        self._send_frame(CONTROL, json.dumps(message).encode())

    def ping(self) -> None:
        self._send_frame(PING, os.urandom(8))

    async def wait_for(self, kind: str) -> dict[str, Any]:
        """The next message of this type; others are passed over, `bye` and the end raise."""
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while True:
                message = await self._messages.get()
                if message is None:
                    raise LightClientError(f"the link ended before {kind!r}")
                if message.get("type") == "bye":
                    raise ByeError(message)
                if message.get("type") == kind:
                    return message

    def fall_silent(self) -> None:
        """Read and write nothing any more, as a machine without power; the socket stays."""
        if self._transport and not self.closed:
            self._transport.pause_reading()

    def close(self) -> None:
        if self._transport:
            self._transport.abort()


class LightClient:
    """Links to one server."""

    def __init__(self, address: str, port: int, server_name: str) -> None:
        self._address, self._port, self._server_name = address, port, server_name
        self._context = make_context()

    async def _open(self) -> Link:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(
            Link, self._address, self._port, ssl=self._context, server_hostname=self._server_name,
            ssl_handshake_timeout=ANSWER_WITHIN_S,
        )
        link.send(type="hello", versions=[1], agent={"version": "light", "os": "", "arch": ""}, time=int(time.time()))
        return link

    async def register(self, token: str, name: str) -> str:
        """A new tunnel; its key."""
        for _ in range(RETRY_MAX):
            link = await self._open()
            try:
                link.send(type="register", token=token, name=name)
                return str((await link.wait_for("registered"))["key"])
            except ByeError as refusal:
                await _wait_as_told(refusal)
            finally:
                link.close()
        raise LightClientError("the server kept asking to come back later")

    async def log_in(self, key: str) -> Link:
        """A serving session for the tunnel of this key."""
        for _ in range(RETRY_MAX):
            link = await self._open()
            try:
                link.send(type="login", key=key, mode="serve")
                await link.wait_for("ready")
            except ByeError as refusal:
                link.close()
                await _wait_as_told(refusal)
            except BaseException:
                link.close()
                raise
            else:
                return link
        raise LightClientError("the server kept asking to come back later")


async def _wait_as_told(refusal: ByeError) -> None:
    if refusal.retry_after_s is None:
        raise refusal
    await asyncio.sleep(refusal.retry_after_s)


async def keep_alive(links: list[Link]) -> None:
    """PING every link that heard nothing for ten seconds, until cancelled."""
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(1.0)
            now_s = time.monotonic()
            for link in links:
                if not link.closed and now_s - link.heard_s >= PING_AFTER_S:
                    link.heard_s = now_s            # the answer comes soon; one PING per interval
                    link.ping()
