"""Slots for hashing passwords: one at a time, because each hash takes memory and a core, and who waits holds a thread.

Who is better known comes first, then whose source was served longest ago: so a crowd shuts nobody out for longer than
its sources are many.
Bound: `waiting_max` wait, QUEUE_TIMEOUT_S at most. Beyond that who is less known, has more waiting, or knocked more
often within ARRIVALS_MEMORY_S, makes room: one who tries once comes before those who hammer.
Fails: AdmissionRefusedError for who finds no slot or had to make room.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from spokes import clock
from spokes.errors import AdmissionRefusedError

QUEUE_TIMEOUT_S = 5.0
SOURCE_COUNT_MAX = 1_000                 # whose last slot and arrivals are remembered
ARRIVALS_MEMORY_S = 60.0


class Rank(IntEnum):
    """Who comes first."""

    DEVICE = 0                           # brings the mark of a device on which this person has logged in
    SESSION = 1                          # somebody has a session from this address
    UNKNOWN = 2
    FAILED = 3                           # a login failed from this address lately


class _Waiter:
    def __init__(self, source: str, rank: Rank) -> None:
        self.source = source
        self.rank = rank
        self.woken = threading.Event()
        self.has_slot = False


class HashSlots:
    """For any number of threads."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[_Waiter] = []            # oldest first
        self._served: OrderedDict[str, int] = OrderedDict()      # source: number of its last slot
        self._number = 0
        self._arrivals: OrderedDict[str, tuple[int, float]] = OrderedDict()    # source: how many, since when

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @contextmanager
    def slot(self, source: str = "", rank: Rank = Rank.UNKNOWN) -> Iterator[None]:
        self._enter(source, rank)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, source: str, rank: Rank) -> None:
        with self._lock:
            self._note_arrival(source)
            if not self._busy:
                self._busy = True
                self._note_served(source)
                return
            waiter = _Waiter(source, rank)
            if len(self._waiting) >= self._waiting_max:
                self._make_room(waiter)
            self._waiting.append(waiter)
        waiter.woken.wait(QUEUE_TIMEOUT_S)
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if not waiter.has_slot:
                raise _busy()

    def _make_room(self, newcomer: _Waiter) -> None:
        counts = Counter(waiter.source for waiter in self._waiting)
        counts[newcomer.source] += 1

        def standing(one: _Waiter) -> tuple[int, int, int]:
            return one.rank, counts[one.source], self._arrivals.get(one.source, (0, 0.0))[0]

        # The newest of the worst goes: the others have waited longer.
        worst = max(reversed(self._waiting), key=standing)
        if standing(worst) <= standing(newcomer):
            raise _busy()
        self._waiting.remove(worst)
        worst.woken.set()

    def _leave(self) -> None:
        with self._lock:
            if not self._waiting:
                self._busy = False
                return
            following = min(self._waiting, key=lambda one: (one.rank, self._served.get(one.source, 0)))
            self._waiting.remove(following)
            self._note_served(following.source)
            following.has_slot = True
            following.woken.set()

    def _note_arrival(self, source: str) -> None:
        now = clock.monotonic_s()
        count, since = self._arrivals.pop(source, (0, now))
        self._arrivals[source] = (count + 1, since) if now - since < ARRIVALS_MEMORY_S else (1, now)
        if len(self._arrivals) > SOURCE_COUNT_MAX:
            self._arrivals.popitem(last=False)

    def _note_served(self, source: str) -> None:
        self._number += 1
        self._served[source] = self._number
        self._served.move_to_end(source)
        if len(self._served) > SOURCE_COUNT_MAX:
            self._served.popitem(last=False)


def _busy() -> AdmissionRefusedError:
    return AdmissionRefusedError("too many logins at once; try again", retry_after_s=QUEUE_TIMEOUT_S)
