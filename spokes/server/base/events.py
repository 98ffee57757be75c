"""The engine's events, taken in batches on the event loop.

Fails: a handler that raises is logged and told to `on_failed`; the next event is taken all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from spokes._fastpath.engine import Engine, Event

log = logging.getLogger(__name__)

BATCH_COUNT_MAX = 256  # then the loop's other work gets its turn; the descriptor stays readable


class EventPump:
    """From the engine's descriptor to one handler."""

    def __init__(
        self, engine: Engine, handler: Callable[[Event], None], *, on_failed: Callable[[Exception], None]
    ) -> None:
        self._engine = engine
        self._handler = handler
        self._on_failed = on_failed
        self._fd = engine.event_fd

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._fd, self._take)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)

    def _take(self) -> None:
        for event in self._engine.drain_events(BATCH_COUNT_MAX):
            try:
                self._handler(event)
            except Exception as error:
                log.warning("event not handled", extra={"kind": event.kind, "link": event.link})
                self._on_failed(error)
