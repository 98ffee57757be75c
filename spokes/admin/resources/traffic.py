"""Traffic and visits: pages as JSON, everything as CSV. A basic caller sees that of their own tunnels."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from spokes.admin.context import Admin, Caller
from spokes.admin.csv_text import CSV, chunks, csv_lines
from spokes.admin.routing import Reply
from spokes.admin.schema.traffic import (
    PAGE_COUNT_MAX,
    TrafficAnswer,
    TrafficQuery,
    VisitsAnswer,
    VisitsQuery,
    traffic_object,
    visit_object,
)
from spokes.admin.scope import owner_filter
from spokes.store import Period, TrafficBy, TrafficSum, Visit
from spokes.wire.api_types import time_text

_PERIODS = {"hour": Period.HOUR, "day": Period.DAY, "month": Period.MONTH}
_TRAFFIC_COLUMNS = ("start", "user_uid", "tunnel_uid", "service_uid", "bytes_in", "bytes_out", "conns")
_VISIT_COLUMNS = (
    "uid", "tunnel_uid", "service_uid", "service", "address", "bytes_in", "bytes_out", "established", "closed",
)
_TIMES = ("start", "established", "closed")


def list_traffic(admin: Admin, caller: Caller, body: None, *, query: TrafficQuery) -> TrafficAnswer:
    """Traffic by hour, day or month (UTC), of services, tunnels or users, oldest first."""
    sums = _sums(admin, caller, query)
    following = _sum_cursor(sums[-1]) if len(sums) == query.limit else ""
    return TrafficAnswer(traffic=[traffic_object(row) for row in sums], next=following)


def export_traffic(admin: Admin, caller: Caller, body: None, *, query: TrafficQuery) -> Reply:
    """The same as a table, all of it; `limit` does not count."""

    def rows() -> Iterator[list[str]]:
        page = msgspec.structs.replace(query, limit=PAGE_COUNT_MAX)
        while sums := _sums(admin, caller, page):
            yield from (_cells(row, _TRAFFIC_COLUMNS) for row in sums)
            page = msgspec.structs.replace(page, after=_sum_cursor(sums[-1]))

    return Reply(media_type=CSV, chunks=chunks(csv_lines(_TRAFFIC_COLUMNS, rows())))


def list_visits(admin: Admin, caller: Caller, body: None, *, query: VisitsQuery) -> VisitsAnswer:
    """Conns of visitors that are over, the latest first; kept where the setting connection_metrics says so."""
    visits = _visits(admin, caller, query)
    following = _visit_cursor(visits[-1]) if len(visits) == query.limit else ""
    return VisitsAnswer(visits=[visit_object(visit) for visit in visits], next=following)


def export_visits(admin: Admin, caller: Caller, body: None, *, query: VisitsQuery) -> Reply:
    """The same as a table, all of them; `limit` does not count."""

    def rows() -> Iterator[list[str]]:
        page = msgspec.structs.replace(query, limit=PAGE_COUNT_MAX)
        while visits := _visits(admin, caller, page):
            yield from (_cells(visit, _VISIT_COLUMNS) for visit in visits)
            page = msgspec.structs.replace(page, before=_visit_cursor(visits[-1]))

    return Reply(media_type=CSV, chunks=chunks(csv_lines(_VISIT_COLUMNS, rows())))


def _sums(admin: Admin, caller: Caller, query: TrafficQuery) -> list[TrafficSum]:
    owner = owner_filter(caller)
    if owner is not None and query.user_uid not in (None, owner):
        return []
    after = None
    if query.after is not None:
        start, _, uids = query.after.partition("-")
        after = (int(start), uids[:32], uids[32:64], uids[64:])
    return admin.store.traffic.sums(
        by=TrafficBy(query.by), period=_PERIODS[query.period], begin=query.begin, end=query.end,
        user_uid=query.user_uid if owner is None else owner, tunnel_uid=query.tunnel_uid,
        service_uid=query.service_uid, after=after, limit=query.limit,
    )


def _visits(admin: Admin, caller: Caller, query: VisitsQuery) -> list[Visit]:
    owner = owner_filter(caller)
    if owner is not None and query.user_uid not in (None, owner):
        return []
    before = None
    if query.before is not None:
        closed, _, uid = query.before.partition("-")
        before = (float(closed), uid)
    return admin.store.access_records.select(
        user_uid=query.user_uid if owner is None else owner, tunnel_uid=query.tunnel_uid,
        service_uid=query.service_uid, address=query.address, begin=query.begin, end=query.end, before=before,
        limit=query.limit,
    )


def _sum_cursor(row: TrafficSum) -> str:
    return f"{row.start}-{row.user_uid}{row.tunnel_uid}{row.service_uid}"


def _visit_cursor(visit: Visit) -> str:
    return f"{visit.closed:.9f}-{visit.uid}"       # reads back as the same number: the engine tells milliseconds


def _cells(row: TrafficSum | Visit, columns: tuple[str, ...]) -> list[str]:
    values = ((name, getattr(row, name)) for name in columns)
    return [time_text(value) if name in _TIMES else str(value) for name, value in values]
