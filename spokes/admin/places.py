"""Places for what holds a thread for long: few in all, and for no one source more than half of them.

Bound: so many at once. Fails: AdmissionRefusedError after PATIENCE_S.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from spokes.errors import AdmissionRefusedError

PATIENCE_S = 0.2                         # of a thread, too
RETRY_AFTER_S = 1.0


class Places:
    """Shared by all calls of a process."""

    def __init__(self, count_max: int, refusal: str) -> None:
        """`refusal`: what is said to who finds no place."""
        self.count_max = count_max
        self.count_per_source_max = (count_max + 1) // 2
        self._refusal = refusal
        self._counts: Counter[str] = Counter()
        self._left = threading.Condition()

    @contextmanager
    def place(self, source: str) -> Iterator[None]:
        with self._left:
            if not self._left.wait_for(lambda: self._has_room(source), PATIENCE_S):
                raise AdmissionRefusedError(self._refusal, retry_after_s=RETRY_AFTER_S)
            self._counts[source] += 1
        try:
            yield
        finally:
            with self._left:
                self._counts[source] -= 1
                self._counts += Counter()    # leaves no zeros behind
                self._left.notify_all()

    def _has_room(self, source: str) -> bool:
        return self._counts.total() < self.count_max and self._counts[source] < self.count_per_source_max
