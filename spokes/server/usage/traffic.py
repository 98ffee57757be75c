"""Traffic, counted from the engine into the store: what each service carried since the last time, in one statement.

Bound: one pending sum for each service. Fails: a store that fails is logged; the sums stay for the next interval. A
killed server loses at most one interval; an object that is deleted is counted until its last stream has ended.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.errors import SpokesError
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.routes import RouteTable
from spokes.server.usage.access_records import AccessRecordWriter
from spokes.store import TrafficDelta

log = logging.getLogger(__name__)

_Sum = tuple[int, int, int]  # bytes in, bytes out, conns


class TrafficMeter:
    """The only one who takes traffic from the engine, so that each byte is counted once."""

    def __init__(self, engine: Engine, routes: RouteTable, store: StoreThread, records: AccessRecordWriter) -> None:
        self._engine = engine
        self._routes = routes
        self._store = store
        self._records = records
        self._pending: defaultdict[tuple[str, str], _Sum] = defaultdict(lambda: (0, 0, 0))  # by tunnel and service
        self._pending_bytes: defaultdict[str, int] = defaultdict(int)  # by tunnel
        self._ended: frozenset[int] = frozenset()  # retired services that nothing used at the last check

    def pending(self) -> Iterator[tuple[str, int]]:
        """Tunnels, and what was counted of each and is not in the store yet."""
        return iter(self._pending_bytes.items())

    def read(self) -> None:
        """Takes over what the engine counted, and lets go of services that are gone and will carry no more."""
        retired = self._routes.retired_services()
        ended = frozenset(service for service in retired if not self._engine.service_counters(service)[4])
        self._records.read()
        for service, bytes_in, bytes_out, conns in self._engine.take_traffic():
            counted = self._routes.counted(service)
            if counted is not None:
                self._add(counted.tunnel_uid, counted.object_uid, (bytes_in, bytes_out, conns))
        for service in ended & self._ended:  # unused twice: the workers have long had the table without it
            self._routes.forget_service(service)
        self._ended = ended

    def _add(self, tunnel_uid: str, service_uid: str, more: _Sum) -> None:
        before = self._pending[tunnel_uid, service_uid]
        after = (before[0] + more[0], before[1] + more[1], before[2] + more[2])
        if any(after):
            self._pending[tunnel_uid, service_uid] = after
        else:
            del self._pending[tunnel_uid, service_uid]
        self._pending_bytes[tunnel_uid] += more[0] + more[1]
        if not self._pending_bytes[tunnel_uid]:
            del self._pending_bytes[tunnel_uid]

    async def flush(self) -> None:
        """Reads, and writes what is pending; does nothing when nothing is."""
        self.read()
        await self._records.flush()
        if not self._pending:
            return
        written, now = dict(self._pending), clock.wall_s()
        rows = [
            TrafficDelta(
                service_uid=service_uid, tunnel_uid=tunnel_uid, bytes_in=bytes_in, bytes_out=bytes_out, conns=conns
            )
            for (tunnel_uid, service_uid), (bytes_in, bytes_out, conns) in written.items()
        ]
        try:
            await self._store.run(self._store.store.traffic.add, now, rows)
        except SpokesError as error:
            log.warning("traffic not written", extra={"code": error.code, "detail": str(error)})
            return
        for (tunnel_uid, service_uid), (bytes_in, bytes_out, conns) in written.items():
            self._add(tunnel_uid, service_uid, (-bytes_in, -bytes_out, -conns))
