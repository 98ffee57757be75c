"""HTTP/1.1 that we speak as a client: one request over a conn of its own, and its answer.

Whom to dial is said apart from the names: addresses that the caller has resolved and checked, or a Unix socket. Nothing
is resolved here and no proxy, redirect or cookie exists, so what was checked is what is connected to; the name stays in
Host and in TLS.
Bound: HEAD_BYTES_MAX up to the end of an answer's head, what the caller says for its body. Time is the caller's.
Fails: OSError (ssl.SSLError included) where the peer cannot be reached, TimeoutError, NotHttpError.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore2

HEAD_BYTES_MAX = 64 * 1024
READ_BYTES = 16 * 1024
# Neither is looked at: what is dialled is the peer, what is written is the Host field that the caller gives.
_ORIGIN = httpcore2.Origin(b"http", b"peer", 80)

NotHttpError = httpcore2.RemoteProtocolError

# It logs what is sent and answered, which may be secret.
logging.getLogger("httpcore2").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to dial: the first of its addresses that takes the conn, or a Unix socket."""

    addresses: Sequence[str] = ()        # literal
    port: int = 0
    tls: ssl.SSLContext | None = None
    server_name: str = ""                # in TLS: what is asked for, and what the certificate must be of
    unix_path: str = ""

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.unix_path:
            return await asyncio.open_unix_connection(self.unix_path, limit=READ_BYTES)
        failure: OSError | None = None
        for address in self.addresses:
            try:
                if self.tls is None:
                    return await asyncio.open_connection(address, self.port, limit=READ_BYTES)
                return await asyncio.open_connection(
                    address, self.port, ssl=self.tls, server_hostname=self.server_name, limit=READ_BYTES
                )
            except ssl.SSLError:         # it is there and not to be trusted: another address is no cure
                raise
            except OSError as error:
                failure = error
        raise failure or OSError("no address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    target: str                          # path and query, quoted
    host: str                            # the Host field
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None

    def url(self) -> httpcore2.URL:
        return httpcore2.URL(scheme=_ORIGIN.scheme, host=_ORIGIN.host, port=_ORIGIN.port, target=self.target)

    def fields(self) -> list[tuple[str, str]]:
        length = [] if self.body is None else [("Content-Length", str(len(self.body)))]
        return [("Host", self.host), *self.headers, *length, ("Connection", "close")]


class OpenAnswer:
    """An answer whose head has come. Its conn stays open until the block of `exchange` ends."""

    def __init__(self, response: httpcore2.Response, stream: _Stream) -> None:
        self.status = response.status
        self._response = response
        self._stream = stream

    async def read(self, bytes_max: int) -> bytes:
        """The whole body; NotHttpError where it is longer."""
        body = bytearray()
        self._stream.left_bytes = None
        async with contextlib.aclosing(self._response.aiter_stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > bytes_max:
                    raise NotHttpError(f"its body is longer than {bytes_max} bytes")
        return bytes(body)

    async def wait_closed(self) -> None:
        """After the body: until the peer closes or breaks the conn."""
        with contextlib.suppress(OSError):
            while await self._stream.read(READ_BYTES):
                pass


@contextlib.asynccontextmanager
async def exchange(peer: Peer, request: Request, *, head_bytes_max: int = HEAD_BYTES_MAX) -> AsyncIterator[OpenAnswer]:
    """Sends the request; inside the block its answer may be read, at its end the conn is cut."""
    dialler = _Dialler(peer, head_bytes_max)
    connection = httpcore2.AsyncHTTPConnection(_ORIGIN, network_backend=dialler)
    try:
        async with connection.stream(
            request.method, request.url(), headers=request.fields(), content=request.body
        ) as response:
            assert dialler.stream is not None
            yield OpenAnswer(response, dialler.stream)
    finally:
        if dialler.stream is not None:
            dialler.stream.cut()


def ask(
    host: str, port: int, request: Request, *, timeout_s: float, body_bytes_max: int, unix_path: str | None = None
) -> tuple[int, bytes]:
    """Status and body, for programs without an event loop. `timeout_s` is for each wait of it."""
    timeout = {"timeout": dict.fromkeys(("connect", "read", "write"), timeout_s)}
    body = bytearray()
    try:
        with (
            httpcore2.HTTPConnection(httpcore2.Origin(b"http", host.encode(), port), uds=unix_path) as connection,
            connection.stream(
                request.method,
                httpcore2.URL(scheme=b"http", host=host.encode(), port=port, target=request.target),
                headers=request.fields(),
                content=request.body,
                extensions=timeout,
            ) as response,
        ):
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > body_bytes_max:
                    raise NotHttpError(f"its body is longer than {body_bytes_max} bytes")
            return response.status, bytes(body)
    except httpcore2.TimeoutException as error:
        raise TimeoutError(str(error) or "timed out") from None
    except httpcore2.NetworkError as error:
        raise ConnectionError(str(error)) from None


class _Dialler(httpcore2.AsyncNetworkBackend):
    """Dials the peer, whatever host it is asked for. TLS is part of it: an address that breaks it is left for the
    next one."""

    def __init__(self, peer: Peer, head_bytes_max: int) -> None:
        self.stream: _Stream | None = None
        self._peer = peer
        self._head_bytes_max = head_bytes_max

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the library's signature; time is the caller's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.stream = _Stream(*await self._peer.dial(), self._head_bytes_max)
        return self.stream


class _Stream(httpcore2.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head_bytes_max: int) -> None:
        self.left_bytes: int | None = head_bytes_max  # that may still come; None: whoever reads the body counts
        self._head_bytes_max = head_bytes_max
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._reader.read(max_bytes)
        if self.left_bytes is not None:
            self.left_bytes -= len(data)
            if self.left_bytes < 0:
                raise NotHttpError(f"its head is longer than {self._head_bytes_max} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        # Not waited for: a peer may answer, and close, before it has read everything.
        self._writer.write(buffer)

    async def aclose(self) -> None:
        self.cut()

    def cut(self) -> None:
        self._writer.transport.abort()
