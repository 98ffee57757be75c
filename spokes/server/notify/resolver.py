"""The resolver that webhooks share: whoever makes a webhook chooses whose name servers are asked.

Bound: LOOKUP_COUNT_MAX look-ups, one for a name: a name whose servers hang is asked once, by everybody who waits for
it. They are shared by the owners of webhooks, so that names of one that hang leave look-ups for the others.
Fails: OSError as the resolver does; BlockingIOError when the owner's look-ups hang, or all.
"""

from __future__ import annotations

import asyncio
import errno

from spokes.resolver import Resolve
from spokes.shares import Shares

LOOKUP_COUNT_MAX = 32


class SharedResolver:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._under_way: dict[str, asyncio.Task[list[str]]] = {}
        self._shares = Shares(LOOKUP_COUNT_MAX)

    async def __call__(self, host: str, owner: str = "") -> list[str]:
        """`owner`: whose share of the look-ups it is."""
        lookup = self._under_way.get(host)
        if lookup is None:
            if not self._shares.may(owner):
                raise BlockingIOError(errno.EAGAIN, "too many names are being looked up")
            lookup = self._under_way[host] = asyncio.create_task(self._look_up(host))
            self._shares.take(owner)
            lookup.add_done_callback(lambda done: self._finish(host, owner, done))
        return await asyncio.shield(lookup)

    async def _look_up(self, host: str) -> list[str]:
        return list((await self._resolve(host)).addresses)

    def _finish(self, host: str, owner: str, done: asyncio.Task[list[str]]) -> None:
        del self._under_way[host]
        self._shares.give_back(owner)
        if not done.cancelled():
            done.exception()             # seen: those who waited may have given up
