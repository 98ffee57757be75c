"""Events of a folder of folders: the kernel (inotify) tells which of them change.

Owns: one inotify descriptor, one watch for each folder, one for their parent and one for where that lies.
Bound: WATCH_COUNT_MAX watches, or as many as the kernel grants; NAME_COUNT_MAX names that wait to be asked for, then it
is "everything".
Fails: never; where watches run out that is said once, and its user has to check all folders now and then.
Source: inotify(7). Three calls through ctypes: the libraries for it (asyncinotify, watchfiles, watchdog) make the same
ones, and either start a thread and walk the tree once more, or make an object for each event.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

EVENTS_BYTES = 64 * 1024
NAME_COUNT_MAX = 1000
WATCH_COUNT_MAX = 20_000  # the kernel has some 8,000 and more for each user

IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x2000, 0x4000, 0x8000, 0x0100_0000

_ENTRIES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ATTRIB
_SELF = IN_DELETE_SELF | IN_MOVE_SELF
_FOLDER = _ENTRIES | IN_CLOSE_WRITE | IN_ONLYDIR
_ROOT = _ENTRIES | _SELF | IN_ONLYDIR
_ABOVE = IN_CREATE | IN_MOVED_TO | IN_ONLYDIR
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)

log = logging.getLogger(__name__)


class FolderEvents:
    """Open it, then add() each folder before it is read; take() says which have changed since."""

    def __init__(self, root: Path, on_change: Callable[[], None], *, watch_count_max: int = WATCH_COUNT_MAX) -> None:
        self._root = root
        self._on_change = on_change
        self._watch_count_max = watch_count_max
        self._fd = -1
        self._root_watch = -1
        self._above_watch = -1
        self._names: dict[int, str] = {}  # by watch
        self._watches: dict[str, int] = {}
        self._changed: set[str] = set()
        self._all_changed = False
        self.is_stale = True  # the folder of folders is another one now, or none is watched yet
        self._is_exhausted = self._has_said_so = False

    def open(self) -> bool:
        """To be called before a check of everything; True when what was watched is watched no longer."""
        self._is_exhausted = False  # some may have been given back
        if not self.is_stale and not (self._root_watch < 0 and self._root.is_dir()):
            return False
        self.close()
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            self._say_exhausted(ctypes.get_errno())
            return True
        self.is_stale = False
        self._above_watch = self._watch(self._root.parent, _ABOVE)
        self._root_watch = self._watch(self._root, _ROOT)
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return True

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
        self._fd = self._root_watch = self._above_watch = -1
        self._names.clear()
        self._watches.clear()
        self.is_stale = True

    def add(self, name: str) -> None:
        """From any thread, one at a time."""
        if self._fd < 0 or self._is_exhausted or name in self._watches:
            return
        if len(self._watches) >= self._watch_count_max:
            self._say_exhausted(errno.ENOSPC)
            return
        watch = self._watch(self._root / name, _FOLDER)
        if watch >= 0:
            self._names[watch] = name
            self._watches[name] = watch

    def drop(self, name: str) -> None:
        """It is no longer there under this name."""
        watch = self._watches.pop(name, -1)
        if watch >= 0 and self._names.get(watch) == name:
            del self._names[watch]
            _libc.inotify_rm_watch(self._fd, watch)

    def take(self) -> set[str] | None:
        """Which have changed since it was asked last; None: check everything."""
        changed = None if self._all_changed else self._changed
        self._changed, self._all_changed = set(), False
        return changed

    def _watch(self, path: Path, mask: int) -> int:
        watch = int(_libc.inotify_add_watch(self._fd, os.fsencode(path), mask))
        if watch < 0 and ctypes.get_errno() == errno.ENOSPC:
            self._say_exhausted(errno.ENOSPC)
        return watch

    def _say_exhausted(self, code: int) -> None:
        self._is_exhausted = True
        if not self._has_said_so:
            self._has_said_so = True
            facts = {
                "path": str(self._root), "count": len(self._watches), "detail": os.strerror(code),
                "hint": "raise fs.inotify.max_user_watches and max_user_instances",
            }  # fmt: skip
            log.warning("too few watches: changes of the other folders are found at the next full check", extra=facts)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, EVENTS_BYTES)
        except OSError:
            return
        at = 0
        while at < len(data):
            watch, mask, _cookie, name_bytes = _EVENT.unpack_from(data, at)
            at += _EVENT.size + name_bytes
            self._note(watch, mask, os.fsdecode(data[at - name_bytes : at].rstrip(b"\0")))
        if self._all_changed or self._changed:
            self._on_change()

    def _note(self, watch: int, mask: int, name: str) -> None:
        if watch == self._above_watch:
            if name == self._root.name:
                self.is_stale = self._all_changed = True
        elif watch == self._root_watch:
            if mask & (_SELF | IN_UNMOUNT | IN_IGNORED):
                self.is_stale = self._all_changed = True
            elif name and not name.startswith("."):
                self._changed.add(name)
        elif mask & IN_Q_OVERFLOW:
            self._all_changed = True
        elif watch in self._names:
            self._changed.add(self._names[watch])
            if mask & IN_IGNORED:  # the kernel has dropped it
                self._watches.pop(self._names.pop(watch), None)
        if len(self._changed) > NAME_COUNT_MAX:
            self._all_changed = True
