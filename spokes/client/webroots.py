"""Directories that sites are served from: opened for the engine, and checked again every `refresh_interval_s`.

Owns: one open directory for each path in use. The engine serves the one that was opened; a deployment that puts another
in its place, or one that is missing when the client starts, is found here and told by `on_change`.
Bound: one thread for a path, THREAD_COUNT_MAX in all: so many directories may be on disks that hang before any other
has to wait. Nothing else of the client waits for a disk, nor does its end.
Fails: a directory that cannot be opened is logged once and is None until it can be.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from spokes.daemon_threads import DaemonThreads
from spokes.errors import WebRootError

log = logging.getLogger(__name__)

REFRESH_INTERVAL_S = 2.0
THREAD_COUNT_MAX = 64
PATIENCE_S = 2.0  # how long anything waits for directories: a dead network mount must not hold up the others


class OpenDirectory(Protocol):
    """The engine's Directory."""

    @property
    def identity(self) -> tuple[int, int]: ...


def usable_web_root(text: str) -> str:
    """The absolute path of a directory that can be served; refused in words for whoever typed it."""
    try:
        path = Path(text).expanduser().absolute()  # a shell leaves the tilde of --webroot=~/site alone
        if not stat.S_ISDIR(path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        if not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
    except (OSError, RuntimeError, ValueError) as error:  # a user that ~ does not know; a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WebRootError(f"web root {text}: {reason}", hint="name a directory that this user may read") from None
    return str(path)


class WebRoots:
    def __init__(
        self,
        open_directory: Callable[[str], OpenDirectory],
        *,
        refresh_interval_s: float = REFRESH_INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._open_directory = open_directory
        self._refresh_interval_s = refresh_interval_s
        self._patience_s = patience_s
        self._known: dict[str, OpenDirectory | None] = {}
        self._failing: set[str] = set()
        self._threads = DaemonThreads("web-root", THREAD_COUNT_MAX)
        self._looking: set[str] = set()  # checked now: a disk that hangs is asked once, not every interval
        self._late: set[asyncio.Task[bool]] = set()
        self.on_change: Callable[[], None] = lambda: None

    def directory(self, path: str) -> OpenDirectory | None:
        """What is open now; None while the directory cannot be opened."""
        return self._known.get(path)

    async def use(self, paths: set[str]) -> None:
        """These directories and no others are in use; waits for new ones, but not for those on a disk that hangs."""
        for path in self._known.keys() - paths:
            del self._known[path]
            self._failing.discard(path)
        await self._look_at(paths - self._known.keys())

    async def refresh(self) -> bool:
        """Check every directory again; True when one was replaced, removed or has come."""
        return await self._look_at(self._known.keys() - self._looking)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_interval_s)
            if await self.refresh():
                self.on_change()

    async def _look_at(self, paths: set[str]) -> bool:
        """True when something changed; what takes long is told by `on_change` when it is done."""
        looking = [asyncio.create_task(self._refresh_one(path)) for path in paths]
        if not looking:
            return False
        done, late = await asyncio.wait(looking, timeout=self._patience_s)
        for task in late:
            self._late.add(task)
            task.add_done_callback(self._take_late)
        return any([task.result() for task in done])

    def _take_late(self, task: asyncio.Task[bool]) -> None:
        self._late.discard(task)
        if not task.cancelled() and task.result():
            self.on_change()

    async def _refresh_one(self, path: str) -> bool:
        before = self._known.setdefault(path, None)
        self._looking.add(path)
        try:
            found = await self._threads.run(self._look, path, before)
        except (OSError, ValueError) as error:  # ValueError: a path with NUL, or that no file system can hold
            found = None
            if path in self._known and path not in self._failing:  # once, not every interval
                self._failing.add(path)
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning("web root not readable", extra={"code": WebRootError.code, "path": path, "reason": reason})
        finally:
            self._looking.discard(path)
        if path not in self._known:  # no longer in use
            return False
        if found is not None and path in self._failing:
            self._failing.discard(path)
            log.warning("web root readable again", extra={"path": path})
        self._known[path] = found
        return found is not before

    def _look(self, path: str, before: OpenDirectory | None) -> OpenDirectory:
        """`before` where it is still the directory of that path, else that one, opened."""
        if not Path(path).is_absolute():  # a server's words: it cannot know where this client was started
            raise NotADirectoryError(errno.ENOTDIR, "not an absolute path")
        info = Path(path).stat()
        if before is not None and before.identity == (info.st_dev, info.st_ino):
            return before
        return self._open_directory(path)
