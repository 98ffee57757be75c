"""API keys of the Admin API: found by a keyed hash; the value is shown once and kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import peewee

from spokes.errors import InactiveError, NotFoundError, TokenError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, is_uid, new_secret, new_uid
from spokes.store.base import Read, Secrets, checked_text, cleaned_text
from spokes.store.changes import ChangeLog
from spokes.store.db import Database
from spokes.store.limits import check_room, find_user
from spokes.store.logged import API_KEYS
from spokes.store.logins import end_logins
from spokes.store.models import ApiKeyModel, UserModel
from spokes.store.models_admin import ApiKeyUseModel
from spokes.store.rows import SCOPES, ApiKey
from spokes.store.statement import Statement

PREFIX_DIGITS = 8
API_KEY_COUNT_MAX = 100                  # of one user, or of the system

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

_OF_USER = API_KEYS.where(ApiKeyModel.user_uid)
_FIND = Statement(lambda uid: _query().where(ApiKeyModel.uid == uid))
_FIND_BY_VALUE = Statement(
    lambda value_hash: _query(UserModel.active)
    .join(UserModel, peewee.JOIN.LEFT_OUTER, on=(UserModel.uid == ApiKeyModel.user_uid))
    .where(ApiKeyModel.value_hash == value_hash)
)


class ApiKeys:
    def __init__(self, db: Database, changes: ChangeLog, secrets: Secrets) -> None:
        self._db = db
        self._changes = changes
        self._secrets = secrets

    def create(
        self, description: str, *, scopes: Sequence[str] = ("read", "write"), user_uid: str = ZERO_UID
    ) -> tuple[ApiKey, str]:
        """A key, and its value, which nobody can look up later."""
        description = checked_text(description, "description")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise ValueRefusedError(f"scopes are some of {', '.join(SCOPES)}")
        value = new_secret()
        with self._changes.transaction() as tx:
            if user_uid != ZERO_UID:
                find_user(tx.read, user_uid)
            check_room(tx, _OF_USER(user_uid), API_KEY_COUNT_MAX, "API key")
            key = ApiKey(
                uid=new_uid(), created=tx.now, modified=tx.now, active=True, description=description,
                prefix=value[:PREFIX_DIGITS], scopes=tuple(scope for scope in SCOPES if scope in scopes),
                user_uid=user_uid,
            )
            return tx.insert(key, value_hash=self._secrets.hash(value)), value

    def find(self, value: str) -> ApiKey:
        """TokenError if there is none with this value, InactiveError if it or its user is switched off."""
        if is_secret(value):
            for *columns, owner_active in self._db.rows(_FIND_BY_VALUE(self._secrets.hash(value))):
                key = _read(columns)
                if not key.active or (key.user_uid != ZERO_UID and not owner_active):
                    raise InactiveError("this API key is switched off", hint="ask the operator")
                return key
        raise TokenError("unknown API key", hint="`spokes apikey create` on the server makes one")

    def get(self, uid: str) -> ApiKey:
        return self._api_key(self._db.read, uid)

    def select(self, *, user_uid: str | None = None) -> list[ApiKey]:
        """Oldest first, inactive ones too; `user_uid` zero: the system's."""
        query = _query()
        if user_uid is not None:
            query = query.where(ApiKeyModel.user_uid == (user_uid if is_uid(user_uid) else ""))
        return [_read(row) for row in self._db.rows(query)]

    def edit(self, uid: str, *, description: str | None = None, active: bool | None = None) -> ApiKey:
        """Change what is given. Deactivation ends its logins."""
        if description is not None:
            description = checked_text(description, "description")
        with self._changes.transaction() as tx:
            key = self._api_key(tx.read, uid)
            changed = replace(
                key, description=key.description if description is None else description,
                active=key.active if active is None else active,
            )
            if changed == key:
                return key
            if not changed.active:
                end_logins(tx, api_key_uid=uid)
            return tx.update(replace(changed, modified=tx.now))

    def delete(self, uid: str) -> None:
        """Its logins end."""
        with self._changes.transaction() as tx:
            end_logins(tx, api_key_uid=uid)
            tx.delete(self._api_key(tx.read, uid))

    def touch(self, uses: Mapping[str, tuple[float, str]]) -> None:
        """Note when and from where keys were used last, in one statement: {uid: (Unix seconds, address)}."""
        rows = [(uid, when, cleaned_text(address)) for uid, (when, address) in sorted(uses.items()) if is_uid(uid)]
        if rows:
            statement = _SQLITE_UPSERT if self._db.is_sqlite else _POSTGRESQL_UPSERT
            self._db.alone(lambda: self._db.query(statement, (json.dumps(rows),)))

    @staticmethod
    def _api_key(read: Read, uid: str) -> ApiKey:
        if is_uid(uid):
            for row in read(_FIND(uid)):
                return _read(row)
        raise NotFoundError("unknown API key")


def _query(*more: peewee.Node) -> peewee.ModelSelect[ApiKeyModel]:
    return (
        ApiKeyModel.select(*API_KEYS.columns, ApiKeyUseModel.last_used, ApiKeyUseModel.last_address, *more)
        .join(ApiKeyUseModel, peewee.JOIN.LEFT_OUTER, on=(ApiKeyUseModel.api_key_uid == ApiKeyModel.uid))
        .switch(ApiKeyModel).order_by(ApiKeyModel.created, ApiKeyModel.uid)
    )


def _read(row: Sequence[Any]) -> ApiKey:
    *own, last_used, last_address = row
    return replace(API_KEYS.read(own), last_used=last_used or 0.0, last_address=last_address or "")
