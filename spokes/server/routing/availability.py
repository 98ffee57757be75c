"""Availability of services: which are up, as sessions come, go and change their rules, against what was up before.

Bound: what is served by tunnels that are on-line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from spokes import clock
from spokes.wire.rules import TunConfig


class ServiceKey(NamedTuple):
    """A site by its domain, or a port by its number."""

    domain: str
    port: int


class ServiceMove(NamedTuple):
    """A service came up or went down."""

    tunnel_uid: str
    key: ServiceKey
    available: bool
    at: float


class Availability:
    """Told by the sessions; tells whoever wants to hear."""

    def __init__(self) -> None:
        self._up: dict[str, frozenset[ServiceKey]] = {}
        self.on_moves: Callable[[list[ServiceMove]], None] = _nobody

    def serves(
        self, tunnel_uid: str, config: TunConfig, failing: Collection[tuple[str, int]] = frozenset()
    ) -> None:
        """The tunnel is on-line and these rules are in force at both ends; `failing`: of those that do not answer."""
        up = {ServiceKey(site.domain, 0) for site in config.https}
        up |= {ServiceKey("", port.port) for port in config.ports if port.destination or port.dst_port}
        self._become(tunnel_uid, frozenset(up.difference(failing)))

    def offline(self, tunnel_uid: str) -> None:
        self._become(tunnel_uid, frozenset())

    def _become(self, tunnel_uid: str, up: frozenset[ServiceKey]) -> None:
        before = self._up.pop(tunnel_uid, frozenset())
        if up:
            self._up[tunnel_uid] = up
        if up != before:
            now = clock.wall_s()
            gone = _moves(tunnel_uid, before - up, now, available=False)
            self.on_moves(gone + _moves(tunnel_uid, up - before, now, available=True))


def _moves(tunnel_uid: str, keys: Iterable[ServiceKey], at: float, *, available: bool) -> list[ServiceMove]:
    return [ServiceMove(tunnel_uid, key, available, at) for key in sorted(keys)]


def _nobody(_moves: list[ServiceMove]) -> None:
    """Nobody wants to hear."""
