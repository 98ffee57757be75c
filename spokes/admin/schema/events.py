"""Admin events and alerts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.store import AdminEvent
from spokes.store import Alert as StoredAlert
from spokes.wire.api_types import INT64_MAX, ZERO_TIME, Text, Time, Uid, time_text

PAGE_COUNT_MAX = 1_000
Limit = Annotated[int, Meta(ge=1, le=PAGE_COUNT_MAX)]
Sequence = Annotated[int, Meta(ge=0, le=INT64_MAX)]


class Event(Part):
    """Who did what. `before` and `after` hold what differs, secrets as `…`."""

    seq: Sequence
    time: Time
    principal_kind: str = msgspec.field(name="actorKind")
    principal_uid: Uid = msgspec.field(name="actorID")
    principal_name: str = msgspec.field(name="actorName")
    address: str
    action: str
    object_kind: str = msgspec.field(name="objectKind")
    object_uid: Uid = msgspec.field(name="objectID")
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class EventsQuery(msgspec.Struct):
    before: Sequence | None = None       # the `seq` of the last event of the page before
    limit: Limit = 100
    principal: Uid | None = msgspec.field(name="actor", default=None)
    object_uid: Uid | None = msgspec.field(name="object", default=None)
    action: Text | None = None           # whole, or up to its dot: `user`


class EventsAnswer(Answer):
    events: list[Event]


class VerifyAnswer(Answer):
    whole: bool                          # no event is missing or was changed
    broken_at: Sequence = msgspec.field(name="brokenAt", default=0)


class Alert(Part):
    id: Uid
    kind: str
    subject: str
    severity: Literal["warning", "critical"]
    text: str
    raised: Time
    resolved: Time = ZERO_TIME           # zero: stands
    acknowledged: Time = ZERO_TIME       # zero: nobody has seen it


class AlertsQuery(msgspec.Struct):
    open: bool = False                   # only those that stand
    limit: Limit = 100


class AcknowledgeRequest(Request):
    alert_uid: Uid = msgspec.field(name="alertID")


class AlertAnswer(Answer):
    alert: Alert


class AlertsAnswer(Answer):
    alerts: list[Alert]


def event_object(event: AdminEvent) -> Event:
    return Event(
        seq=event.seq, time=time_text(event.time), principal_kind=event.actor_kind, principal_uid=event.actor_uid,
        principal_name=event.actor_name, address=event.address, action=event.action, object_kind=event.object_kind,
        object_uid=event.object_uid, before=None if event.before is None else dict(event.before),
        after=None if event.after is None else dict(event.after), hash=event.hash,
    )


def alert_object(alert: StoredAlert) -> Alert:
    return Alert(
        id=alert.uid, kind=alert.kind, subject=alert.subject,
        severity="critical" if alert.severity == "critical" else "warning", text=alert.text,
        raised=time_text(alert.raised), resolved=time_text(alert.resolved),
        acknowledged=time_text(alert.acknowledged),
    )
