"""What the store takes and hands out of measured traffic. As rows.py: frozen, no SQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Period(StrEnum):
    """What a row of traffic sums up: by the calendar, in UTC."""

    HOUR = "h"
    DAY = "d"
    MONTH = "m"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficDelta:
    """What a service carried since the last report."""

    service_uid: str
    tunnel_uid: str
    bytes_in: int
    bytes_out: int
    conns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a service carried in one period."""

    period: Period
    start: int                           # Unix seconds
    tunnel_uid: str
    service_uid: str
    bytes_in: int
    bytes_out: int
    conns: int


class TrafficBy(StrEnum):
    """What the rows of a sum stand for."""

    SERVICE = "service"
    TUNNEL = "tunnel"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSum:
    """What a service, a tunnel or a user carried in one period; the ids that do not apply are zero."""

    start: int                           # Unix seconds
    user_uid: str
    tunnel_uid: str
    service_uid: str
    bytes_in: int
    bytes_out: int
    conns: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes both ways, of the calendar day and month in UTC."""

    daily: int = 0
    monthly: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visitor's connection that is over (ConnMetric of the Admin API)."""

    uid: str
    tunnel_uid: str
    service_uid: str
    service: int                         # 1 HTTP, 2 port
    address: str
    bytes_in: int
    bytes_out: int
    established: float
    closed: float
