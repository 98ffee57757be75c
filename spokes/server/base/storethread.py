"""The store behind one thread: calls queue there in order, and the event loop never waits for a disk.

Fails: a call that never returns (a disk, a network file system or a database server that hangs) holds up the calls
behind it, but neither the event loop nor the end of the process: the thread is a daemon, and close() waits for it
CLOSE_WITHIN_S at most. Who answers somebody waits with patience().
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

from spokes import clock
from spokes.errors import StoreError
from spokes.store import Store

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

ANSWER_WITHIN_S = 12.0                   # longer than the store waits for a lock, shorter than a client for an answer
CLOSE_WITHIN_S = 30.0                    # as long as SQLite may need for the last checkpoint of a large log
SLICE_PAUSE_S = 0.02                     # between two slices, for other processes that write

_Call = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class _Running:
    """Since when the thread is in one call; None: it is in none."""

    since: float | None = None


class StoreThread:
    """`await thread.run(thread.store.tunnels.select)`: one call at a time, in the order they were made."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._running = _Running()
        self.store: Store

    async def open(self, url: str) -> None:
        self.store = await self.run(Store.open, url)

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._thread is None:
            self._running = _Running()
            own = (self._calls, self._running)
            self._thread = threading.Thread(target=_work, args=own, name="store", daemon=True)
            self._thread.start()
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._calls.put((lambda: call(*args, **kwargs), done))
        return await done

    async def perform(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """run() for a call that performs an operation (spokes/model/). At a replica it waits for another node, and must
        not hold up who reads, nor what is applied here meanwhile: so it gets a thread of its own there."""
        if self.store.forward is None:
            return await self.run(call, *args, **kwargs)
        return await asyncio.to_thread(call, *args, **kwargs)

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """StoreError, for now, where what is inside is not done within ANSWER_WITHIN_S, and at once where the thread
        has been in one call for so long. A call that is under way goes on, and may yet be done."""
        since = self._running.since
        if since is not None and clock.monotonic_s() - since >= ANSWER_WITHIN_S:
            raise _no_answer()
        limit = asyncio.timeout(ANSWER_WITHIN_S)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise _no_answer() from None
            raise

    async def ask(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """run() with patience."""
        async with self.patience():
            return await self.run(call, *args, **kwargs)

    async def run_in_slices(self, call: Callable[[], int]) -> None:
        """Again and again until it answers 0: whoever needs this thread, or wants to write, comes in between."""
        removed = await self.run(call)
        while removed:
            await asyncio.sleep(SLICE_PAUSE_S)
            removed = await self.run(call)

    async def close(self) -> None:
        """Waits for the calls that were made, then ends the thread, also where the store fails; idempotent."""
        if self._thread is None:
            return
        try:
            if hasattr(self, "store"):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await self.run(self.store.close)
                del self.store
        except TimeoutError:
            log.error("store does not close", extra={"waited_s": CLOSE_WITHIN_S})
        finally:
            self._thread = None
            self._calls.put(None)
            self._calls = queue.SimpleQueue()


def _no_answer() -> StoreError:
    return StoreError("the database does not answer", hint="check its server, or the disk, and the server's log")


def _work(calls: queue.SimpleQueue[_Call | None], running: _Running) -> None:
    while (item := calls.get()) is not None:
        call, done = item
        loop = done.get_loop()
        if done.cancelled():
            continue
        result: Any = None
        error: BaseException | None = None
        running.since = clock.monotonic_s()
        try:
            result = call()
        except BaseException as raised:  # whatever it is belongs to the caller
            error = raised
        running.since = None
        with contextlib.suppress(RuntimeError):  # the loop ended meanwhile: nobody waits any more
            loop.call_soon_threadsafe(_answer, done, result, error)
        del item, call, done, loop, result, error  # an idle thread keeps nothing alive


def _answer(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
