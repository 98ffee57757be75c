"""The context of handlers: the app's surroundings (Admin) and the caller of a request (Caller).

Owns: nothing that changes but what is remembered between calls (`users`, `lookups`). One Admin for a process, one
Caller for a request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

import spokes
from spokes import clock
from spokes.admin.failures import Failures
from spokes.admin.slots import Slots
from spokes.admin.user_list import UserList
from spokes.config_values import Address, PortRange
from spokes.control import Control
from spokes.errors import ForbiddenError, NotFoundError
from spokes.ids import ZERO_UID
from spokes.model.operation import Operation, perform
from spokes.store import Principal, Store

R = TypeVar("R")


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    WRITE = "write"
    REPLICATION = "replication"


class Role(StrEnum):
    ADMIN = "admin"                      # everything
    BASIC = "basic"                      # sees and changes only what is theirs


class CallerKind(StrEnum):
    NOBODY = "nobody"                    # not signed in
    KEY = "key"
    PERSON = "person"
    SHELL = "shell"                      # the `spokes` verbs, on the server's own host


DEFAULT_HTTPS_PORT = 443
DEFAULT_TCP_PORTS = PortRange(22000, 22999)
EVERY_SCOPE = frozenset(Scope)
PERSON_SCOPES = frozenset((Scope.READ, Scope.WRITE))
LOOKUP_COUNT_MAX = 4                     # at once, one of a user; each holds a thread while a name server answers
LOOKUP_REFUSAL = "too many look-ups at once; try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent the request, and from where."""

    kind: CallerKind = CallerKind.NOBODY
    uid: str = ZERO_UID                  # of the API key, or of the person
    name: str = ""
    role: Role = Role.BASIC
    scopes: frozenset[Scope] = frozenset()
    user_uid: str = ZERO_UID             # whose objects are theirs; zero: the system's
    login_uid: str = ""                  # "" without a cookie session
    cookie: str = field(default="", repr=False)
    device: str = field(default="", repr=False)      # the mark that a device keeps; "" without one
    address: str = ""
    agent: str = ""
    secure: bool = False                 # came over TLS
    checked: bool = True                 # rights are looked at again in each transaction; see Principal

    @property
    def is_admin(self) -> bool:
        return self.role is Role.ADMIN

    def principal(self) -> Principal:
        """Returns the caller as operations and audit records know it."""
        return Principal(
            kind=self.kind.value, uid=self.uid, name=self.name, address=self.address,
            user_uid=self.user_uid, role=self.role.value if self.kind is not CallerKind.NOBODY else "",
            scopes=tuple(sorted(self.scopes)), login_uid=self.login_uid, checked=self.checked,
        )

    def may_see(self, owner_uid: str) -> bool:
        """Whether objects of this owner exist for the caller."""
        return self.is_admin or (owner_uid != ZERO_UID and owner_uid == self.user_uid)

    def check_sees(self, owner_uid: str, what: str) -> None:
        """For a basic caller somebody else's object is not there."""
        if not self.may_see(owner_uid):
            raise NotFoundError(f"unknown {what}")

    def check_may_make_admins(self) -> None:
        """Who makes an administrator, or lets somebody in as one, gets what administrators may do."""
        self.check_admin()
        if not self.scopes >= PERSON_SCOPES:
            raise ForbiddenError("this key lacks a scope that administrators have")

    def check_admin(self) -> None:
        if not self.is_admin:
            raise ForbiddenError("only administrators may do this")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The app's surroundings."""

    store: Store
    control: Control
    domain: str                          # the server's own name
    tcp_ports: PortRange = DEFAULT_TCP_PORTS
    https_port: int = DEFAULT_HTTPS_PORT   # where clients reach the server
    server_key: str = ""                 # the server's key as clients pin it; "" if not known here
    resolvers: tuple[Address, ...] = ()    # asked when domains are verified; none: the system's
    users: UserList = field(default_factory=UserList)
    key_failures: Failures = field(default_factory=Failures)
    password_failures: Failures = field(default_factory=Failures)
    lookups: Slots = field(default_factory=lambda: Slots(LOOKUP_COUNT_MAX, LOOKUP_REFUSAL, count_per_source_max=1))
    path_prefix: str = ""                # what a front proxy puts before our paths; "" for none
    version: str = spokes.__version__
    started: clock.Since = field(default_factory=clock.Since)

    def perform(self, caller: Caller, operation: Operation[R]) -> R:
        """Performs an operation on the caller's behalf."""
        return perform(self.store, caller.principal(), operation)

    @property
    def server_host(self) -> str:
        """The server as a client's configuration names it."""
        return self.domain if self.https_port == DEFAULT_HTTPS_PORT else f"{self.domain}:{self.https_port}"
