"""The store: everything that outlives a process, and the only room that knows SQL.

Owns: what is configured (tokens, tunnels, sites, ports, port maps, users, API keys, webhooks) and its change log; what
happens (presence, logins, deliveries, admin events, alerts, traffic, visits); in SQLite or PostgreSQL.
Bound: synchronous; any thread may call, each gets its own connection; writers take turns.
Fails: StoreError (the database), PeerError (the caller's request); never an exception of a driver.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from spokes.errors import DatabaseMissingError, StoreError
from spokes.ids import new_secret
from spokes.store.alerts import Alerts
from spokes.store.apikeys import ApiKeys
from spokes.store.audit import Audit
from spokes.store.audit_budget import EventBudget
from spokes.store.connections import check_place
from spokes.store.db import Database
from spokes.store.deliveries import Deliveries
from spokes.store.frozen_lists import FrozenLists
from spokes.store.logins import Logins
from spokes.store.marks import Marks
from spokes.store.migrations import check_version, migrate, schema_version
from spokes.store.models import MetaModel
from spokes.store.portmaps import PortMaps
from spokes.store.ports import Ports
from spokes.store.presence import Presence
from spokes.store.proofs import Proofs
from spokes.store.rows import (
    ApiKey,
    AuthToken,
    Change,
    Kind,
    Op,
    Port,
    PortMap,
    PresenceUpdate,
    RuleSet,
    Site,
    SiteResult,
    Token,
    Tunnel,
    TunnelState,
    User,
    UserVersion,
    Webhook,
)
from spokes.store.rows_admin import (
    Actor,
    ActorKind,
    AdminEvent,
    Alert,
    Delivery,
    DeliveryState,
    DomainProof,
    Login,
    NewDelivery,
    PageLink,
    Severity,
)
from spokes.store.rows_traffic import Period, Traffic, TrafficBy, TrafficDelta, TrafficSum, Usage, Visit
from spokes.store.rules import Rules
from spokes.store.rulestate import RuleStates
from spokes.store.sites import Sites
from spokes.store.tokens import Tokens
from spokes.store.traffic import TrafficLog
from spokes.store.tunnel_lists import TunnelLists
from spokes.store.tunnels import Tunnels
from spokes.store.users import Users
from spokes.store.visits import Visits
from spokes.store.webhooks import Webhooks

__all__ = [
    "Actor", "ActorKind", "AdminEvent", "Alert", "ApiKey", "AuthToken", "Change", "Delivery", "DeliveryState",
    "DomainProof", "Kind", "Login", "NewDelivery", "Op", "PageLink", "Period", "Port", "PortMap", "PresenceUpdate",
    "RuleSet", "Severity", "Site", "SiteResult", "Store", "Token", "Traffic", "TrafficBy", "TrafficDelta",
    "TrafficSum", "Tunnel", "TunnelState", "Usage", "User", "UserVersion", "Visit", "Webhook",
]

_HASH_KEY = "hash_key"
CHECKPOINT_PAGES = 10_000                # 40 MB of SQLite's log; by itself it is 1,000


class Store(
    # what is configured, with a change log
    Rules, Sites, Ports, PortMaps, RuleStates, TunnelLists, Users, Tunnels, Tokens, ApiKeys, Webhooks,
    # what happens
    Presence, Logins, Deliveries, FrozenLists, Audit, Alerts, TrafficLog, Visits, Proofs, Marks,
):  # fmt: skip
    """An open store: its parts, one module each. A part names as its bases those whose methods it calls."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._event_budget = EventBudget()
        self._hash_key = bytes.fromhex(self.secret(_HASH_KEY))

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Self:
        """Open `sqlite:////path/to/file`, a plain path or `postgresql://…`, bringing its schema up to date.

        Without `create`, a database that is not there, or holds nothing yet, is StoreError and is not made.
        """
        db = Database(url, create=create)
        try:
            with db.translated():
                found = schema_version(db)
            if not create and found == 0:
                raise StoreError(f"{db.where} is empty", hint="the server makes it; check its address, or --data")
            migrate(db)
            return cls(db)
        except BaseException:
            db.close()
            raise

    def leave_checkpoints(self) -> None:
        """For a process whose callers wait: another one that writes moves SQLite's log into the database.

        This one only does when the log has grown to CHECKPOINT_PAGES, as when the other one is gone.
        """
        self._db.checkpoint_at(CHECKPOINT_PAGES)

    def secret(self, name: str) -> str:
        """The secret of this name (64 hex digits): made on first use, the same for all who open this database."""
        key = f"secret.{name}"
        new = MetaModel.insert(key=key, value=new_secret()).on_conflict_ignore()
        self._db.alone(lambda: new.execute(self._db.peewee))     # one that stands stays, also if made this moment
        (value,), = self._db.read(MetaModel.select(MetaModel.value).where(MetaModel.key == key).tuples())
        return str(value)

    @property
    def where(self) -> str:
        """The database for people: a path, or a server without its password."""
        return self._db.where

    @property
    def statement_count(self) -> int:
        """SQL statements sent since it was opened."""
        return self._db.peewee.statement_count

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def check_store(url: str) -> None:
    """Raise where Store.open() would; nothing is made and no schema is changed."""
    try:
        db = Database(url, create=False)
    except DatabaseMissingError:
        check_place(url)
        return
    try:
        with db.translated():
            check_version(schema_version(db), db)
    finally:
        db.close()
