"""Admission of logins: a bounded queue before the store; many reconnects at once are processed at a rate.

Bound: `running_max` at work, WAITING_S_MAX in the queue, `rate_per_s` started. Beyond it AdmissionRefusedError tells
when to come back. Owns no clock but the loop's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from spokes.errors import AdmissionRefusedError

RUNNING_MAX = 32
WAITING_S_MAX = 5.0  # a client that waits longer would come back anyway
FAILURES_AT_ONCE = 20  # clients behind one address that all have an old token
FAILURES_PER_S = 1.0
SOURCE_COUNT_MAX = 4096


class Admission:
    """`async with admission.turn():` around what a handshake costs."""

    def __init__(self, rate_per_s: float, *, running_max: int = RUNNING_MAX) -> None:
        self.rate_per_s = rate_per_s
        self._running = asyncio.Semaphore(running_max)
        self._next_start = 0.0  # loop time at which the next one may start
        self._waiting = 0

    @property
    def waiting(self) -> int:
        return self._waiting

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        start = max(self._next_start, now - 1.0)  # what a quiet second left over may be used at once
        wait_s = start - now
        if wait_s > WAITING_S_MAX or self._waiting > self.rate_per_s * WAITING_S_MAX:
            raise AdmissionRefusedError("too many clients log in at once", retry_after_s=wait_s + WAITING_S_MAX)
        self._next_start = start + 1.0 / self.rate_per_s
        self._waiting += 1
        try:
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._running.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._running.release()


class FailedLogins:
    """Who showed wrong tokens lately. A source may fail FAILURES_AT_ONCE times and FAILURES_PER_S in the long run. Who
    fails more is refused before it costs a turn, so that guessing takes no turns from those who know their token.

    Bound: SOURCE_COUNT_MAX sources; the one that failed longest ago makes room.
    """

    def __init__(self) -> None:
        self._free_at: OrderedDict[str, float] = OrderedDict()  # source: loop time at which its failures are forgotten

    def check(self, source: str) -> None:
        now = asyncio.get_running_loop().time()
        over_s = self._free_at.get(source, now) - now - FAILURES_AT_ONCE / FAILURES_PER_S
        if over_s > 0:
            raise AdmissionRefusedError("too many wrong tokens from this address", retry_after_s=max(1.0, over_s))

    def note(self, source: str) -> None:
        now = asyncio.get_running_loop().time()
        self._free_at[source] = max(self._free_at.get(source, now), now) + 1.0 / FAILURES_PER_S
        self._free_at.move_to_end(source)
        if len(self._free_at) > SOURCE_COUNT_MAX:
            self._free_at.popitem(last=False)
