"""The store: everything that outlives a process, and the only room that knows SQL.

Owns: what is configured (tokens, tunnels, sites, ports, port maps, users, API keys, webhooks) and its change log; what
happens (presence, logins, deliveries, admin events, alerts, traffic, visits); in SQLite or PostgreSQL.
Bound: synchronous; any thread may call, each gets its own connection; writers take turns.
Fails: StoreError (the database), PeerError (the caller's request); never an exception of a driver.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from spokes.errors import DatabaseMissingError, StoreError
from spokes.store.access_records import AccessRecords
from spokes.store.alerts import Alerts
from spokes.store.api_keys import ApiKeys
from spokes.store.audit import Audit
from spokes.store.base import Secrets
from spokes.store.changes import ChangeLog, Cursor
from spokes.store.cluster_state import ClusterState, ReplicationSettings
from spokes.store.connections import check_place
from spokes.store.consumer_offsets import ConsumerOffsets
from spokes.store.db import Database
from spokes.store.deliveries import Deliveries
from spokes.store.digests import ensure_digest
from spokes.store.domain_verifications import DomainVerifications
from spokes.store.hostnames import Hostnames
from spokes.store.logins import Logins
from spokes.store.migrations import check_version, migrate, schema_version
from spokes.store.operation_results import OperationResults
from spokes.store.portmaps import PortMaps
from spokes.store.ports import Ports
from spokes.store.presence import Presence
from spokes.store.replicas import Replicas
from spokes.store.result_snapshots import ResultSnapshots
from spokes.store.rows import (
    ApiKey,
    AuthToken,
    Change,
    Kind,
    Op,
    Port,
    PortMap,
    PresenceUpdate,
    Replica,
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
    AdminEvent,
    Alert,
    Delivery,
    DeliveryState,
    DomainVerification,
    Login,
    NewDelivery,
    PageLink,
    Principal,
    PrincipalKind,
    Severity,
)
from spokes.store.rows_traffic import Period, Traffic, TrafficBy, TrafficDelta, TrafficSum, Usage, Visit
from spokes.store.rule_states import RuleStates
from spokes.store.settings import Settings
from spokes.store.sites import Sites
from spokes.store.tokens import Tokens
from spokes.store.traffic import TrafficLog
from spokes.store.tunnels import Tunnels
from spokes.store.users import Users
from spokes.store.webhooks import Webhooks

__all__ = [
    "AdminEvent",
    "Alert",
    "ApiKey",
    "AuthToken",
    "Change",
    "Cursor",
    "Delivery",
    "DeliveryState",
    "DomainVerification",
    "Kind",
    "Login",
    "NewDelivery",
    "Op",
    "PageLink",
    "Period",
    "Port",
    "PortMap",
    "PresenceUpdate",
    "Principal",
    "PrincipalKind",
    "Replica",
    "ReplicationSettings",
    "RuleSet",
    "Severity",
    "Site",
    "SiteResult",
    "Store",
    "Token",
    "Traffic",
    "TrafficBy",
    "TrafficDelta",
    "TrafficSum",
    "Tunnel",
    "TunnelState",
    "Usage",
    "User",
    "UserVersion",
    "Visit",
    "Webhook",
]

CHECKPOINT_PAGES = 10_000                # 40 MB of SQLite's log; by itself it is 1,000


class Store:
    """An open store: its facets, one small class each. One that needs another is given it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.secrets = Secrets(db)
        self.changes = ChangeLog(db, self.secrets)
        self.cluster = ClusterState(db, self.secrets)
        self.settings = Settings()
        # What is configured, with a change log.
        self.hostnames = Hostnames(db)
        self.tokens = Tokens(db, self.secrets)
        self.tunnels = Tunnels(db, self.secrets)
        self.rules = RuleStates(db)
        self.sites = Sites(db)
        self.ports = Ports(db)
        self.portmaps = PortMaps(db)
        self.users = Users(db)
        self.api_keys = ApiKeys(db, self.secrets)
        self.webhooks = Webhooks(db)
        self.replicas = Replicas(db)
        # What happens.
        self.domain_verifications = DomainVerifications(db, self.secrets)
        self.presence = Presence(db)
        self.logins = Logins(db, self.changes, self.secrets)
        self.deliveries = Deliveries(db, self.changes)
        self.result_snapshots = ResultSnapshots(db, self.secrets)
        self.audit = Audit(db, self.changes)
        self.alerts = Alerts(db, self.changes)
        self.traffic = TrafficLog(db)
        self.access_records = AccessRecords(db)
        self.consumer_offsets = ConsumerOffsets(db)
        self.operation_results = OperationResults()
        # Set at a replica, by who opens it: takes operations (spokes/model/) in place of performing them here.
        self.forward: Callable[[Principal, Any], Any] | None = None

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
            store = cls(db)
            ensure_digest(db, store.secrets.digest_key)
            return store
        except BaseException:
            db.close()
            raise

    def leave_checkpoints(self) -> None:
        """For a process whose callers wait: another one that writes moves SQLite's log into the database.

        This one only does when the log has grown to CHECKPOINT_PAGES, as when the other one is gone.
        """
        self._db.checkpoint_at(CHECKPOINT_PAGES)

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
