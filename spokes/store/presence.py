"""Presence: what is seen of tunnels. One statement an interval, however many they are; never in the change log."""

from __future__ import annotations

import json
from collections.abc import Iterable

from spokes.ids import is_uid
from spokes.store.base import cleaned_text
from spokes.store.db import Database
from spokes.store.models import PresenceModel
from spokes.store.rows import PresenceUpdate, TunnelState

_SEEN = (TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE)

# All updates travel as one JSON parameter, because engines cap the number of parameters of a statement. Rows come in
# the order of their UIDs, so that two such statements cannot lock each other out. Tunnels that are gone are skipped.
_UPSERT = """
INSERT INTO presence (tunnel_uid, state, last_active, address, version, os, arch)
SELECT {columns} FROM {source} WHERE EXISTS (SELECT 1 FROM tunnel WHERE uid = {uid} AND deleted_at IS NULL)
ON CONFLICT (tunnel_uid) DO UPDATE SET state = excluded.state, last_active = excluded.last_active,
    address = CASE WHEN excluded.address = '' THEN presence.address ELSE excluded.address END,
    version = CASE WHEN excluded.version = '' THEN presence.version ELSE excluded.version END,
    os = CASE WHEN excluded.os = '' THEN presence.os ELSE excluded.os END,
    arch = CASE WHEN excluded.arch = '' THEN presence.arch ELSE excluded.arch END
"""
_TYPES = ("TEXT", "INTEGER", "DOUBLE PRECISION", "TEXT", "TEXT", "TEXT", "TEXT")
_SQLITE_UPSERT = _UPSERT.format(
    columns=", ".join(f"json_extract(value, '$[{i}]')" for i in range(len(_TYPES))),
    source="json_each({})",
    uid="json_extract(value, '$[0]')",
)
_POSTGRESQL_UPSERT = _UPSERT.format(
    columns=", ".join(f"CAST(value->>{i} AS {kind})" for i, kind in enumerate(_TYPES)),
    source="jsonb_array_elements(CAST({} AS jsonb)) AS updates (value)",
    uid="value->>0",
)


class Presence:
    def __init__(self, db: Database) -> None:
        self._db = db

    def write(self, updates: Iterable[PresenceUpdate]) -> None:
        """Write what changed since the last call; of several updates of one tunnel the last counts."""
        newest = {update.tunnel_uid: update for update in updates if is_uid(update.tunnel_uid)}
        if not newest:
            return
        if any(update.state not in _SEEN for update in newest.values()):
            raise ValueError("presence is INIT, ONLINE or OFFLINE; the rest is the operator's decision")
        rows = [
            (
                uid, int(update.state), update.last_active, cleaned_text(update.address), cleaned_text(update.version),
                cleaned_text(update.os), cleaned_text(update.arch),
            )
            for uid, update in sorted(newest.items())
        ]
        statement = _SQLITE_UPSERT if self._db.is_sqlite else _POSTGRESQL_UPSERT
        self._db.alone(lambda: self._db.query(statement, (json.dumps(rows),)))

    def reset(self) -> None:
        """At server start: nobody is connected yet, whatever a killed predecessor left behind."""
        query = PresenceModel.update(state=TunnelState.OFFLINE.value).where(
            PresenceModel.state == TunnelState.ONLINE.value
        )
        self._db.alone(lambda: query.execute(self._db.peewee))
