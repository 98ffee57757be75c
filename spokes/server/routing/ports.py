"""Public TCP and UDP ports: a port listens while it is allocated, whether its tunnel is on-line or not.

A visitor of an off-line tunnel gets a reset from us rather than an answer of another program: an allocated port stays
ours, and no other program of the host can take it while its client reconnects.
Bound: the range times (workers + 1) sockets per family.
"""

from __future__ import annotations

import logging
from collections.abc import Set

from spokes._fastpath.engine import Engine, ListenerKind
from spokes.config_values import Address
from spokes.errors import SpokesError
from spokes.server.routing.listeners import BoundAddress

log = logging.getLogger(__name__)


class PortListeners:
    """The listening sockets of allocated ports."""

    def __init__(self, engine: Engine, host: str) -> None:
        self._engine = engine
        self._host = host
        self._open: dict[int, list[BoundAddress]] = {}
        self._closed = False
        self.faults: dict[int, SpokesError] = {}

    @property
    def ports(self) -> Set[int]:
        return self._open.keys()

    def sync(self, wanted: Set[int]) -> None:
        """Listens on these ports and no others. One that cannot be bound is in `faults` and tried again next time."""
        if self._closed:
            return
        for port in self._open.keys() - wanted:
            for bound in self._open.pop(port):
                bound.stop(self._engine)
        known, self.faults = self.faults, {}
        for port in sorted(wanted - self._open.keys()):
            try:
                self._open[port] = self._listen(port)
            except SpokesError as error:
                self.faults[port] = error
                if port not in known:
                    log.error("port not served", extra={"port": port, "code": error.code, "detail": str(error)})

    def _listen(self, port: int) -> list[BoundAddress]:
        address = Address(self._host, port)
        bound: list[BoundAddress] = []
        try:
            for kind in (ListenerKind.TCP, ListenerKind.UDP):
                bound.append(BoundAddress(address, kind, self._engine.worker_count))
        except SpokesError:
            for one in bound:
                one.close_sockets()
            raise
        for one in bound:
            one.serve(self._engine)
        return bound

    def close(self) -> None:
        """Stops listening for good."""
        self.sync(frozenset())
        self._closed = True
