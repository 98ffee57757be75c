"""A token bucket for one sender: a burst at once, a rate in the long run; whoever is faster waits."""

from __future__ import annotations

import asyncio


class TokenBucket:
    """`await pace.turn(cost)` before each piece of work."""

    __slots__ = ("_burst_s", "_interval_s", "_next")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._interval_s = 1.0 / rate_per_s
        self._burst_s = burst * self._interval_s
        self._next = 0.0  # loop time at which the next piece is due, were each done on time

    async def turn(self, cost: float = 1.0) -> None:
        now = asyncio.get_running_loop().time()
        self._next = max(self._next, now - self._burst_s) + cost * self._interval_s
        if self._next > now:
            await asyncio.sleep(self._next - now)
