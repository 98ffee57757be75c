"""The folders of `certs-extra` as they were found last. What takes time is here; it runs in a thread, one at a time.

Owns: what is known of each folder; the last good pair of each stays until it ends, whatever lies there since.
Bound: FOLDER_COUNT_MAX folders. A folder that did not change costs one stat of each file; 3 KB a pair (10,000
measured).
Fails: never; what is wrong with a folder is its state.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spokes import clock
from spokes._fastpath import engine as fastpath
from spokes.errors import CertificateError, EngineError, SpokesError
from spokes.server.certificates.certificate_files import Pair, read_pair, signature
from spokes.server.certificates.folder_events import FolderEvents
from spokes.server.certificates.shown_certificates import Shown

FOLDER_COUNT_MAX = 20_000
SETTLE_S = 0.3  # a folder that changed so short ago may still be written
KIND_COUNT_MAX = 256

log = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int, int, int], ...]


@dataclass(slots=True)
class Folder:
    """One folder as it was found last."""

    signature: Signature | None = None  # None: it is not there
    shown: Shown | None = None  # the last good pair
    in_force: Shown | None = None  # what visitors are shown: the same, once that is done
    digest: bytes = b""  # of the last good pair: what tells it from another
    error: SpokesError | None = None  # what is wrong with what lies there now


class CertificateFolders:
    """walk() says which of them have another state now."""

    def __init__(self, root: Path, events: FolderEvents, *, tried_kinds: Iterable[tuple[object, ...]] = ()) -> None:
        self.root = root
        self.known: dict[str, Folder] = {}
        self.unsettled: set[str] = set()  # bad, but perhaps not written whole yet: to be checked again soon
        self.untried: set[str] = set()  # taken without the trial that try_out makes
        self._events = events
        self._kinds = set(tried_kinds)

    def walk(self, names: Iterable[str] | None, *, is_last: bool) -> set[str]:
        """Checks those, or all (None); answers the names of folders that changed. `is_last`: what is bad now is bad."""
        self.unsettled = set()
        if names is not None:
            return {name for name in names if self._check_folder(name, is_last)}
        there = self._names()
        touched = {name for name in there if self._check_folder(name, is_last)}
        touched |= {name for name in self.known.keys() - there if self._note_gone(name)}
        now = clock.wall_s()
        for name, folder in self.known.items():
            if folder.shown is not None and folder.shown.expires_at <= now:
                folder.shown, folder.digest = None, b""
                touched.add(name)
        return touched

    def try_out(self, count_max: int) -> set[str]:
        """As a handshake would use them; the names of those that cannot be."""
        failed = set()
        while self.untried and count_max > 0:
            name = self.untried.pop()
            count_max -= 1
            folder = self.known.get(name)
            if folder is None or folder.shown is None:
                continue
            try:
                folder.shown.certificate.try_out()
            except EngineError as error:
                folder.shown, folder.digest, folder.error = None, b"", error
                failed.add(name)
        return failed

    def _names(self) -> set[str]:
        try:
            with os.scandir(self.root) as entries:
                names = [one.name for one in entries if not one.name.startswith(".") and self._is_folder(one)]
        except FileNotFoundError:
            return set()
        except OSError as error:
            log.warning("certs-extra not read", extra={"path": str(self.root), "detail": error.strerror})
            return set(self.known)
        if len(names) > FOLDER_COUNT_MAX:
            log.warning("certs-extra has too many folders", extra={"count": len(names), "limit": FOLDER_COUNT_MAX})
        return set(sorted(names)[:FOLDER_COUNT_MAX])

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:
            return False

    def _note_gone(self, name: str) -> bool:
        folder = self.known[name]
        self._events.drop(name)
        if folder.signature is None:
            return folder.shown is None
        folder.signature = None
        folder.error = CertificateError(
            f"{self.root / name} is gone", hint="its certificate stays in use until it ends, or the next start"
        )
        return True

    def _check_folder(self, name: str, is_last: bool) -> bool:
        """Is anything of it another now?"""
        path = self.root / name
        known = self.known.get(name)
        self._events.add(name)  # before it is read, or what changes in between would be missed
        try:
            now = signature(path)
        except (FileNotFoundError, NotADirectoryError):
            return known is not None and self._note_gone(name)
        except OSError as error:
            now = (("", 0, 0, 0, error.errno or 0),)
        if known is not None and known.signature == now and known.error is None:
            return False
        if known is None and len(self.known) >= FOLDER_COUNT_MAX:
            return False
        folder = self.known.setdefault(name, Folder())
        try:
            wall = dt.datetime.fromtimestamp(clock.wall_s(), dt.UTC)
            self._take(name, folder, read_pair(path, self.root, wall, [one[0] for one in now if one[0]]))
        except OSError as error:
            folder.error = CertificateError(f"{path} cannot be read: {error.strerror}")
        except (CertificateError, EngineError) as error:
            if not is_last and self._is_fresh(path, now):
                self.unsettled.add(name)
                return False
            folder.error = error
        folder.signature = now
        return True

    def _take(self, name: str, folder: Folder, pair: Pair) -> None:
        digest = pair.digest()
        if digest != folder.digest:
            # What replaces a good pair is tried first, and so is one of each kind; of thousands at a start the others
            # are shown at once and tried afterwards.
            is_tried = folder.shown is not None or pair.kind not in self._kinds
            folder.shown = Shown(
                names=pair.names,
                expires_at=pair.expires_at,
                certificate=fastpath.Certificate(
                    pair.names, pair.chain_pem, pair.key_pem, staple=pair.staple, is_tried=is_tried
                ),
                source=f"{self.root.name}/{name}",
            )
            folder.digest = digest
            if not is_tried:
                self.untried.add(name)
            elif len(self._kinds) < KIND_COUNT_MAX:
                self._kinds.add(pair.kind)
        folder.error = None

    def _is_fresh(self, path: Path, found: Signature) -> bool:
        """Has anything in it changed just now, by the clock of files?"""
        try:
            changed_ns = max([path.stat().st_mtime_ns, *(ctime_ns for *_, ctime_ns in found)])
        except OSError:
            return False
        return 0 <= clock.wall_s() - changed_ns / 1e9 < SETTLE_S
