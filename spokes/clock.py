"""Wall and monotonic time, read in one place so that tests can put a clock of their own there.

Wall time is Unix seconds as a float, UTC: what rows and the wire hold. Monotonic time is for measuring and deadlines
only and means nothing outside this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """The machine's clocks."""

    def wall_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock(Clock):
    """A clock that moves only when told to."""

    def __init__(self, wall_s: float = 1_800_000_000.0, monotonic_s: float = 1_000.0) -> None:
        self._wall_s = wall_s
        self._monotonic_s = monotonic_s

    def wall_s(self) -> float:
        return self._wall_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks."""
        if seconds < 0:
            raise ValueError("monotonic time does not run backwards; use set_wall for a wall clock that was set back")
        self._wall_s += seconds
        self._monotonic_s += seconds

    def set_wall(self, wall_s: float) -> None:
        """Set the wall clock, forwards or back, as an operator or NTP may."""
        self._wall_s = wall_s


_current: Clock = Clock()


def wall_s() -> float:
    """Unix seconds, UTC."""
    return _current.wall_s()


def monotonic_s() -> float:
    """Seconds since some fixed moment; never goes back."""
    return _current.monotonic_s()


class Since:
    """A moment from which a duration is told: right whatever is done to the wall clock meanwhile."""

    __slots__ = ("_began_s", "wall_s")

    def __init__(self) -> None:
        self.wall_s = wall_s()  # as the clock was then: to be shown, not to be reckoned with
        self._began_s = monotonic_s()

    def lasted_s(self) -> float:
        return monotonic_s() - self._began_s


@contextmanager
def replaced(clock: Clock) -> Iterator[None]:
    """Use `clock` for the whole process inside the block."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before
