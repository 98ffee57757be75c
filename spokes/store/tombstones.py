"""Tombstones: that an object was deleted, so that nothing that is older brings it back.

Bound: kept for TOMBSTONE_KEPT_S, and as long as the log tells of the deletion.
"""

from __future__ import annotations

import peewee

from spokes.store.models import TombstoneModel
from spokes.store.statement import Statement

TOMBSTONE_KEPT_S = 7 * 86_400.0

_PUT = Statement(
    lambda kind, uid, seq, epoch, time: TombstoneModel.insert(
        kind=kind, uid=uid, seq=seq, epoch=epoch, time=time
    ).on_conflict(
        conflict_target=[TombstoneModel.kind, TombstoneModel.uid],
        preserve=[TombstoneModel.seq, TombstoneModel.epoch, TombstoneModel.time],
    )
)
_BURIES = Statement(
    lambda kind, uid, rev: TombstoneModel.select(TombstoneModel.seq).where(
        TombstoneModel.kind == kind, TombstoneModel.uid == uid, TombstoneModel.seq >= rev
    )
)


def put_tombstone(db: peewee.Database, kind: str, uid: str, seq: int, epoch: int, time: float) -> None:
    _PUT(kind, uid, seq, epoch, time).execute(db)


def is_deleted_since(db: peewee.Database, kind: str, uid: str, rev: int) -> bool:
    """Whether the object was deleted behind its revision `rev`. One that was made again later has a newer one."""
    return bool(_BURIES(kind, uid, rev).execute(db))
