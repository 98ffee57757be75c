"""Live figures of the server, for `spokes status` and the control socket."""

from __future__ import annotations

from typing import Any

from spokes._fastpath.engine import Engine
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.registry import Registry, Session


def tunnel_figures(engine: Engine, routes: RouteTable, session: Session) -> dict[str, Any]:
    """One tunnel that is on-line here."""
    slot = routes.slot(session.tunnel_uid)
    bytes_in, bytes_out, streams_open, last_heard = engine.tunnel_counters(slot) if slot is not None else (0, 0, 0, 0.0)
    return {
        "id": session.tunnel_uid,
        "hostname": session.config.hostname,
        "address": session.peer,
        "version": session.agent.version,
        "os": session.agent.os,
        "arch": session.agent.arch,
        "generation": session.generation,
        "links": len(session.links),
        "uptime_s": int(session.since.lasted_s()),
        "rtt_ms": round(engine.link_rtt_ms(session.primary), 3) if session.primary is not None else 0.0,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "streams_open": streams_open,
        "last_heard": last_heard,
    }


def traffic_figures(engine: Engine) -> dict[str, Any]:
    stats = engine.stats()
    return {
        "connections": {
            key: stats.get(key, 0)
            for key in (
                "visitors_open",
                "visitors_total",
                "links_open",
                "streams_open",
                "streams_total",
                "requests_total",
            )
        },
        "bytes": {"in": stats.get("bytes_in", 0), "out": stats.get("bytes_out", 0)},
        "datagrams": {name: stats.get(f"datagrams_{name}", 0) for name in ("in", "out", "dropped")},
        "loops": stats.get("loops_total", 0),
        "memory": {
            "buffers_bytes": stats.get("buffer_bytes", 0),
            "limit_bytes": stats.get("buffer_limit_bytes", 0),
        },
        "engine": stats,
    }


def tunnel_count_figures(registry: Registry, routes: RouteTable) -> dict[str, int]:
    return {"online": len(registry), "active": len(routes.slots())}
