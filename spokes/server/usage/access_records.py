"""Access records: visitors' conns that are over, from the engine's rings into the store, in one batch an interval.

Bound: what the engine keeps between two intervals (ACCESS_RECORD_COUNT_MAX; more is dropped there, and counted), and as
many waiting for the store. In the table: as many rows as configured and a tenth more.
Fails: a store that fails is logged; that interval's records are lost, because newer ones are coming.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.errors import SpokesError
from spokes.ids import new_uid
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.routes import CountedObject
from spokes.store import Visit

log = logging.getLogger(__name__)

ACCESS_RECORD_COUNT_MAX = 16_384  # kept by the engine between two intervals
DAY_S = 86_400.0
_HTTP, _PORT = 1, 2  # kinds of services, as the Admin API numbers them


class AccessRecordWriter:
    def __init__(
        self,
        engine: Engine,
        counted: Callable[[int], CountedObject | None],
        store: StoreThread,
        *,
        kept_s: float,
        row_count_max: int,
    ) -> None:
        """`counted`: what a service of the engine stands for."""
        self.kept_s = kept_s
        self.row_count_max = row_count_max
        self._engine = engine
        self._counted = counted
        self._store = store
        self._pending: list[Visit] = []
        self._written_count = 0  # since old ones were removed

    def read(self) -> None:
        for service, address, bytes_in, bytes_out, established, closed in self._engine.drain_access_records():
            counted = self._counted(service)
            if counted is None or len(self._pending) >= ACCESS_RECORD_COUNT_MAX:
                continue
            self._pending.append(
                Visit(
                    uid=new_uid(),
                    tunnel_uid=counted.tunnel_uid,
                    service_uid=counted.object_uid,
                    service=_PORT if counted.is_port else _HTTP,
                    address=address,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                    established=established,
                    closed=closed,
                )
            )

    async def flush(self) -> None:
        """Writes what was read; does nothing when nothing was."""
        records, self._pending = self._pending, []
        if not records:
            return
        try:
            await self._store.run(self._store.store.access_records.add, records)
            self._written_count += len(records)
            if self._written_count > self.row_count_max // 10:
                self._written_count = 0
                await self.purge()
        except SpokesError as error:
            log.warning(
                "access records not written", extra={"count": len(records), "code": error.code, "detail": str(error)}
            )

    async def purge(self) -> None:
        older_than = clock.wall_s() - self.kept_s
        await self._store.run_in_slices(lambda: self._store.store.access_records.purge(older_than, self.row_count_max))
