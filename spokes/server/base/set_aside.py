"""Items set aside: they could not be processed and must not block others; they are counted, reported and retried.

Bound: ITEM_COUNT_MAX items are known; what fails beyond that is named in the log alone, and stands as one subject
`more …` until its owner settles that. Each item is tried TRY_COUNT_MAX times in all.
Fails: never; items that fail again are for people, who have the alert.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from spokes import clock
from spokes.errors import SpokesError

log = logging.getLogger(__name__)

T = TypeVar("T")

ITEM_COUNT_MAX = 100
TRY_COUNT_MAX = 4
RETRY_S = 5.0  # before the second try; then twice as long each time
WORDS_CHARS_MAX = 160
MORE = "more"  # the kind of the subject that stands for those beyond ITEM_COUNT_MAX


class Subject(NamedTuple):
    """What an item is about: `site 61d2…`."""

    kind: str
    uid: str

    def __str__(self) -> str:
        return f"{self.kind} {self.uid}"


@dataclass(slots=True)
class _Aside(Generic[T]):
    item: T | None  # None: there is nothing to try again
    try_count: int
    next_try: float  # of the monotonic clock


class SetAside(Generic[T]):
    def __init__(self, what: str) -> None:
        """`what` an item is, for the log: `change`."""
        self._what = what
        self._more = Subject(MORE, f"{what}s")
        self._items: dict[Subject, _Aside[T]] = {}
        self.total_count = 0  # since the start
        self.on_put: Callable[[Subject, str], None] = lambda _subject, _words: None
        self.on_settled: Callable[[Subject], None] = lambda _subject: None

    def __len__(self) -> int:
        return len(self._items)

    def subjects(self) -> list[Subject]:
        return list(self._items)

    def put(self, subject: Subject, item: T | None, error: Exception) -> None:
        before = self._items.pop(subject, None)
        tried = 1 + (before.try_count if before is not None else 0)
        facts = {"what": self._what, "subject": str(subject), "try_count": tried}
        log.error("set aside", extra=facts, exc_info=error)
        if before is None:
            self.total_count += 1
            if len(self._items) - (self._more in self._items) >= ITEM_COUNT_MAX:
                subject, item, before = self._more, None, self._items.get(self._more)
        wait_s = RETRY_S * 2 ** min(tried - 1, TRY_COUNT_MAX)
        self._items[subject] = _Aside(item, tried, clock.monotonic_s() + wait_s)
        if before is None:
            self.on_put(subject, f"{type(error).__name__}: {error}"[:WORDS_CHARS_MAX])

    def settle(self, subject: Subject) -> bool:
        """It is right now, by a newer one or at another try. False: it was not set aside."""
        if subject not in self._items:
            return False
        log.info("no longer set aside", extra={"what": self._what, "subject": str(subject)})
        del self._items[subject]
        self.on_settled(subject)
        return True

    def settle_more(self) -> bool:
        """Once all that are known one by one are right again. True: there were more, which the caller goes through."""
        return list(self._items) == [self._more] and self.settle(self._more)

    def forget(self, subject: Subject) -> None:
        """A newer one takes its place and is about to be tried for the first time."""
        if (aside := self._items.get(subject)) is not None:
            aside.item, aside.try_count = None, 0

    def due(self) -> list[tuple[Subject, T]]:
        """What is to be tried again now; put() or settle() says what came of it."""
        now = clock.monotonic_s()
        return [
            (subject, aside.item)
            for subject, aside in self._items.items()
            if aside.item is not None and aside.try_count < TRY_COUNT_MAX and aside.next_try <= now
        ]

    def next_try_s(self) -> float | None:
        """How long until something is to be tried again; None: nothing is."""
        times = [
            aside.next_try
            for aside in self._items.values()
            if aside.item is not None and aside.try_count < TRY_COUNT_MAX
        ]
        return max(0.0, min(times) - clock.monotonic_s()) if times else None


def is_passing(error: Exception) -> bool:
    """Whether it would go well later by itself: a store that is away. Else it is the thing itself that is wrong."""
    return isinstance(error, SpokesError) and error.retryable
