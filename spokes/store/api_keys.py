"""API keys of the Admin API: found by a keyed hash; the value is kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import peewee

from spokes.errors import InactiveError, NotFoundError, TokenError
from spokes.ids import ZERO_UID, is_secret, is_uid
from spokes.store.base import Secrets, View, cleaned_text
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.logged import API_KEYS
from spokes.store.models import ApiKeyModel, UserModel
from spokes.store.models_admin import ApiKeyUseModel
from spokes.store.rows import ApiKey
from spokes.store.statement import Statement

# As presence: all of them travel as one parameter, keys that are gone are passed over.
_UPSERT = """
INSERT INTO api_key_use (api_key_uid, last_used, last_address)
SELECT {columns} FROM {source} WHERE EXISTS (SELECT 1 FROM api_key WHERE uid = {uid})
ON CONFLICT (api_key_uid) DO UPDATE SET last_used = excluded.last_used, last_address = excluded.last_address
WHERE excluded.last_used >= api_key_use.last_used
"""
_SQLITE_UPSERT = _UPSERT.format(
    columns="json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')",
    source="json_each({})", uid="json_extract(value, '$[0]')",
)
_POSTGRESQL_UPSERT = _UPSERT.format(
    columns="value->>0, CAST(value->>1 AS DOUBLE PRECISION), value->>2",
    source="jsonb_array_elements(CAST({} AS jsonb)) AS uses (value)", uid="value->>0",
)

_COUNT_OF_USER = Statement(
    lambda uid: ApiKeyModel.select(peewee.fn.COUNT(ApiKeyModel.uid)).where(ApiKeyModel.user_uid == uid)
)
_FIND = Statement(lambda uid: _query().where(ApiKeyModel.uid == uid))
_FIND_BY_VALUE = Statement(
    lambda value_hash: _query(UserModel.active)
    .join(UserModel, peewee.JOIN.LEFT_OUTER, on=(UserModel.uid == ApiKeyModel.user_uid))
    .where(ApiKeyModel.value_hash == value_hash)
)


class ApiKeys:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    def find(self, value: str) -> ApiKey:
        """TokenError if there is none with this value, InactiveError if it or its user is switched off."""
        if is_secret(value):
            for *columns, owner_active in self._db.rows(_FIND_BY_VALUE(self._secrets.hash(value))):
                key = _read(columns)
                if not key.active or (key.user_uid != ZERO_UID and not owner_active):
                    raise InactiveError("this API key is switched off", hint="ask the operator")
                return key
        raise TokenError("unknown API key", hint="`spokes apikey create` on the server makes one")

    def get(self, uid: str, view: View | None = None) -> ApiKey:
        if is_uid(uid):
            for row in (view or self._db).rows(_FIND(uid)):
                return _read(row)
        raise NotFoundError("unknown API key")

    def select(self, *, user_uid: str | None = None) -> list[ApiKey]:
        """Oldest first, inactive ones too; `user_uid` zero: the system's."""
        query = _query()
        if user_uid is not None:
            query = query.where(ApiKeyModel.user_uid == (user_uid if is_uid(user_uid) else ""))
        return [_read(row) for row in self._db.rows(query)]

    def touch(self, uses: Mapping[str, tuple[float, str]]) -> None:
        """Note when and from where keys were used last, in one statement: {uid: (Unix seconds, address)}."""
        rows = [(uid, when, cleaned_text(address)) for uid, (when, address) in sorted(uses.items()) if is_uid(uid)]
        if rows:
            statement = _SQLITE_UPSERT if self._db.is_sqlite else _POSTGRESQL_UPSERT
            self._db.alone(lambda: self._db.query(statement, (json.dumps(rows),)))

    # --- inside a transaction --------------------------------------------------------------------------------------

    def insert(self, tx: Writer, key: ApiKey, value: str) -> ApiKey:
        return tx.insert(replace(key, value_hash=self._secrets.hash(value)))

    def count_of_user(self, view: View, user_uid: str) -> int:
        """Zero: the system's."""
        return int(view.rows(_COUNT_OF_USER(user_uid))[0][0])


def _query(*more: peewee.Node) -> peewee.ModelSelect[ApiKeyModel]:
    return (
        ApiKeyModel.select(*API_KEYS.columns, ApiKeyUseModel.last_used, ApiKeyUseModel.last_address, *more)
        .join(ApiKeyUseModel, peewee.JOIN.LEFT_OUTER, on=(ApiKeyUseModel.api_key_uid == ApiKeyModel.uid))
        .switch(ApiKeyModel).order_by(ApiKeyModel.created, ApiKeyModel.uid)
    )


def _read(row: Sequence[Any]) -> ApiKey:
    *own, last_used, last_address = row
    return replace(API_KEYS.read(own), last_used=last_used or 0.0, last_address=last_address or "")
