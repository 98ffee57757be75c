"""A part of the change log as a batch for another node, secrets sealed.

Bound: EVENT_COUNT_MAX changes and TEXT_BYTES_MAX of their bodies, but one change at least.
"""

from __future__ import annotations

import json

from spokes.cluster.batch import EVENT_COUNT_MAX, Batch, Event
from spokes.cluster.sealing import Sealer, cluster_id
from spokes.errors import GapError
from spokes.store.base import Secrets
from spokes.store.db import Database
from spokes.store.migrations import MIGRATIONS
from spokes.store.models import ChangeModel, canonical_json
from spokes.store.place import read_history, read_node_uid, read_place
from spokes.store.statement import Statement

TEXT_BYTES_MAX = 4 * 1024 * 1024

_COLUMNS = tuple(ChangeModel._meta.fields.values())
_BETWEEN = Statement(
    lambda first, last, limit: ChangeModel.select(*_COLUMNS).where(ChangeModel.seq >= first, ChangeModel.seq <= last)
    .order_by(ChangeModel.seq).limit(limit)
)


def make_batch(db: Database, secrets: Secrets, after_seq: int, limit: int) -> Batch:
    """Of one moment. Fails: GapError where the log does not tell of all changes behind `after_seq`."""
    with db.snapshot():
        place, history, node_uid = read_place(db), read_history(db), read_node_uid(db)
        rows = []
        if after_seq < place.seq:
            rows = db.rows(_BETWEEN(after_seq, place.seq, min(limit, EVENT_COUNT_MAX) + 1))
    previous = rows.pop(0)[-1] if rows and rows[0][0] == after_seq else ""
    if after_seq > place.seq or (after_seq < place.seq and (not rows or rows[0][0] != after_seq + 1)):
        raise GapError(f"the log does not tell of all changes behind {after_seq}", hint="a snapshot is needed")
    events: list[Event] = []
    sealer, size_bytes, digest = Sealer(secrets.key), 0, place.digest
    for seq, epoch, kind, op, uid, rev, body, time, digest_there in rows[:EVENT_COUNT_MAX]:
        size_bytes += len(body or "")
        if events and size_bytes > TEXT_BYTES_MAX:
            break
        if digest_there == "":           # from before there were digests
            raise GapError(f"the log has no digest at change {seq}", hint="a snapshot is needed")
        text = None if body is None else canonical_json(sealer.seal(kind, uid, json.loads(body)))
        events.append(Event(seq=seq, epoch=epoch, kind=kind, op=op, uid=uid, rev=rev, body=text, time=time))
        digest = digest_there
    return Batch(
        cluster=cluster_id(secrets.key), sender=node_uid, history=history, from_seq=after_seq,
        to_seq=after_seq + len(events), previous_digest=previous if events else place.digest, digest=digest,
        schema=MIGRATIONS[-1].version, events=events,
    )
