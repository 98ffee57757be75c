"""Figures for the metrics endpoint, in one answer: engine, process, store, sessions, the busiest tunnels.

Bound: TUNNEL_COUNT_MAX tunnels and as many services by name; all others together are one more, so that no fleet makes a
page of millions of lines.
"""

from __future__ import annotations

import heapq
import os
import resource
import threading
from pathlib import Path
from typing import Any

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.errors import ValueRefusedError
from spokes.server.notify.alerts import AlertBoard
from spokes.server.notify.webhooks import WebhookDispatcher
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.registry import Registry

TUNNEL_COUNT_DEFAULT = 100
TUNNEL_COUNT_MAX = 1000
_SERVICE_NAMES = ("bytes_in", "bytes_out", "conns", "requests", "streams_open")  # Engine.service_counters()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_figures() -> dict[str, Any]:
    """Of this process, as Prometheus's own clients tell theirs."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = Path("/proc/self/statm").read_text().split()
    return {
        "virtual_memory_bytes": int(pages[0]) * _PAGE_BYTES,
        "resident_memory_bytes": int(pages[1]) * _PAGE_BYTES,
        "cpu_seconds_total": round(usage.ru_utime + usage.ru_stime, 3),
        "open_fds": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 (names only; a Path for each would be waste)
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "threads": threading.active_count(),
    }


def tunnel_traffic_figures(
    engine: Engine, registry: Registry, routes: RouteTable, tunnel_count: Any = TUNNEL_COUNT_DEFAULT
) -> dict[str, Any]:
    """The tunnels that carried most since the server started, and the sum of the others."""
    _check_count(tunnel_count)
    counted = [(uid, *engine.tunnel_counters(slot)[:3]) for uid, slot in routes.slots().items()]
    busiest = heapq.nlargest(tunnel_count, counted, key=lambda row: row[1] + row[2])
    named = {row[0] for row in busiest}
    rest = [row for row in counted if row[0] not in named]
    return {
        "busiest": [
            {
                "id": uid,
                "hostname": routes.hostname(uid),
                "online": registry.get(uid) is not None,
                "bytes_in": bytes_in,
                "bytes_out": bytes_out,
                "streams_open": streams_open,
            }
            for uid, bytes_in, bytes_out, streams_open in busiest
        ],
        "others": {
            "count": len(rest),
            "bytes_in": sum(row[1] for row in rest),
            "bytes_out": sum(row[2] for row in rest),
            "streams_open": sum(row[3] for row in rest),
        },
    }


def service_traffic_figures(
    engine: Engine, routes: RouteTable, service_count: Any = TUNNEL_COUNT_DEFAULT
) -> dict[str, Any]:
    """The same for sites, ports and own host names."""
    _check_count(service_count)
    counted = [(service, engine.service_counters(service)) for service in routes.services()]
    gone = routes.retired_services()  # an object made again under the same id has a name of its own already
    there = [row for row in counted if row[0] not in gone]
    busiest = heapq.nlargest(service_count, there, key=lambda row: row[1][0] + row[1][1])
    named = {service for service, _ in busiest}
    rest = [counters for service, counters in counted if service not in named]
    return {
        "busiest": [
            {
                "id": found.object_uid,
                "tunnel_id": found.tunnel_uid,
                "name": routes.name_of(found.object_uid),
                **dict(zip(_SERVICE_NAMES, counters, strict=True)),
            }
            for service, counters in busiest
            if (found := routes.counted(service)) is not None
        ],
        "others": {"count": len(rest), **{name: sum(row[i] for row in rest) for i, name in enumerate(_SERVICE_NAMES)}},
    }


def alert_figures(alerts: AlertBoard) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "severity": severity.value, "count": count}
        for (kind, severity), count in sorted(alerts.open_counts().items())
    ]


def webhook_figures(dispatcher: WebhookDispatcher) -> dict[str, int]:
    return {
        "delivered_total": dispatcher.delivered_count,
        "failed_total": dispatcher.failed_count,
        "under_way": dispatcher.request_count,
    }


def _check_count(count: Any) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= TUNNEL_COUNT_MAX:
        raise ValueRefusedError(f"tunnel_count is 0 to {TUNNEL_COUNT_MAX}")


def session_figures(registry: Registry, link_count: int, routes: RouteTable) -> dict[str, Any]:
    return {"online": len(registry), "active": len(routes.slots()), "links": link_count, "time": clock.wall_s()}
