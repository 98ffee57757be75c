"""`/metrics`: the server's figures as Prometheus reads them, for API keys with the scope `read` that see everything.

At an address of its own (setting `metrics`) the same page needs no key, and there is nothing else.
Bound: the server names the busiest tunnels and services and sums up the others, so the page does not grow with the
fleet. Source: docs/operations.md lists every family; names by prometheus.io, "Metric and label naming".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import falcon
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from spokes.admin.context import Admin, CallerKind, Scope
from spokes.admin.dispatch import Authenticate, Resource
from spokes.errors import ForbiddenError, NotSignedInError

OTHERS = "others"                        # the label of what is not named


class Family(NamedTuple):
    """One metric and the figure it shows; one that counts and never falls ends in `_total`."""

    name: str
    figure: str
    help: str


WORKER = (
    Family("spokes_visitors_total", "visitors_total", "Conns of visitors accepted."),
    Family("spokes_visitors_refused_total", "visitors_refused", "Conns of visitors refused by a limit."),
    Family("spokes_http_requests_total", "requests_total", "HTTP requests."),
    Family("spokes_pages_total", "pages_total", "Answers that the engine gave by itself."),
    Family("spokes_received_bytes_total", "bytes_in", "Bytes from visitors."),
    Family("spokes_sent_bytes_total", "bytes_out", "Bytes to visitors."),
    Family("spokes_links_total", "links_total", "Links that came up."),
    Family("spokes_link_received_bytes_total", "link_bytes_in", "Bytes from links, before encryption."),
    Family("spokes_link_sent_bytes_total", "link_bytes_out", "Bytes to links, before encryption."),
    Family("spokes_streams_total", "streams_total", "Streams opened over links."),
    Family("spokes_streams_open", "streams_open", "Streams open now."),
    Family("spokes_upstream_conns_total", "upstreams_total", "Conns to upstreams of ours, such as the administration."),
    Family("spokes_datagrams_received_total", "datagrams_in", "Datagrams from visitors."),
    Family("spokes_datagrams_sent_total", "datagrams_out", "Datagrams to visitors."),
    Family("spokes_datagrams_dropped_total", "datagrams_dropped", "Datagrams dropped, by us or by the kernel."),
    Family("spokes_handovers_total", "handovers_total", "Conns handed to the worker that has their tunnel's links."),
    Family("spokes_errors_total", "errors_total", "Conns and links that ended by an error."),
    Family("spokes_accept_paused_total", "accept_paused_total", "Times that accepting paused for want of files."),
    Family("spokes_access_records_dropped_total", "access_records_dropped", "Access records that had no room."),
    # Its name before; until the next release.
    Family("spokes_visits_dropped_total", "access_records_dropped", "As spokes_access_records_dropped_total."),
    Family(
        "spokes_streams_refused_total",
        "streams_refused",
        "Visitors refused because their tunnel or their address has used up its share.",
    ),
    Family(
        "spokes_streams_reclaimed_total",
        "streams_reclaimed",
        "Slow readers reset, to take back memory from who holds most; the kernel's for TCP too.",
    ),
    Family("spokes_loops_total", "loops_total", "Flows and requests that came back to this server, and were ended."),
    Family("spokes_loop_passes_total", "passes_total", "Turns of the worker's loop."),
    Family("spokes_timers", "timers_open", "Timers that run."),
)
POOL = (
    Family("spokes_visitors_open", "visitors_open", "Conns of visitors open now."),
    Family("spokes_pool_used_bytes", "buffer_bytes", "Buffers in use."),
    Family("spokes_pool_limit_bytes", "buffer_limit_bytes", "What buffers may use at most."),
    Family("spokes_pool_promised_bytes", "window_promised_bytes", "What windows have grown by."),
)
PROCESS = (
    Family("spokes_process_virtual_memory_bytes", "virtual_memory_bytes", "Virtual memory of the server process."),
    Family("spokes_process_resident_memory_bytes", "resident_memory_bytes", "Resident memory of the server process."),
    Family("spokes_process_cpu_seconds_total", "cpu_seconds_total", "CPU time of the server process."),
    Family("spokes_process_open_fds", "open_fds", "Open files of the server process."),
    Family("spokes_process_max_fds", "max_fds", "Open files that the server process may have."),
    Family("spokes_process_threads", "threads", "Threads of the control plane."),
)
STORE = (
    Family("spokes_store_statements_total", "statements_total", "SQL statements of the server process."),
    Family("spokes_store_change_seq", "change_seq", "Place in the change log up to which the server has followed."),
)
SESSIONS = (
    Family("spokes_tunnels_online", "online", "Tunnels whose client is here."),
    Family("spokes_tunnels_active", "active", "Tunnels that may be here."),
    Family("spokes_links", "links", "Links that stand."),
)
TUNNEL = (
    Family("spokes_tunnel_received_bytes_total", "bytes_in", "Bytes from visitors of a tunnel."),
    Family("spokes_tunnel_sent_bytes_total", "bytes_out", "Bytes to visitors of a tunnel."),
    Family("spokes_tunnel_streams_open", "streams_open", "Streams of a tunnel open now."),
)
SERVICE = (
    Family("spokes_service_received_bytes_total", "bytes_in", "Bytes from visitors of a site, port or own host name."),
    Family("spokes_service_sent_bytes_total", "bytes_out", "Bytes to visitors of a site, port or own host name."),
    Family("spokes_service_conns_total", "conns", "Conns of visitors that came to it."),
    Family("spokes_service_http_requests_total", "requests", "HTTP requests to it."),
    Family("spokes_service_streams_open", "streams_open", "Streams of it open now."),
)
TASK = (
    Family("spokes_task_failures_total", "failures_total", "Failures of a task that runs as long as the server."),
)


def render_metrics(figures: Mapping[str, Any]) -> bytes:
    """The answer of the control operation `metrics` as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield _one("spokes_build_info", "The server's version.", [({"version": figures["version"]}, 1)])
        yield _one("spokes_start_time_seconds", "Unix time of the start.", [({}, figures["started_at"])])
        for families, section in ((POOL, "engine"), (PROCESS, "process"), (STORE, "store"), (SESSIONS, "sessions")):
            yield from _families(families, [({}, figures[section])])
        workers = [({"worker": str(index)}, row) for index, row in enumerate(figures["workers"])]
        yield from _families(WORKER, workers)
        tunnels = [({"tunnel": row["id"], "hostname": row["hostname"]}, row) for row in figures["tunnels"]["busiest"]]
        tunnels.append(({"tunnel": OTHERS, "hostname": ""}, figures["tunnels"]["others"]))
        yield from _families(TUNNEL, tunnels)
        services = [
            ({"service": row["id"], "tunnel": row["tunnel_id"], "name": row["name"]}, row)
            for row in figures["services"]["busiest"]
        ]
        services.append(({"service": OTHERS, "tunnel": "", "name": ""}, figures["services"]["others"]))
        yield from _families(SERVICE, services)
        yield _one("spokes_certificate_expiry_time_seconds", "Unix time when a certificate ends.", [
            ({"names": ",".join(one["names"])}, one["expires"]) for one in figures["certificates"]
        ])
        starts = figures["admin"]["starts_total"]
        yield _one("spokes_admin_starts_total", "Starts of the administration.", [({}, starts)])
        tasks = [({"task": row["name"]}, row) for row in figures.get("tasks", ())]
        yield from _families(TASK, tasks)
        yield _one("spokes_changes_set_aside_total", "Changes that could not be applied or told, and are reported.", [
            ({}, figures.get("set_aside_total", 0))
        ])
        webhooks = figures["webhooks"]
        yield _one("spokes_webhook_attempts_total", "Requests to webhooks, by what came of them.", [
            ({"outcome": outcome}, webhooks[f"{outcome}_total"]) for outcome in ("delivered", "failed")
        ])
        yield _one("spokes_webhook_requests_open", "Requests to webhooks under way.", [({}, webhooks["under_way"])])
        yield _one("spokes_alerts_open", "Alerts that stand.", [
            ({"kind": row["kind"], "severity": row["severity"]}, row["count"]) for row in figures["alerts"]
        ])


_Rows = list[tuple[dict[str, str], Any]]


def _families(families: tuple[Family, ...], rows: _Rows) -> Iterator[Metric]:
    for family in families:
        yield _one(family.name, family.help, [(labels, row[family.figure]) for labels, row in rows])


def _one(name: str, words: str, samples: _Rows) -> Metric:
    names = tuple(samples[0][0]) if samples else ()
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    metric = kind(name, words, labels=names)
    for labels, value in samples:
        metric.add_metric([labels[label] for label in names], value)
    return metric


class Metrics(Resource):
    """Takes a key in the Authorization header only: scrapers keep no cookies, and pages of other sites have no key."""

    def __init__(self, admin: Admin, authenticate: Authenticate | None) -> None:
        """`authenticate` None: whoever can reach the address may read."""
        self._admin = admin
        self._authenticate = authenticate

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self._authenticate is not None:
            caller = self._authenticate(self._admin, req)
            if caller.kind is not CallerKind.KEY or caller.login_uid:
                raise NotSignedInError("metrics need an API key: Authorization: Bearer KEY")
            if Scope.READ not in caller.scopes:
                raise ForbiddenError(f"this key lacks the scope: {Scope.READ}")
            caller.check_admin()
        resp.content_type = CONTENT_TYPE
        resp.data = render_metrics(self._admin.control.call("metrics"))
