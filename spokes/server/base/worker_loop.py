"""Worker loops: coroutines that wait for an event, with a time limit or for ever, and do their work each time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from spokes.errors import SpokesError


async def wait_until_set(event: asyncio.Event, timeout_s: float) -> None:
    """Returns when the event is set or the time is over, whichever is first."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return


async def run_when_woken(
    woken: asyncio.Event,
    work: Callable[[], Awaitable[None]],
    *,
    log: logging.Logger,
    failed: str,
    retry_s: float,
    gather_s: float = 0.0,
) -> None:
    """Does `work` each time it is woken, for ever; whoever wakes it meanwhile is served by one more.

    Work that fails is logged with the words `failed` and done again after `retry_s`. What is no SpokesError is raised,
    for the supervisor; the work is then still to be done. `gather_s`: how long what comes together may come in before
    the work begins.
    """
    while True:
        await woken.wait()
        if gather_s:
            await asyncio.sleep(gather_s)
        woken.clear()
        try:
            await work()
        except SpokesError as error:
            log.warning(failed, extra={"code": error.code, "detail": str(error)})
            await asyncio.sleep(retry_s)
            woken.set()
        except Exception:
            woken.set()
            raise
