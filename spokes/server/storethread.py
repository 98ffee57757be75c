"""The store behind one thread: calls queue there in order, and the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from spokes.store import Store

P = ParamSpec("P")
R = TypeVar("R")


class StoreThread:
    """`await thread.run(thread.store.list_tunnels)`: one call at a time, in the order they were made."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.store: Store

    async def open(self, url: str) -> None:
        self.store = await self.run(Store.open, url)

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: call(*args, **kwargs))

    async def close(self) -> None:
        """Waits for the calls that were made; idempotent."""
        if hasattr(self, "store"):
            await self.run(self.store.close)
            del self.store
        self._executor.shutdown()
