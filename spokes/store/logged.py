"""The tables whose rows are in the change log: which model keeps which rows, and the statements for one row of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import peewee

from spokes.ids import is_uid
from spokes.store.models import (
    ApiKeyModel,
    AuthTokenModel,
    JsonText,
    PortMapModel,
    PortModel,
    ReplicaModel,
    SiteModel,
    TokenModel,
    TunnelModel,
    UserModel,
    WebhookModel,
    canonical_json,
)
from spokes.store.rows import (
    ApiKey,
    AuthToken,
    Kind,
    Port,
    PortMap,
    Replica,
    Row,
    Site,
    Token,
    Tunnel,
    User,
    Webhook,
)
from spokes.store.statement import EachOf, Prepared, Statement

R = TypeVar("R")

Hash = Callable[[str], str]              # Secrets.hash
Columns = Mapping[str, Any]


class LoggedTable(Generic[R]):
    """Rows of one class. Columns that each node computes for itself are in no row and in no change: `unlogged`."""

    def __init__(
        self, kind: Kind, row_type: type[R], model: type[peewee.Model], *,
        unlogged: Callable[[Columns, Hash], dict[str, Any]] = lambda columns, hash_of: {},
        unlogged_at_first: Columns = MappingProxyType({}),
        vacated: Mapping[str, Any] | None = None,
    ) -> None:
        """`unlogged` computes columns from the others; `unlogged_at_first` are those of a row that is new here.

        `vacated`: what sets a row aside so that it holds no unique name; for rows that others refer to. None: a row may
        be deleted and written anew.
        """
        self.kind = kind
        self.name: str = model._meta.table_name
        self.row_type = row_type
        self.model = model
        self.unlogged = unlogged
        self.unlogged_at_first = unlogged_at_first
        self.vacated = vacated
        stored = model._meta.fields
        self.columns: tuple[peewee.Field, ...] = tuple(
            stored[field.name] for field in fields(row_type) if field.name in stored  # type: ignore[arg-type]
        )
        self._names = tuple(field.name for field in self.columns)
        self.names = frozenset(self._names)
        self._readers = tuple(_reader(field) for field in self.columns)
        self._texts = frozenset(field.name for field in self.columns if isinstance(field, JsonText))
        self._inserts: dict[tuple[str, ...], Statement] = {}
        self._updates: dict[tuple[str, ...], Statement] = {}
        self.uid: peewee.Field = model.uid  # type: ignore[attr-defined]
        uid = self.uid
        self.all = self.where()
        self.find = self.where(uid)
        self.delete = Statement(lambda wanted: model.delete().where(uid == wanted))

    def where(self, *keys: peewee.Field, order_by: Sequence[Any] = ()) -> Statement:
        """Rows whose `keys` are the values that it will be called with; no keys: all rows."""
        def build(*wanted: peewee.Node) -> Any:
            query = self.model.select(*self.columns).order_by(*order_by)
            return query.where(*(key == value for key, value in zip(keys, wanted, strict=True))) if keys else query

        return Statement(build, len(keys))

    def values(self, row: R) -> dict[str, Any]:
        """What a change tells of a row: its columns by name."""
        return {name: getattr(row, name) for name in self._names}

    @staticmethod
    def text(columns: Columns) -> str:
        """The columns as a change tells them."""
        return canonical_json(columns)

    def insert(self, columns: Columns) -> Prepared:
        """The query; `columns` may hold unlogged ones too."""
        names = tuple(columns)
        statement = self._inserts.get(names)
        if statement is None:
            statement = self._inserts[names] = Statement(
                lambda *nodes: self.model.insert(dict(zip(names, nodes, strict=True))), value_count=len(names)
            )
        return statement(*self.driver_values(columns))

    def update(self, uid: str, columns: Columns) -> Prepared:
        """The query that sets all of `columns`, which may hold unlogged ones too."""
        names = tuple(columns)
        statement = self._updates.get(names)
        if statement is None:
            statement = self._updates[names] = Statement(
                lambda wanted, *nodes: self.model.update(dict(zip(names, nodes, strict=True))).where(
                    self.uid == wanted
                ),
                value_count=1 + len(names),
            )
        return statement(uid, *self.driver_values(columns))

    def read(self, row: Sequence[Any]) -> R:
        """From `columns` as the driver gives them."""
        return self.row_type(**self.read_columns(row))

    def read_columns(self, row: Sequence[Any]) -> dict[str, Any]:
        return {
            name: value if reader is None else reader(value)
            for name, reader, value in zip(self._names, self._readers, row, strict=True)
        }

    def driver_values(self, columns: Columns) -> list[Any]:
        """In the order of `columns`, which may hold unlogged ones too."""
        return [canonical_json(value) if name in self._texts else value for name, value in columns.items()]


class RowsOfTunnels(Generic[R]):
    """The rows of a table whose rows belong to tunnels, in one order."""

    def __init__(self, table: LoggedTable[R], *order_by: Any) -> None:
        key = table.columns[[field.name for field in table.columns].index("tunnel_uid")]
        self._all = table.where(order_by=order_by)
        self._of_one = table.where(key, order_by=order_by)
        self._of_these = Statement(
            lambda uids: key.model.select(*table.columns).where(key.in_(EachOf(uids))).order_by(*order_by)
        )

    def __call__(self, tunnel_uid: str | Iterable[str] | None = None) -> Prepared:
        """Of all tunnels, of one, or of several; none for what is no id."""
        if tunnel_uid is None:
            return self._all()
        if isinstance(tunnel_uid, str):
            return self._of_one(tunnel_uid if is_uid(tunnel_uid) else "")
        return self._of_these(json.dumps(list(filter(is_uid, tunnel_uid))))


def _reader(field: peewee.Field) -> Callable[[Any], Any] | None:
    """What makes of a driver's value the row's; None where they are the same on both engines."""
    if isinstance(field, JsonText):
        return field.python_value
    return bool if isinstance(field, peewee.BooleanField) else None


def _hash_of_value(columns: Columns, hash_of: Hash) -> dict[str, Any]:
    return {"value_hash": hash_of(columns["value"])}


TOKENS = LoggedTable(Kind.TOKEN, Token, TokenModel, unlogged=_hash_of_value)
USERS = LoggedTable(
    Kind.USER, User, UserModel, unlogged=lambda columns, _: {"email_key": columns["email"].casefold()},
    unlogged_at_first={"totp_step": 0}, vacated={"email_key": ""},
)
TUNNELS = LoggedTable(Kind.TUNNEL, Tunnel, TunnelModel, vacated={"deleted_at": 0.0})
AUTH_TOKENS = LoggedTable(Kind.AUTH_TOKEN, AuthToken, AuthTokenModel, unlogged=_hash_of_value)
SITES = LoggedTable(Kind.SITE, Site, SiteModel)
PORTS = LoggedTable(Kind.PORT, Port, PortModel)
PORTMAPS = LoggedTable(Kind.PORTMAP, PortMap, PortMapModel)
API_KEYS = LoggedTable(Kind.API_KEY, ApiKey, ApiKeyModel, vacated={"value_hash": ApiKeyModel.uid})
WEBHOOKS = LoggedTable(Kind.WEBHOOK, Webhook, WebhookModel, vacated={"active": False})
REPLICAS = LoggedTable(Kind.REPLICA, Replica, ReplicaModel)

# In an order in which each comes behind those that its rows refer to.
TABLES: dict[type[Row], LoggedTable[Any]] = {
    Token: TOKENS, User: USERS, Tunnel: TUNNELS, AuthToken: AUTH_TOKENS, Site: SITES, Port: PORTS, PortMap: PORTMAPS,
    ApiKey: API_KEYS, Webhook: WEBHOOKS, Replica: REPLICAS,
}
KINDS: dict[str, LoggedTable[Any]] = {table.kind.value: table for table in TABLES.values()}
RULE_TABLES: dict[str, LoggedTable[Any]] = {table.kind.value: table for table in (SITES, PORTS, PORTMAPS)}
