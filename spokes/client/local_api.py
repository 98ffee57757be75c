"""The running client's local API: its state, and changes to its rules, on the loopback interface alone.

GET /status tells what the client does. POST /operations {"op", "args"} changes rules as operations.py defines them.
POST /one-offs serves a rule for as long as its connection is open (one_offs.py). Both need the token of the access file
(access_file.py), written at start and removed at the end.
Bound: one request of at most 1 MiB a connection, 10 s to arrive, CONNECTION_COUNT_MAX connections.
Fails: foreign Host or Origin is refused before the path is looked at, so no web page can reach it by a name of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h11
import msgspec

from spokes.client.access_file import remove_access, write_access
from spokes.errors import AddressInUseError, NotFoundError, SpokesError

log = logging.getLogger(__name__)

Json = dict[str, Any]

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 4100
BODY_BYTES_MAX = 1024 * 1024
HEAD_DEADLINE_S = 10.0
CONNECTION_COUNT_MAX = 32


class Call(msgspec.Struct, frozen=True):
    """The body of POST /operations."""

    op: str
    args: Json = {}


class Refusal(Exception):
    """An answer that ends the request early."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class LocalApi:
    def __init__(
        self,
        config_path: Path,
        *,
        status: Callable[[], Json],
        perform: Callable[[str, Json], Awaitable[Json]],
        serve_one_off: Callable[[Json], contextlib.AbstractAsyncContextManager[Json]] | None = None,
    ) -> None:
        self._config_path = config_path
        self._access_path: Path | None = None
        self._status = status
        self._perform = perform
        self._serve_one_off = serve_one_off
        self._held: set[asyncio.StreamWriter] = set()  # of the commands whose rule is served
        self._token = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._connection_count = 0
        self.port = 0

    async def start(self, port: int | None = None) -> None:
        """Listen. The default port may be another client's: then any free one will do, the access file names it."""
        try:
            self._server = await self._listen(DEFAULT_PORT if port is None else port)
        except OSError as error:
            if port is not None:
                raise AddressInUseError(
                    f"cannot listen on {LOOPBACK}:{port}: {error.strerror}", hint="choose another --api-port"
                ) from None
            self._server = await self._listen(0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._write_access()

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, LOOPBACK, port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._held:
                writer.close()  # who is at the other end hears that this client is over
            if self._access_path is not None:
                remove_access(self._access_path, self._token)

    def _write_access(self) -> None:
        document = {"address": LOOPBACK, "port": self.port, "token": self._token, "pid": os.getpid()}
        self._access_path = write_access(self._config_path, document)
        if self._access_path is None:
            log.warning(
                "no place for the access file", extra={"lost": "`spoke` commands cannot reach this client"}
            )

    # one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection_count += 1
        held = contextlib.AsyncExitStack()
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
        try:
            if self._connection_count > CONNECTION_COUNT_MAX:
                return
            status, answer = await self._answer(connection, reader, held)
            body = json.dumps(answer).encode()
            headers = [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
                ("Connection", "close"),
            ]
            writer.write(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
            writer.write(connection.send(h11.Data(data=body)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            if "held" in answer:
                self._held.add(writer)
                await reader.read(1)  # until the other end is over
        except (OSError, h11.ProtocolError, TimeoutError) as error:
            log.debug("local API connection ended", extra={"reason": str(error)})
        finally:
            self._connection_count -= 1
            self._held.discard(writer)
            writer.close()
            await held.aclose()

    async def _answer(
        self, connection: h11.Connection, reader: asyncio.StreamReader, held: contextlib.AsyncExitStack
    ) -> tuple[int, Json]:
        try:
            async with asyncio.timeout(HEAD_DEADLINE_S):
                request, body = await _read_request(connection, reader)
            return 200, await self._dispatch(request, body, held)
        except h11.RemoteProtocolError as error:
            return error.error_status_hint, _error("SPK-PROTOCOL", str(error))
        except Refusal as refusal:
            return refusal.status, _error(refusal.code, str(refusal))
        except SpokesError as error:
            return error.http_status, _error(error.code, str(error), error.hint)
        except (TypeError, ValueError, RecursionError) as error:
            return 400, _error("SPK-PROTOCOL", f"wrong arguments: {error}")

    async def _dispatch(self, request: h11.Request, body: bytes, held: contextlib.AsyncExitStack) -> Json:
        headers = {bytes(name).decode("ascii"): bytes(value).decode("latin-1") for name, value in request.headers}
        self._check_origin(headers)
        match bytes(request.method), bytes(request.target):
            case b"GET", b"/status":
                return self._status()
            case b"POST", b"/one-offs" if self._serve_one_off is not None:
                self._check_caller(headers)
                result = await held.enter_async_context(self._serve_one_off(msgspec.json.decode(body, type=Json)))
                return {"result": result, "held": True}
            case b"POST", b"/operations":
                self._check_caller(headers)
                call = msgspec.json.decode(body, type=Call)
                return {"result": await self._perform(call.op, call.args)}
            case _:
                raise NotFoundError("no such path")

    def _check_origin(self, headers: dict[str, str]) -> None:
        own = {f"{name}:{self.port}" for name in (LOOPBACK, "localhost")}
        if headers.get("host", "") not in own:
            raise Refusal(421, "SPK-PROTOCOL", "this Host is not served here")
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            raise Refusal(403, "SPK-TOKEN", "requests from other origins are refused")

    def _check_caller(self, headers: dict[str, str]) -> None:
        self._check_token(headers)
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise Refusal(415, "SPK-PROTOCOL", "the body has to be application/json")

    def _check_token(self, headers: dict[str, str]) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refusal(401, "SPK-TOKEN", "the token of the access file is needed")


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                raise Refusal(413, "SPK-LIMIT", "the body is too long")
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, bytes(body)
        else:
            raise ConnectionError("closed before a whole request")


def _error(code: str, message: str, hint: str = "") -> Json:
    return {"error": {"code": code, "message": message, "hint": hint}}
