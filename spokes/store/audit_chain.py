"""Admin events as a hash chain: each holds the hash of the one before it, so none can be changed or taken out unseen.

Owns: the rows of `admin_event`, and two places in `meta`: the head (the newest event, also when someone cut off the
end) and the anchor (the newest event that retention removed; the chain begins behind it).
Bound: written inside a writing transaction that holds the `position` row (changes.py), so processes take turns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from spokes.redaction import redacted
from spokes.store.base import cleaned_text
from spokes.store.models import MetaModel, canonical_json
from spokes.store.models_admin import AdminEventModel
from spokes.store.rows import Json
from spokes.store.rows_admin import Principal
from spokes.store.statement import Statement

HEAD_KEY = "admin_event.head"
ANCHOR_KEY = "admin_event.anchor"
START = (0, "0" * 64)                    # the place before the first event

_COLUMNS = tuple(AdminEventModel._meta.fields)
_APPEND = Statement(lambda *nodes: AdminEventModel.insert(dict(zip(_COLUMNS, nodes, strict=True))), len(_COLUMNS))
_READ_PLACE = Statement(lambda key: MetaModel.select(MetaModel.value).where(MetaModel.key == key))
_SET_PLACE = Statement(
    lambda key, value: MetaModel.insert(key=key, value=value).on_conflict(
        conflict_target=[MetaModel.key], preserve=[MetaModel.value]
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAuditRecord:
    """What an event will tell, before it has a place in the chain."""

    principal: Principal
    action: str
    object_kind: str
    object_uid: str
    before: Json | None = None
    after: Json | None = None


def place(db: peewee.Database, key: str) -> tuple[int, str]:
    """(seq, hash) that stands in `meta` under `key`; START if none does."""
    for (value,) in _READ_PLACE(key).execute(db):
        seq, _, digest = str(value).partition(" ")
        return int(seq), digest
    return START


def set_place(db: peewee.Database, key: str, seq: int, digest: str) -> None:
    _SET_PLACE(key, f"{seq} {digest}").execute(db)


def append(db: peewee.Database, records: Sequence[NewAuditRecord], now: float) -> None:
    """Put `records` at the end of the chain."""
    seq, previous_hash = place(db, HEAD_KEY)
    for record in records:
        seq += 1
        principal = record.principal
        row: dict[str, Any] = {
            "seq": seq, "time": now, "actor_kind": str(principal.kind), "actor_uid": principal.uid,
            "actor_name": cleaned_text(principal.name), "address": cleaned_text(principal.address),
            "action": record.action, "object_kind": record.object_kind, "object_uid": record.object_uid,
            "before": redacted(record.before),
            "after": redacted(record.after), "previous_hash": previous_hash,
        }
        row["hash"] = previous_hash = _digest(row)
        for name in ("before", "after"):
            row[name] = None if row[name] is None else canonical_json(row[name])
        _APPEND(*(row[name] for name in _COLUMNS)).execute(db)
    set_place(db, HEAD_KEY, seq, previous_hash)


def continues(row: Sequence[Any], seq: int, previous_hash: str) -> str | None:
    """The hash of an event (its row as the driver gives it) if it is the one behind (seq, hash); else None."""
    fields = dict(zip(_COLUMNS, row, strict=True))
    digest: str = fields.pop("hash")
    for name in ("before", "after"):
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    is_next = (fields["seq"], fields["previous_hash"]) == (seq + 1, previous_hash)
    return digest if is_next and digest == _digest(fields) else None


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()
