"""Slots for what holds a thread for long: few in all, and for no one source more than half of them.

Bound: so many at once, and one that waits for a slot, for it holds a thread as well. Fails: AdmissionRefusedError at
once, who may wait after PATIENCE_S.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from spokes.errors import AdmissionRefusedError
from spokes.shares import Shares

PATIENCE_S = 0.2                         # of a thread, too
RETRY_AFTER_S = 1.0


class Slots:
    """Shared by all calls of a process."""

    def __init__(self, count_max: int, refusal: str, *, count_per_source_max: int = 0) -> None:
        """`refusal`: what is said to who finds no free slot; `count_per_source_max`: half of all unless it is said."""
        self.count_max = count_max
        self.count_per_source_max = count_per_source_max or (count_max + 1) // 2
        self._refusal = refusal
        self._counts: Counter[str] = Counter()
        self.is_waiting = False
        self._left = threading.Condition()

    @contextmanager
    def slot(self, source: str) -> Iterator[None]:
        with self._left:
            if not self._has_room(source):
                self._wait(source)
            self._counts[source] += 1
        try:
            yield
        finally:
            with self._left:
                self._counts[source] -= 1
                self._counts += Counter()    # leaves no zeros behind
                self._left.notify_all()

    def _wait(self, source: str) -> None:
        """Many who wait for one source's slots would hold every thread: the second one is refused."""
        if self.is_waiting:
            raise self._refused()
        self.is_waiting = True
        try:
            if not self._left.wait_for(lambda: self._has_room(source), PATIENCE_S):
                raise self._refused()
        finally:
            self.is_waiting = False

    def _refused(self) -> AdmissionRefusedError:
        return AdmissionRefusedError(self._refusal, retry_after_s=RETRY_AFTER_S)

    def _has_room(self, source: str) -> bool:
        return self._counts.total() < self.count_max and self._counts[source] < self.count_per_source_max


class SharedSlots:
    """Slots of any size, lent to sources as shares.py says; for any number of threads.

    Bound: `waiting_max` wait, for `patience_s` each, one source in all but one of these at most.
    """

    def __init__(self, total: int, refusal: str, *, waiting_max: int, patience_s: float = PATIENCE_S) -> None:
        self._shares = Shares(total)
        self._refusal = refusal
        self._waiting_max = waiting_max
        self._patience_s = patience_s
        self._waiting: Counter[str] = Counter()
        self._left = threading.Condition()

    @property
    def waiting_count(self) -> int:
        return self._waiting.total()

    def acquire(self, source: str, amount: int = 1) -> None:
        amount = min(amount, self._shares.total)
        with self._left:
            if not self._shares.may(source, amount):
                self._wait(source, amount)
            self._shares.take(source, amount)

    def release(self, source: str, amount: int = 1) -> None:
        with self._left:
            self._shares.give_back(source, min(amount, self._shares.total))
            self._left.notify_all()

    @contextmanager
    def slot(self, source: str, amount: int = 1) -> Iterator[None]:
        self.acquire(source, amount)
        try:
            yield
        finally:
            self.release(source, amount)

    def _wait(self, source: str, amount: int) -> None:
        own_max = max(1, self._waiting_max - 1)
        if self._waiting.total() >= self._waiting_max or self._waiting[source] >= own_max:
            raise self._refused()
        self._waiting[source] += 1
        try:
            if not self._left.wait_for(lambda: self._shares.may(source, amount), self._patience_s):
                raise self._refused()
        finally:
            self._waiting[source] -= 1
            self._waiting += Counter()   # leaves no zeros behind

    def _refused(self) -> AdmissionRefusedError:
        return AdmissionRefusedError(self._refusal, retry_after_s=RETRY_AFTER_S)
