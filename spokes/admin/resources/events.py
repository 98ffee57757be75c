"""Admin events: listing, verifying and exporting them; and alerts."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from spokes.admin.context import Admin, Caller
from spokes.admin.csv_text import CSV, chunks, csv_lines
from spokes.admin.routing import Reply
from spokes.admin.schema.events import (
    AcknowledgeRequest,
    AlertAnswer,
    AlertsAnswer,
    AlertsQuery,
    EventsAnswer,
    EventsQuery,
    VerifyAnswer,
    alert_object,
    event_object,
)
from spokes.admin.scope import changing
from spokes.wire.api_types import time_text

JSON_LINES = "application/x-ndjson"

_CSV_COLUMNS = (
    "seq", "time", "actor_kind", "actor_uid", "actor_name", "address", "action", "object_kind", "object_uid", "before",
    "after", "hash",
)


def list_all(admin: Admin, caller: Caller, body: None, *, query: EventsQuery) -> EventsAnswer:
    """Admin events, newest first."""
    events = admin.store.audit.select(
        before_seq=query.before, limit=query.limit, principal_uid=query.principal, object_uid=query.object_uid,
        action=query.action,
    )
    return EventsAnswer(events=[event_object(event) for event in events])


def verify(admin: Admin, caller: Caller, body: None) -> VerifyAnswer:
    """Whether the chain of admin events is whole."""
    broken_at = admin.store.audit.verify()
    return VerifyAnswer(whole=broken_at is None, broken_at=broken_at or 0)


def export_json_lines(admin: Admin, caller: Caller, body: None) -> Reply:
    """All admin events, oldest first, one JSON object a line, with the hashes that verify them."""
    return Reply(media_type=JSON_LINES, chunks=chunks(admin.store.audit.export()))


def export_csv(admin: Admin, caller: Caller, body: None) -> Reply:
    """All admin events as a table, oldest first."""
    return Reply(media_type=CSV, chunks=chunks(csv_lines(_CSV_COLUMNS, _rows(admin))))


def list_alerts(admin: Admin, caller: Caller, body: None, *, query: AlertsQuery) -> AlertsAnswer:
    """Alerts, newest first; `open=true` leaves out what is over."""
    alerts = admin.store.alerts.select(open_only=query.open, limit=query.limit)
    return AlertsAnswer(alerts=[alert_object(alert) for alert in alerts])


def acknowledge_alert(admin: Admin, caller: Caller, body: AcknowledgeRequest) -> AlertAnswer:
    """Note that somebody has seen an alert."""
    with changing(admin, caller):
        alert = admin.store.alerts.acknowledge(body.alert_uid)
        admin.store.audit.note("alert.acknowledge", "alert", alert.uid, {"kind": alert.kind, "subject": alert.subject})
    return AlertAnswer(alert=alert_object(alert))


def _rows(admin: Admin) -> Iterator[list[str]]:
    for event in admin.store.audit.all_records():
        cells: list[str] = []
        for name in _CSV_COLUMNS:
            value = getattr(event, name)
            if name == "time":
                value = time_text(value)
            elif name in ("before", "after"):
                value = "" if value is None else msgspec.json.encode(value).decode()
            cells.append(str(value))
        yield cells
