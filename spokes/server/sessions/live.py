"""Tunnels as they are this moment, for the administration: since when, from where, and which services answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.errors import ValueRefusedError
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.registry import Registry, Session

IDS_COUNT_MAX = 1000  # asked for by name in one call; without names all that are on-line are told


class Live:
    """Answers of the operation `live`."""

    def __init__(self, engine: Engine, registry: Registry, routes: RouteTable) -> None:
        self._engine = engine
        self._registry = registry
        self._routes = routes

    def figures(self, args: dict[str, Any]) -> dict[str, Any]:
        """`{"time": …, "tunnels": {id: {…}}}`; a tunnel that is off-line is not in it."""
        return {
            "time": clock.wall_s(),
            "tunnels": {session.tunnel_uid: self._tunnel(session) for session in self._sessions(args.get("ids"))},
        }

    def _sessions(self, ids: Any) -> Iterable[Session]:
        if ids is None:
            return self._registry.sessions()
        if not isinstance(ids, list) or len(ids) > IDS_COUNT_MAX or not all(isinstance(uid, str) for uid in ids):
            raise ValueRefusedError(f"ids is a list of at most {IDS_COUNT_MAX} tunnels")
        return [session for uid in ids if (session := self._registry.get(uid)) is not None]

    def _rtt_ms(self, session: Session) -> float:
        return self._engine.link_rtt_ms(session.primary) if session.primary is not None else 0.0

    def _tunnel(self, session: Session) -> dict[str, Any]:
        slot = self._routes.slot(session.tunnel_uid)
        bytes_in, bytes_out, streams_open, _ = self._engine.tunnel_counters(slot) if slot is not None else (0, 0, 0, 0)
        return {
            "connected_at": session.since.wall_s,
            "uptime_s": int(session.since.lasted_s()),
            "address": session.address,
            "version": session.agent.version,
            "os": session.agent.os,
            "arch": session.agent.arch,
            "unmanaged": session.unmanaged,
            "rtt_ms": round(self._rtt_ms(session), 3),
            "streams_open": streams_open,
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "sites": [site.domain for site in session.config.https if (site.domain, 0) not in session.failing],
            "ports": [
                port.port
                for port in session.config.ports
                if (port.destination or port.dst_port) and ("", port.port) not in session.failing
            ],
        }
