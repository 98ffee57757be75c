"""What the store hands out: frozen rows, free of any database.

Times are Unix seconds (float, UTC). UIDs are 32 lower-case hex digits. `rev` is the `seq` of the change that last wrote
the object: it only grows, also across deletion and re-creation. Secrets are kept out of `repr`, so that no log line
or traceback shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from spokes.errors import SpokesError, StoreError
from spokes.ids import ZERO_UID

Json = Mapping[str, Any]


class TunnelState(IntEnum):
    """Numbers of the Admin API."""

    INIT = 1                             # never connected
    ONLINE = 2
    OFFLINE = 3
    SHUTDOWN = 4                         # by the operator: may not log in
    DELETED = 5


class Kind(StrEnum):
    """What a change is about."""

    TOKEN = "token"                      # noqa: S105  a kind
    TUNNEL = "tunnel"
    AUTH_TOKEN = "auth_token"            # noqa: S105  a kind
    SITE = "site"
    PORT = "port"
    PORTMAP = "portmap"
    USER = "user"
    API_KEY = "api_key"
    WEBHOOK = "webhook"
    REPLICA = "replica"


class Op(StrEnum):
    PUT = "put"
    DEL = "del"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A registration token: whoever shows its value may register tunnels. A maximum of 0 is none."""

    uid: str
    created: float
    modified: float
    active: bool
    description: str
    value: str = field(repr=False)
    rev: int = 0
    tunnel_count_max: int = 0            # of tunnels that exist
    tunnels_per_hour_max: int = 0        # of registrations, whatever became of the tunnels


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthToken:
    """The key by which a client logs in as one tunnel."""

    uid: str
    tunnel_uid: str
    created: float
    modified: float
    active: bool
    value: str = field(repr=False)
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A registered client: what was configured, and (last six fields but `rev`) what was last seen of it."""

    uid: str
    user_uid: str = ZERO_UID             # zero: the system
    token_uid: str = ZERO_UID            # registration token it came with; zero: made by an administrator
    created: float
    modified: float
    name: str
    hostname: str
    shutdown: bool = False
    deleted_at: float | None = None
    rev: int = 0
    seen: TunnelState = TunnelState.INIT  # INIT, ONLINE or OFFLINE, whatever the operator decided
    last_active: float = 0.0             # 0: never connected
    address: str = ""
    version: str = ""
    os: str = ""
    arch: str = ""

    @property
    def state(self) -> TunnelState:
        """The state that is shown: a decision of the operator outweighs what was seen."""
        if self.deleted_at is not None:
            return TunnelState.DELETED
        return TunnelState.SHUTDOWN if self.shutdown else self.seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An HTTP service: a domain, and the rule (Site object of the Admin API, `domain` in canonical form)."""

    uid: str
    tunnel_uid: str
    domain: str
    rule: Json = field(repr=False)       # may hold password hashes and private keys
    created: float
    modified: float
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A public port and the rule of its forwarding (Port object of the Admin API); `{"port": n}` = not forwarded."""

    uid: str
    tunnel_uid: str
    port: int
    rule: Json
    created: float
    modified: float
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMap:
    """A port at a client and the rule of where it leads (PortMap object of the Admin API)."""

    uid: str
    tunnel_uid: str
    listen_port: int
    transport: str                       # "tcp" or "udp"; with listen_port the key
    rule: Json
    created: float
    modified: float
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person or customer: owner of tunnels, with limits; logs in when there is a password."""

    uid: str
    created: float
    modified: float
    active: bool = True
    role: str = "basic"                  # one of ROLES
    fullname: str = ""
    email: str = ""
    phone: str = ""
    bandwidth_mb: int = 0                # a month, decimal megabytes; 0: no limit
    check_domains: bool = False          # only `domains` may be served
    domains: tuple[str, ...] = ()        # canonical; `*.name` stands for every name below it
    check_ports: bool = False            # at most `max_ports`, over all of the user's tunnels
    max_ports: int = 0
    max_tunnels: int = 0                 # 0: no limit
    password_hash: str = field(default="", repr=False)
    totp_secret: str = field(default="", repr=False)
    rev: int = 0


class UserVersion(NamedTuple):
    """No two states of a user have the same; `modified` tells those apart that a restored backup numbers alike."""

    rev: int
    modified: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSet:
    """All rules of a tunnel at one moment, as the Admin API's objects, each list in the order of its key."""

    rev: int = 0                         # seq of the change that last touched one of them, deletions too; 0: never
    unmanaged: bool = False              # the client was last seen refusing rules from here
    sites: tuple[Json, ...] = field(default=(), repr=False)
    ports: tuple[Json, ...] = ()
    portmaps: tuple[Json, ...] = ()



@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of the Admin API, known by a keyed hash only; its last two fields are what was seen of it."""

    uid: str
    created: float
    modified: float
    active: bool
    description: str
    prefix: str                          # the value's first digits, to tell keys apart in a list
    scopes: tuple[str, ...]              # some of SCOPES
    user_uid: str = ZERO_UID             # zero: the system's, with an administrator's rights
    value_hash: str = field(default="", repr=False)
    rev: int = 0
    last_used: float = 0.0               # 0: never
    last_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that is told of events."""

    uid: str
    created: float
    modified: float
    active: bool
    description: str
    url: str
    secret: str = field(repr=False)      # signs the deliveries
    kinds: tuple[str, ...]               # event kinds it wants; empty: all
    user_uid: str = ZERO_UID             # whose tunnels it hears of; zero: everyone's
    allow_private: bool = False          # may lie in a private network
    rev: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A node to which the master sends its changes."""

    uid: str
    created: float
    modified: float
    hostname: str
    active: bool
    rev: int = 0


ADMIN_ROLE = "admin"
ROLES = (ADMIN_ROLE, "basic")
SCOPES = ("read", "write", "replication")

Row = Token | Tunnel | AuthToken | Site | Port | PortMap | User | ApiKey | Webhook | Replica

_ROWS: dict[str, type[Row]] = {
    Kind.TOKEN: Token,
    Kind.TUNNEL: Tunnel,
    Kind.AUTH_TOKEN: AuthToken,
    Kind.SITE: Site,
    Kind.PORT: Port,
    Kind.PORTMAP: PortMap,
    Kind.USER: User,
    Kind.API_KEY: ApiKey,
    Kind.WEBHOOK: Webhook,
    Kind.REPLICA: Replica,
}


@dataclass(frozen=True, slots=True)
class SiteResult:
    """What became of one domain of a list: in force (`error` is None), or refused."""

    domain: str
    error: SpokesError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresenceUpdate:
    """What a server saw of a tunnel. Texts come from the client; an empty one leaves what was known."""

    tunnel_uid: str
    state: TunnelState
    last_active: float
    address: str = ""
    version: str = ""
    os: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One committed mutation. `body` (None for a deletion) is the whole object, secrets included: it is for the routing
    tables and for replicas, never for webhooks or logs as it stands."""

    seq: int
    epoch: int
    kind: str                            # a Kind; kept as text so that a newer node's kinds can be read and refused
    op: Op
    uid: str
    rev: int
    body: Json | None = field(repr=False)
    time: float

    def row(self) -> Row | None:
        """The object as a row (a Tunnel without what was seen of it); None for a deletion."""
        if self.body is None:
            return None
        try:
            # JSON knows no tuples; a rule's own lists lie deeper and stay as they are.
            body: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in self.body.items()
            }
            return _ROWS[self.kind](**body)
        except (KeyError, TypeError):
            raise StoreError(
                f"change {self.seq} is of a kind or form this program does not know: {self.kind}",
                hint="start the version of Spokes that wrote it, or a later one",
            ) from None
