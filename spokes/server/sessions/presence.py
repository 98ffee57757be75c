"""Presence, written behind: what changed since the last time, in one statement per interval.

Bound: one pending update for each tunnel. Fails: a store that fails is logged; the updates stay for the next interval.
An update that the store will never take is dropped, with a line in the log.
"""

from __future__ import annotations

import asyncio
import logging

from spokes.errors import SpokesError
from spokes.server.base.set_aside import is_passing
from spokes.server.base.storethread import StoreThread
from spokes.store import PresenceUpdate

log = logging.getLogger(__name__)


class PresenceWriter:
    """Collects the latest update of each tunnel."""

    def __init__(self, store: StoreThread, interval_s: float) -> None:
        self.interval_s = interval_s
        self._store = store
        self._pending: dict[str, PresenceUpdate] = {}
        self._writing = asyncio.Lock()

    def put(self, update: PresenceUpdate) -> None:
        self._pending[update.tunnel_uid] = update

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.interval_s)
            await self.flush()

    async def flush(self) -> None:
        """Returns when every update that was put before has been written, or the store has failed."""
        async with self._writing:
            if not self._pending:
                return
            batch, self._pending = self._pending, {}
            try:
                await self._write(list(batch.values()))
            except BaseException as error:
                self._pending = batch | self._pending  # newer ones win
                if not isinstance(error, SpokesError):  # cancelled: perhaps it is written, and twice does no harm
                    raise
                log.warning("presence not written", extra={"code": error.code, "detail": str(error)})

    async def _write(self, updates: list[PresenceUpdate]) -> None:
        try:
            return await self._store.run(self._store.store.presence.write, updates)
        except Exception as error:
            if is_passing(error):
                raise
            if len(updates) == 1:
                log.exception("presence never written", extra={"tunnel_uid": updates[0].tunnel_uid})
                return None
        for update in updates:
            await self._write([update])
        return None
