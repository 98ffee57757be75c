"""Certificates that operators put down in `certs-extra`: in force by name as soon as they lie there, faults named.

Owns: when which folder is checked (certificate_folders.py): all at the start, when asked to, and now and then; one
as the kernel tells of it. What is bad is checked again before that is said: it may have been half-written.
Fails: never; what is wrong with a folder is its state, a line in the log and an alert.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from spokes.errors import SpokesError
from spokes.server.base.worker_loop import wait_until_set
from spokes.server.certificates.certificate_folders import SETTLE_S, CertificateFolders, Folder
from spokes.server.certificates.folder_events import FolderEvents
from spokes.server.certificates.shown_certificates import ShownCertificates

FOLDER_NAME = "certs-extra"
GATHER_S = 0.05  # changes within so long are checked together
SETTLE_COUNT_MAX = 5  # a folder that is written without end is judged all the same
TRIED_AT_ONCE = 200  # a change that comes meanwhile waits for no more

log = logging.getLogger(__name__)


class Tell(Protocol):
    """Whoever wants to know what is wrong with a folder."""

    def __call__(self, subject: str, error: SpokesError | None, *, is_used: bool) -> None: ...


class CertsExtra:
    """check() once, then run() for as long as the server runs."""

    def __init__(
        self,
        directory: Path,
        shown: ShownCertificates,
        tell: Tell,
        *,
        interval_s: float,
    ) -> None:
        """`tell`: what is wrong with a folder, None where nothing is."""
        self.interval_s = interval_s
        self._shown = shown
        self._tell = tell
        self._woken = asyncio.Event()
        self._is_all_wanted = False
        self._events = FolderEvents(directory / FOLDER_NAME, self._woken.set)
        self._folders = CertificateFolders(directory / FOLDER_NAME, self._events)
        self._checking = asyncio.Lock()
        self._told: dict[str, str] = {}

    def wake(self) -> None:
        """An operator says that there is something new."""
        self._is_all_wanted = True
        self._woken.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self.interval_s
        try:
            while True:
                while self._folders.untried and not self._woken.is_set():
                    await self._try_out()
                await wait_until_set(self._woken, max(0.0, min(due_s - loop.time(), self.interval_s)))
                if not self._woken.is_set() or self._is_all_wanted:
                    due_s = loop.time() + self.interval_s
                    self._is_all_wanted = False
                    self._woken.clear()
                    await self.check()
                else:
                    await asyncio.sleep(GATHER_S)
                    self._woken.clear()
                    await self.check(self._events.take())
        finally:
            self._events.close()

    async def check(self, names: Iterable[str] | None = None) -> None:
        """At these, or at all: what lies there now is in force when this returns."""
        async with self._checking:
            if names is None or self._events.is_stale:
                self._events.open()
                names = None
            for left in reversed(range(SETTLE_COUNT_MAX)):
                await self._take(await asyncio.to_thread(self._folders.walk, names, is_last=left == 0))
                names = self._folders.unsettled
                if not names:
                    break
                await asyncio.sleep(SETTLE_S)

    def list(self) -> list[dict[str, Any]]:
        """For `spokes cert ls`: each folder with its state."""
        return [self._figures(name, folder) for name, folder in sorted(self._folders.known.items())]

    def is_waiting_for(self, name: str) -> bool:
        """Was it bad, and may yet be written whole?"""
        return name in self._folders.unsettled

    async def _try_out(self) -> None:
        async with self._checking:
            await self._take(await asyncio.to_thread(self._folders.try_out, TRIED_AT_ONCE))

    async def _take(self, touched: set[str]) -> None:
        """What is another now is shown, and told of."""
        gone, come = [], []
        for name in touched:
            folder = self._folders.known[name]
            if folder.in_force is not folder.shown:
                gone += [folder.in_force] if folder.in_force is not None else []
                come += [folder.shown] if folder.shown is not None else []
                folder.in_force = folder.shown
            if folder.shown is None and folder.signature is None:
                del self._folders.known[name]
                self._say(name, None)
            else:
                self._say(name, folder.error, is_used=folder.shown is not None)
        if gone or come:
            await self._shown.change(gone, come)

    def _say(self, name: str, error: SpokesError | None, *, is_used: bool = False) -> None:
        subject = f"{FOLDER_NAME}/{name}"
        words = str(error) if error is not None else ""
        if self._told.get(name, "") == words:
            return
        if error is None:
            del self._told[name]
            log.info("certificate good again", extra={"source": subject})
        else:
            self._told[name] = words
            log.warning("certificate not taken", extra={"source": subject, "code": error.code, "detail": error.line()})
        self._tell(subject, error, is_used=is_used)

    def _figures(self, name: str, folder: Folder) -> dict[str, Any]:
        shown, error = folder.shown, folder.error
        state = "in use"
        if shown is None:
            state = "not used"
        elif error is not None:
            state = "last good in use"
        elif not self._shown.leads_to(shown):
            state = "covered by another"
        return {
            "source": f"{FOLDER_NAME}/{name}",
            "names": list(shown.names) if shown is not None else [],
            "expires": shown.expires_at if shown is not None else 0.0,
            "state": state,
            "cause": str(error) if error is not None else "",
            "hint": (error.hint or "") if error is not None else "",
        }
