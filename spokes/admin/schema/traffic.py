"""Traffic and visits: sums by service, tunnel or user, and records of visitors' conns."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from spokes.admin.schema.envelope import Answer, Part
from spokes.store import TrafficSum as StoredSum
from spokes.store import Visit as StoredVisit
from spokes.wire.api_types import TIME_S_MAX, Bytes, Text, Time, Uid, time_text

PAGE_COUNT_MAX = 1_000
Limit = Annotated[int, Meta(ge=1, le=PAGE_COUNT_MAX)]
Moment = Annotated[int, Meta(ge=0, le=TIME_S_MAX, description="Unix seconds")]
SumCursor = Annotated[str, Meta(pattern="^[0-9]{1,12}-[0-9a-f]{96}$", description="`next` of the page before")]
VisitCursor = Annotated[
    str, Meta(pattern="^[0-9]{1,12}\\.[0-9]{1,9}-[0-9a-f]{32}$", description="`next` of the page before")
]


class TrafficQuery(msgspec.Struct):
    by: Literal["service", "tunnel", "user"] = "service"
    period: Literal["hour", "day", "month"] = "day"
    begin: Moment = 0                    # of periods that start then or later …
    end: Moment = TIME_S_MAX             # … and before this
    user_uid: Uid | None = msgspec.field(name="user", default=None)
    tunnel_uid: Uid | None = msgspec.field(name="tunnel", default=None)
    service_uid: Uid | None = msgspec.field(name="service", default=None)
    after: SumCursor | None = None
    limit: Limit = 100


class TrafficSum(Part):
    """Ids that do not apply are zero. The service is a site, a port, or the tunnel itself for its own host name."""

    start: Time
    user_uid: Uid = msgspec.field(name="userID")
    tunnel_uid: Uid = msgspec.field(name="tunnelID")
    service_uid: Uid = msgspec.field(name="serviceID")
    bytes_in: Bytes = msgspec.field(name="bytesIn")
    bytes_out: Bytes = msgspec.field(name="bytesOut")
    conns: Bytes


class TrafficAnswer(Answer):
    traffic: list[TrafficSum]
    next: str = ""                       # for the page after; "" = there is none


class VisitsQuery(msgspec.Struct):
    begin: Moment | None = None          # of conns that closed then or later …
    end: Moment | None = None            # … and before this
    user_uid: Uid | None = msgspec.field(name="user", default=None)
    tunnel_uid: Uid | None = msgspec.field(name="tunnel", default=None)
    service_uid: Uid | None = msgspec.field(name="service", default=None)
    address: Text | None = None
    before: VisitCursor | None = None
    limit: Limit = 100


class ConnMetric(Part):
    """A visitor's conn that is over. `service`: 1 HTTP, 2 port."""

    id: Uid
    tunnel_uid: Uid = msgspec.field(name="tunnelID")
    service_uid: Uid = msgspec.field(name="serviceID")
    service: Annotated[int, Meta(ge=1, le=2)]
    address: str
    bytes_in: Bytes = msgspec.field(name="bytesIn")
    bytes_out: Bytes = msgspec.field(name="bytesOut")
    established: Time
    closed: Time


class VisitsAnswer(Answer):
    visits: list[ConnMetric]
    next: str = ""


def traffic_object(row: StoredSum) -> TrafficSum:
    return TrafficSum(
        start=time_text(row.start), user_uid=row.user_uid, tunnel_uid=row.tunnel_uid, service_uid=row.service_uid,
        bytes_in=row.bytes_in, bytes_out=row.bytes_out, conns=row.conns,
    )


def visit_object(visit: StoredVisit) -> ConnMetric:
    return ConnMetric(
        id=visit.uid, tunnel_uid=visit.tunnel_uid, service_uid=visit.service_uid, service=visit.service,
        address=visit.address, bytes_in=visit.bytes_in, bytes_out=visit.bytes_out,
        established=time_text(visit.established), closed=time_text(visit.closed),
    )
