"""Blocking calls in daemon threads of their own, for calls that may hang, such as those to a disk.

The event loop's own executor would be the wrong place: a few calls that hang keep all others waiting, and the program's
end waits for them. A daemon thread that hangs costs itself alone, and whoever waits may give up.
Bound: `thread_count_max` threads at once; a call beyond that waits for one.
Fails: with whatever the call raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class DaemonThreads:
    """`await threads.run(call, ...)`, of one event loop."""

    def __init__(self, name: str, thread_count_max: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(thread_count_max)

    async def run(self, call: Callable[..., Result], *args: Any) -> Result:
        """What `call(*args)` returns. A caller may be cancelled; the thread goes on then, and keeps its place."""
        await self._free.acquire()
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._work, args=(answer, call, args), name=self._name, daemon=True).start()
        return await answer

    def _work(self, answer: asyncio.Future[Result], call: Callable[..., Result], args: tuple[Any, ...]) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = call(*args)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            answer.get_loop().call_soon_threadsafe(self._finish, answer, result, failure)

    def _finish(self, answer: asyncio.Future[Result], result: Result, failure: BaseException | None) -> None:
        self._free.release()
        if answer.done():  # whoever waited has given up
            return
        if failure is None:
            answer.set_result(result)
        else:
            answer.set_exception(failure)
