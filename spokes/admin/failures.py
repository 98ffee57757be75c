"""Failed sign-ins with keys, by source, in the memory of one process: enough for keys, which nobody guesses.

Failures with passwords are kept in the store (logins.py there), because those can be guessed.
Bound: SOURCE_COUNT_MAX sources; the one that failed longest ago makes room. Nothing is written, whoever knocks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from spokes import clock
from spokes.store.logins import FAILURE_MEMORY_S, failure_wait_s

SOURCE_COUNT_MAX = 10_000


class Failures:
    """Shared by all calls of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()      # source: how often, when last

    def note(self, source: str) -> None:
        now = clock.wall_s()
        with self._lock:
            count, last = self._failed.pop(source, (0, 0.0))
            self._failed[source] = (count + 1 if now - last < FAILURE_MEMORY_S else 1, now)
            if len(self._failed) > SOURCE_COUNT_MAX:
                self._failed.popitem(last=False)

    def has_failed(self, source: str) -> bool:
        with self._lock:
            _, last = self._failed.get(source, (0, 0.0))
        return 0 <= clock.wall_s() - last < FAILURE_MEMORY_S

    def wait_s(self, source: str) -> float:
        """How long it has to wait before its next try."""
        with self._lock:
            count, last = self._failed.get(source, (0, 0.0))
        return failure_wait_s(count, last, clock.wall_s())
