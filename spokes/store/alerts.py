"""Alerts: what is wrong, raised once however often it is seen, until it is resolved. Not in the change log."""

from __future__ import annotations

from typing import Any

import peewee

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import is_uid, new_uid
from spokes.store.base import cleaned_text
from spokes.store.changes import ChangeLog
from spokes.store.db import Database
from spokes.store.models_admin import AlertModel
from spokes.store.rows_admin import Alert, Severity

ALERT_COUNT_MAX = 1_000                  # most alerts handed out by one call

# A second one of the same kind and subject changes what stands only when it became worse; then it is told again.
_RAISE = """
INSERT INTO alert (uid, kind, subject, severity, text, raised) VALUES ({}, {}, {}, {}, {}, {})
ON CONFLICT (kind, subject) WHERE resolved IS NULL DO UPDATE
    SET severity = excluded.severity, text = excluded.text, acknowledged = NULL
    WHERE alert.severity = 'warning' AND excluded.severity = 'critical'
RETURNING uid, kind, subject, severity, text, raised, resolved, acknowledged
"""


class Alerts:
    def __init__(self, db: Database, changes: ChangeLog) -> None:
        self._db = db
        self._changes = changes

    def open(self, kind: str, subject: str, severity: str, text: str) -> Alert | None:
        """The alert, if it is new or grew from a warning to critical; None if it stands already."""
        severity, now = Severity(severity), clock.wall_s()
        values = (new_uid(), kind, cleaned_text(subject), severity.value, cleaned_text(text), now)
        rows = self._db.alone(lambda: self._db.query(_RAISE, values))
        return _to_alert(*rows[0]) if rows else None

    def resolve(self, kind: str, subject: str) -> Alert | None:
        """The alert that is over; None if none stood."""
        query = AlertModel.update(resolved=clock.wall_s()).where(
            AlertModel.kind == kind, AlertModel.subject == cleaned_text(subject), AlertModel.resolved.is_null()
        )
        return self._updated(query)

    def select(self, *, open_only: bool = False, limit: int = ALERT_COUNT_MAX) -> list[Alert]:
        """Newest first."""
        query = AlertModel.select().order_by(AlertModel.raised.desc(), AlertModel.uid)
        query = query.limit(max(0, min(limit, ALERT_COUNT_MAX)))
        if open_only:
            query = query.where(AlertModel.resolved.is_null())
        return [_to_alert(*row) for row in self._db.read(query.tuples())]

    def count_unacknowledged(self) -> int:
        query = AlertModel.select(peewee.fn.COUNT(AlertModel.uid)).where(AlertModel.acknowledged.is_null())
        return int(self._db.rows(query)[0][0])

    def acknowledge(self, uid: str) -> Alert:
        """Somebody has seen it; the first time counts."""
        query = AlertModel.update(
            acknowledged=peewee.fn.COALESCE(AlertModel.acknowledged, clock.wall_s())
        ).where(AlertModel.uid == uid)
        with self._changes.transaction() as tx:
            for row in tx.unlogged(query.returning(AlertModel).tuples()) if is_uid(uid) else ():
                return _to_alert(*row)
            raise NotFoundError("unknown alert")

    def purge(self, older_than: float) -> int:
        """Remove those that were resolved before `older_than` (Unix seconds); how many."""
        return int(self._db.run(AlertModel.delete().where(AlertModel.resolved < older_than)))

    def _updated(self, query: peewee.ModelUpdate) -> Alert | None:
        query = query.returning(AlertModel).tuples()
        rows = self._db.alone(lambda: list(query.execute(self._db.peewee)))
        return _to_alert(*rows[0]) if rows else None


def _to_alert(*row: Any) -> Alert:
    uid, kind, subject, severity, text, raised, resolved, acknowledged = row
    return Alert(
        uid=uid, kind=kind, subject=subject, severity=Severity(severity), text=text, raised=raised, resolved=resolved,
        acknowledged=acknowledged,
    )
