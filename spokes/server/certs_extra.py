"""Certificates that operators put down in `certs-extra`: walked again and again, in force by name, faults named.

Owns: what is known of each folder; the last good pair of each stays in use until it ends, whatever lies there since.
Bound: FOLDER_COUNT_MAX folders. A folder that did not change costs one look at its files' dates; 3.3 KB a pair
(10,000 measured).
Fails: never; what is wrong with a folder is its state, a line in the log and an alert.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spokes import clock
from spokes._fastpath import engine as fastpath
from spokes.errors import CertificateError, EngineError, SpokesError
from spokes.server.certificate_files import read_pair, signature
from spokes.server.shown_certificates import Shown, ShownCertificates
from spokes.server.waking import wait_until_set

FOLDER_NAME = "certs-extra"
FOLDER_COUNT_MAX = 20_000

log = logging.getLogger(__name__)

class Tell(Protocol):
    """Whoever wants to know what is wrong with a folder."""

    def __call__(self, subject: str, error: SpokesError | None, *, is_used: bool) -> None: ...


Signature = tuple[tuple[str, int, int, int, int], ...]


@dataclass(slots=True)
class Folder:
    """One folder as it was found last."""

    signature: Signature | None = None  # None: it is not there
    shown: Shown | None = None  # the last good pair
    digest: bytes = b""  # … and what tells it from another
    error: SpokesError | None = None  # what is wrong with what lies there now


class CertsExtra:
    """look() again and again; in a thread it does what takes time."""

    def __init__(
        self,
        directory: Path,
        shown: ShownCertificates,
        tell: Tell,
        *,
        interval_s: float,
    ) -> None:
        """`tell`: what is wrong with a folder, None where nothing is."""
        self._root = directory / FOLDER_NAME
        self._shown = shown
        self._tell = tell
        self._folders: dict[str, Folder] = {}
        self.interval_s = interval_s
        self._looking = asyncio.Lock()
        self._woken = asyncio.Event()
        self._told: dict[str, str] = {}

    def wake(self) -> None:
        """An operator says that there is something new."""
        self._woken.set()

    async def run(self) -> None:
        while True:
            await wait_until_set(self._woken, self.interval_s)
            self._woken.clear()
            await self.look()

    async def look(self) -> None:
        """What lies there now is in force when this returns."""
        async with self._looking:
            changed = await asyncio.to_thread(self._walk)
            now = clock.wall_s()
            for name, folder in list(self._folders.items()):
                if folder.shown is not None and folder.shown.expires_at <= now:
                    folder.shown, folder.digest, changed = None, b"", True
                if folder.shown is None and folder.signature is None:
                    del self._folders[name]
                    self._say(name, None)
                else:
                    self._say(name, folder.error, is_used=folder.shown is not None)
            if changed:
                self._shown.set_extra([folder.shown for folder in self._folders.values() if folder.shown is not None])

    def list(self) -> list[dict[str, Any]]:
        """For `spokes cert ls`: each folder with its state."""
        return [self._figures(name, folder) for name, folder in sorted(self._folders.items())]

    # in a thread

    def _walk(self) -> bool:
        """Whether anything else is to be shown now."""
        changed = False
        names = self._names()
        for name in names:
            changed |= self._look_at(name)
        for name in self._folders.keys() - names:
            folder = self._folders[name]
            if folder.signature is not None:
                folder.signature = None
                folder.error = CertificateError(
                    f"{self._root / name} is gone", hint="its certificate stays in use until it ends, or the next start"
                )
        return changed

    def _names(self) -> set[str]:
        try:
            with os.scandir(self._root) as entries:
                names = [one.name for one in entries if not one.name.startswith(".") and self._is_folder(one)]
        except FileNotFoundError:
            return set()
        except OSError as error:
            log.warning("certs-extra not read", extra={"path": str(self._root), "detail": error.strerror})
            return set(self._folders)
        if len(names) > FOLDER_COUNT_MAX:
            log.warning("certs-extra has too many folders", extra={"count": len(names), "limit": FOLDER_COUNT_MAX})
        return set(sorted(names)[:FOLDER_COUNT_MAX])

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:
            return False

    def _look_at(self, name: str) -> bool:
        path = self._root / name
        known = self._folders.get(name)
        try:
            now = signature(path)
        except OSError as error:
            now = (("", 0, 0, 0, error.errno or 0),)
        if known is not None and known.signature == now and known.error is None:
            return False
        folder = self._folders.setdefault(name, Folder())
        folder.signature = now
        try:
            pair = read_pair(path, self._root, dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC))
            digest = pair.digest()
            folder.error = None
            if digest == folder.digest:
                return False
            folder.shown = Shown(
                names=pair.names,
                expires_at=pair.expires_at,
                certificate=fastpath.Certificate(pair.names, pair.chain_pem, pair.key_pem, staple=pair.staple),
                source=f"{FOLDER_NAME}/{name}",
            )
            folder.digest = digest
        except OSError as error:
            folder.error = CertificateError(f"{path} cannot be read: {error.strerror}")
            return False
        except (CertificateError, EngineError) as error:
            folder.error = error
            return False
        return True

    # on the event loop

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

