"""What the store hands out of administration: logins, pages, deliveries, events, alerts. As rows.py: frozen, no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from spokes.ids import ZERO_UID
from spokes.store.rows import ADMIN_ROLE, Json


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


class PrincipalKind(StrEnum):
    NOBODY = "nobody"                    # not known: who signs in, who shows a registration token
    KEY = "key"                          # an API key
    PERSON = "person"
    SHELL = "shell"                      # the `spokes` verbs, on the server's own host
    SERVER = "server"                    # the server itself
    CLIENT = "client"                    # a tunnel, by its session


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks for something, and the rights it was found to have: what audit records name."""

    kind: str                            # a PrincipalKind
    uid: str = ZERO_UID                  # of the API key, the person or the tunnel
    name: str = ""
    address: str = ""
    user_uid: str = ZERO_UID             # whose objects are theirs; zero: the system's
    role: str = ""                       # one of ROLES; "": owns nothing, may nothing
    scopes: tuple[str, ...] = ()         # of an API key
    login_uid: str = ""                  # of the cookie session that it came by; "" without one
    checked: bool = True                 # rights are looked at again in the transaction; not for what must be undone

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN_ROLE

    @property
    def tenant_uid(self) -> str:
        """The user whose share of audit records it takes; zero: an administrator's, unbounded."""
        return ZERO_UID if self.is_admin else self.user_uid

    @property
    def is_audited(self) -> bool:
        """Whether its operations leave audit records; what servers and clients do by themselves is in their logs."""
        return self.kind in (PrincipalKind.KEY, PrincipalKind.PERSON, PrincipalKind.SHELL)

    def unconditional(self) -> Principal:
        """To undo what was begun on its behalf, whatever became of its rights meanwhile."""
        return replace(self, checked=False, role=ADMIN_ROLE)

    def may_see(self, owner_uid: str) -> bool:
        """Whether objects of this owner exist for it."""
        return self.is_admin or (owner_uid != ZERO_UID and owner_uid == self.user_uid)


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
class DomainVerification:
    """Whether a user has shown that a domain, and what lies under it, is theirs."""

    user_uid: str
    domain: str
    proved: float                        # when; 0: not, or no longer
    checked: float
    failures: int                        # checks in a row that found no record
