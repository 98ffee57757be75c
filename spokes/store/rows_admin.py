"""What the store hands out of administration: logins, pages, deliveries, events, alerts. As rows.py: frozen, no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from spokes.ids import ZERO_UID
from spokes.store.rows import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A cookie session of the Admin API, of an API key or a person; `uid` is not the cookie."""

    uid: str
    api_key_uid: str = ZERO_UID
    user_uid: str = ZERO_UID
    created: float
    expires: float
    address: str
    agent: str


@dataclass(frozen=True, slots=True)
class PageLink:
    """One page of a frozen list: its id, its place (from 1) and how many tunnels are on it."""

    uid: str
    order: int
    count: int


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """A webhook's body to be sent. Those with one `subject` go out in order, those without one in any."""

    webhook_uid: str
    kind: str
    subject: str = ""
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    seq: int                             # grows; the order of a listing
    uid: str
    webhook_uid: str
    kind: str
    subject: str
    body: str = field(repr=False)
    created: float
    state: DeliveryState
    attempts: int
    next_attempt: float
    http_status: int                     # of the latest attempt; 0: no answer
    error: str
    finished: float | None


class ActorKind(StrEnum):
    KEY = "key"
    PERSON = "person"
    SHELL = "shell"
    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something: what admin events name."""

    kind: str                            # an ActorKind
    uid: str = ZERO_UID
    name: str = ""
    address: str = ""
    tenant_uid: str = ZERO_UID           # the user whose share of events it takes; zero: an administrator's, unbounded


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminEvent:
    """Who did what, when and from where. `before` and `after` hold what differs, secrets as `…`."""

    seq: int
    time: float
    actor_kind: str
    actor_uid: str
    actor_name: str
    address: str
    action: str                          # user.create, tunnel.shutdown, login.refused
    object_kind: str
    object_uid: str
    before: Json | None
    after: Json | None
    previous_hash: str
    hash: str


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    uid: str
    kind: str
    subject: str
    severity: Severity
    text: str
    raised: float
    resolved: float | None = None
    acknowledged: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainProof:
    """Whether a user has shown that a domain, and what lies under it, is theirs."""

    user_uid: str
    domain: str
    proved: float                        # when; 0: not, or no longer
    checked: float
    failures: int                        # checks in a row that found no record
