"""The control socket: answers the other programs of this host. The caller's side is spokes/control.py.

Owns: a Unix socket of mode 0600 in the data directory; who may open it may do everything.
Bound: LINE_BYTES_MAX a line, CONNECTION_COUNT_MAX callers at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from spokes.errors import ControlError, DataDirError, ProtocolError, SpokesError

log = logging.getLogger(__name__)

LINE_BYTES_MAX = 64 * 1024
CONNECTION_COUNT_MAX = 64
CHECK_INTERVAL_S = 2.0

Args = dict[str, Any]
Operation = Callable[[Args], Awaitable[Any]]


class ControlSocket:
    """Serves operations by name."""

    def __init__(self, path: Path, operations: Mapping[str, Operation]) -> None:
        self._path = path
        self._operations = operations
        self._server: asyncio.Server | None = None
        self._file: tuple[int, int] | None = None            # device and inode of the socket that is ours
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Called under the data directory's lock: a socket that is there was left by a server that was killed."""
        self._server = await self._listen()

    async def keep(self, on_made_again: Callable[[], None]) -> None:
        """Makes the socket again, CHECK_INTERVAL_S after somebody took its file away; runs until it is cancelled.

        Without it nobody could tell the server of a change, and everybody would take it for ended.
        """
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            if self._server is None or _file_of(self._path) == self._file:
                continue
            try:
                server = await self._listen()
            except SpokesError as error:
                log.error("control socket is gone", extra={"path": str(self._path), "detail": str(error)})
                continue
            self._server.close()
            self._server = server
            log.warning("control socket was gone and is made again", extra={"path": str(self._path)})
            on_made_again()

    async def _listen(self) -> asyncio.Server:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                sock.bind(str(self._path))
            finally:
                os.umask(before)
        except OSError as error:
            sock.close()
            raise DataDirError(
                f"control socket {self._path} cannot be made: {error.strerror or error}",
                hint="a socket's path holds about 100 bytes; choose a shorter data directory",
            ) from None
        self._file = _file_of(self._path)
        return await asyncio.start_unix_server(self._accept, sock=sock, limit=LINE_BYTES_MAX)

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= CONNECTION_COUNT_MAX:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            return  # the caller went away, or sent a line without an end
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ProtocolError("a request is a JSON object")
            operation = self._operations.get(str(request.pop("op", "")))
            if operation is None:
                raise ProtocolError(f"unknown operation; known: {', '.join(self._operations)}")
            return {"result": await operation(request)}
        except (ValueError, RecursionError):
            return _error(ProtocolError("a request is one line of JSON"))
        except SpokesError as error:
            return _error(error)
        except Exception:
            log.exception("control operation failed")
            return _error(ControlError("the server failed; its log says why"))


def _file_of(path: Path) -> tuple[int, int] | None:
    """Device and inode; None where nothing is, or nothing that this user may see."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _error(error: SpokesError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error)}}
