"""Traffic by hour, day and month, in UTC: what services carried, and what of a limit is used. Not in the change log.

Bound: hours are kept for HOURS_KEPT_S, days for DAYS_KEPT_S, months for good.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import peewee

from spokes.ids import ZERO_UID, is_uid
from spokes.store.db import Database
from spokes.store.models import TunnelModel
from spokes.store.models_admin import TrafficModel
from spokes.store.rows_traffic import Period, Traffic, TrafficBy, TrafficDelta, TrafficSum, Usage
from spokes.store.statement import EachOf, Prepared, Statement

HOURS_KEPT_S = 35 * 86_400
DAYS_KEPT_S = 400 * 86_400
LOOKED_UP_COUNT_MAX = 2_000              # tunnels that are looked up one by one
HOUR_S = 3_600
SUM_COUNT_MAX = 1_000                    # most sums handed out by one call
DAY_S = 86_400

# All deltas travel as one JSON parameter and are taken apart once, then added to each of the three periods.
_ADD = """
WITH delta AS MATERIALIZED (SELECT {columns} FROM {source}),
    term (period, start) AS (VALUES ('h', CAST({{}} AS BIGINT)), ('d', {{}}), ('m', {{}}))
INSERT INTO traffic (period, start, tunnel_uid, service_uid, bytes_in, bytes_out, conns)
SELECT term.period, term.start, delta.tunnel_uid, delta.service_uid, delta.bytes_in, delta.bytes_out, delta.conns
FROM term CROSS JOIN delta WHERE true
ON CONFLICT (period, start, tunnel_uid, service_uid) DO UPDATE SET bytes_in = traffic.bytes_in + excluded.bytes_in,
    bytes_out = traffic.bytes_out + excluded.bytes_out, conns = traffic.conns + excluded.conns
"""
_NAMES = ("tunnel_uid", "service_uid", "bytes_in", "bytes_out", "conns")
_SQLITE_ADD = _ADD.format(
    columns=", ".join(f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate(_NAMES)),
    source="json_each({})",
)
_POSTGRESQL_ADD = _ADD.format(
    columns=", ".join(
        f"value->>{i} AS {name}" if name.endswith("_uid") else f"CAST(value->>{i} AS BIGINT) AS {name}"
        for i, name in enumerate(_NAMES)
    ),
    source="jsonb_array_elements(CAST({} AS jsonb)) AS deltas (value)",
)

_USAGE = Statement(lambda day, month: _by(TrafficModel.tunnel_uid, day, month))
_USAGE_OF_TUNNELS = Statement(
    lambda day, month, uids: _by(TrafficModel.tunnel_uid, day, month, TrafficModel.tunnel_uid.in_(EachOf(uids)))
)
_USAGE_OF_SERVICES = Statement(
    lambda day, month, uids: _by(TrafficModel.service_uid, day, month, TrafficModel.tunnel_uid.in_(EachOf(uids)))
)
_USAGE_OF_USER = Statement(
    lambda day, month, uid: _by(TrafficModel.tunnel_uid, day, month, TrafficModel.tunnel_uid.in_(
        TunnelModel.select(TunnelModel.uid).where(TunnelModel.user_uid == uid)
    ))
)
_MONTH_OF_USERS = Statement(
    lambda month: TrafficModel.select(TunnelModel.user_uid, _total())
    .join(TunnelModel, on=(TunnelModel.uid == TrafficModel.tunnel_uid))
    .where(_of(Period.MONTH, month)).group_by(TunnelModel.user_uid)
)


class TrafficLog:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, at: float, rows: Iterable[TrafficDelta]) -> None:
        """Add what was carried up to `at` to its hour, day and month: one statement, however many rows."""
        sums: dict[tuple[str, str], tuple[int, int, int]] = {}
        for row in rows:
            if is_uid(row.tunnel_uid) and is_uid(row.service_uid):
                bytes_in, bytes_out, conns = sums.get((row.tunnel_uid, row.service_uid), (0, 0, 0))
                sums[row.tunnel_uid, row.service_uid] = (
                    bytes_in + row.bytes_in, bytes_out + row.bytes_out, conns + row.conns
                )
        if not sums:
            return
        # By key: two such statements cannot lock each other out, and rows that lie together are written together.
        text = json.dumps([(*key, *sums[key]) for key in sorted(sums)], separators=(",", ":"))
        statement = _SQLITE_ADD if self._db.is_sqlite else _POSTGRESQL_ADD
        starts = [period_start(period, at) for period in (Period.HOUR, Period.DAY, Period.MONTH)]
        # Not through alone(): what was added must not be added again.
        with self._db.write():
            self._db.query(statement, (text, *starts))

    def usage_of_tunnels(self, tunnel_uids: Sequence[str] | None, at: float) -> dict[str, Usage]:
        """{tunnel id: usage}; None: of all. Those that carried nothing this month are not there.

        Of very many, that of others may be there too: reading all is faster then.
        """
        if tunnel_uids is None or len(tunnel_uids) > LOOKED_UP_COUNT_MAX:
            return self._usage(_USAGE(*_starts(at)))
        return self._usage(_USAGE_OF_TUNNELS(*_starts(at), json.dumps(list(filter(is_uid, tunnel_uids)))))

    def usage_of_services(self, tunnel_uids: Sequence[str], at: float) -> dict[str, Usage]:
        """{service id: usage} of the services of these tunnels."""
        return self._usage(_USAGE_OF_SERVICES(*_starts(at), json.dumps(list(filter(is_uid, tunnel_uids)))))

    def usage_of_user(self, uid: str, at: float) -> Usage:
        """Over all of the user's tunnels, deleted ones too."""
        by_tunnel = self._usage(_USAGE_OF_USER(*_starts(at), uid if is_uid(uid) else "")).values()
        return Usage(sum(usage.daily for usage in by_tunnel), sum(usage.monthly for usage in by_tunnel))

    def month_of_users(self, at: float) -> dict[str, int]:
        """{user id: bytes of this month, both ways}: what limits are held against."""
        query = _MONTH_OF_USERS(period_start(Period.MONTH, at))
        return {uid: int(total) for uid, total in self._db.rows(query)}

    def select(
        self, *, period: Period, begin: float, end: float, tunnel_uid: str | None = None,
        service_uid: str | None = None, tunnel_uids: Sequence[str] | None = None, limit: int | None = None,
    ) -> list[Traffic]:
        """Rows whose period starts in `begin`..`end` (the end excluded), by start, tunnel, service."""
        query = TrafficModel.select(
            TrafficModel.period, TrafficModel.start, TrafficModel.tunnel_uid, TrafficModel.service_uid,
            TrafficModel.bytes_in, TrafficModel.bytes_out, TrafficModel.conns,
        ).where(TrafficModel.period == Period(period).value, TrafficModel.start >= begin, TrafficModel.start < end)
        if tunnel_uid is not None:
            query = query.where(TrafficModel.tunnel_uid == (tunnel_uid if is_uid(tunnel_uid) else ""))
        if service_uid is not None:
            query = query.where(TrafficModel.service_uid == (service_uid if is_uid(service_uid) else ""))
        if tunnel_uids is not None:
            query = query.where(self._of_tunnels(tunnel_uids))
        query = query.order_by(TrafficModel.start, TrafficModel.tunnel_uid, TrafficModel.service_uid).limit(limit)
        return [
            Traffic(
                period=Period(kind), start=start, tunnel_uid=tunnel, service_uid=service, bytes_in=bytes_in,
                bytes_out=bytes_out, conns=conns,
            )
            for kind, start, tunnel, service, bytes_in, bytes_out, conns in self._db.rows(query)
        ]

    def sums(
        self, *, by: TrafficBy, period: Period, begin: float, end: float, user_uid: str | None = None,
        tunnel_uid: str | None = None, service_uid: str | None = None,
        after: tuple[int, str, str, str] | None = None, limit: int = SUM_COUNT_MAX,
    ) -> list[TrafficSum]:
        """Sums of the periods that start in `begin`..`end` (the end excluded), by start, user, tunnel and service.

        A tunnel's traffic is that of its present owner, deleted tunnels' too. `after`: (start, user, tunnel, service)
        of the last sum of the page before."""
        zero = peewee.Value(ZERO_UID)
        user = TunnelModel.user_uid
        tunnel = zero if by is TrafficBy.USER else TrafficModel.tunnel_uid
        service = TrafficModel.service_uid if by is TrafficBy.SERVICE else zero
        keys = (TrafficModel.start, user, tunnel, service)
        grouped = [key for key in keys if key is not zero]
        totals = [
            peewee.fn.SUM(field) for field in (TrafficModel.bytes_in, TrafficModel.bytes_out, TrafficModel.conns)
        ]
        query = (
            TrafficModel.select(*grouped, *totals)
            .join(TunnelModel, on=(TunnelModel.uid == TrafficModel.tunnel_uid))
            .where(TrafficModel.period == Period(period).value, TrafficModel.start >= begin, TrafficModel.start < end)
        )
        for field, uid in (
            (user, user_uid), (TrafficModel.tunnel_uid, tunnel_uid), (TrafficModel.service_uid, service_uid)
        ):
            if uid is not None:
                query = query.where(field == (uid if is_uid(uid) else ""))
        if after is not None:
            beyond = None
            for key, value in reversed(list(zip(keys, after, strict=True))):
                if key is not zero:
                    beyond = (key > value) if beyond is None else (key > value) | ((key == value) & beyond)
            query = query.where(beyond)
        query = query.group_by(*grouped).order_by(*grouped).limit(max(0, min(limit, SUM_COUNT_MAX)))
        sums = []
        for row in self._db.rows(query):
            uids = [*row[1:-3], ZERO_UID, ZERO_UID][:3]
            bytes_in, bytes_out, conns = map(int, row[-3:])
            sums.append(TrafficSum(
                start=row[0], user_uid=uids[0], tunnel_uid=uids[1], service_uid=uids[2], bytes_in=bytes_in,
                bytes_out=bytes_out, conns=conns,
            ))
        return sums

    def purge(self, at: float) -> int:
        """Remove the oldest hour and the oldest day that are too old; how many rows. The next call removes the next."""
        removed = 0
        for period, kept_s in ((Period.HOUR, HOURS_KEPT_S), (Period.DAY, DAYS_KEPT_S)):
            oldest = TrafficModel.select(TrafficModel.start).where(
                TrafficModel.period == period.value, TrafficModel.start < at - kept_s
            ).order_by(TrafficModel.start).limit(1)
            for (start,) in self._db.rows(oldest):
                removed += int(self._db.run(
                    TrafficModel.delete().where(TrafficModel.period == period.value, TrafficModel.start == start)
                ))
        return removed

    # --- below -----------------------------------------------------------------------------------------------------

    def _of_tunnels(self, tunnel_uids: Iterable[str]) -> Any:
        return TrafficModel.tunnel_uid.in_(EachOf(filter(is_uid, tunnel_uids)))

    def _usage(self, query: Prepared) -> dict[str, Usage]:
        daily: dict[str, int] = {}
        monthly: dict[str, int] = {}
        for period, key, total in self._db.rows(query):
            (daily if period == Period.DAY else monthly)[key] = int(total)
        return {key: Usage(daily.get(key, 0), total) for key, total in monthly.items()}


def period_start(period: Period, at: float) -> int:
    """Unix seconds of the beginning of the hour, day or month (UTC) that holds `at`."""
    if period == Period.HOUR:
        return int(at // HOUR_S) * HOUR_S
    if period == Period.DAY:
        return int(at // DAY_S) * DAY_S
    moment = datetime.fromtimestamp(at, UTC)
    return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp())


def _total() -> Any:
    return peewee.fn.SUM(TrafficModel.bytes_in + TrafficModel.bytes_out)


def _starts(at: float) -> tuple[int, int]:
    """Of the day and the month."""
    return period_start(Period.DAY, at), period_start(Period.MONTH, at)


def _of(period: Period, start: peewee.Node) -> Any:
    return (TrafficModel.period == period.value) & (TrafficModel.start == start)


def _by(key: peewee.Field, day: peewee.Node, month: peewee.Node, *where: Any) -> Any:
    """(period, key, total) of this day and this month.

    Two queries as one statement: with an OR, neither engine would look rows up by the whole key.
    """
    def query(period: Period, start: peewee.Node) -> Any:
        totals = TrafficModel.select(TrafficModel.period, key, _total()).where(_of(period, start), *where)
        return totals.group_by(TrafficModel.period, key)

    return query(Period.DAY, day).union_all(query(Period.MONTH, month))
