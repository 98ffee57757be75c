"""The change log, and the one door through which rows are written.

Every mutation of what is configured is a call of Writer.insert, update or delete: the row and its change are written by
the same call in the same transaction, so neither can be without the other. `seq` grows by one per committed change,
without gaps: it is counted in the `position` row, which a writing transaction locks first and holds to its end, so a
reader that sees seq n sees all before it. Presence never comes through here.

While a principal acts (principal.py), the same calls also leave an audit record, again in the same transaction; and
what must hold for it is looked at first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import peewee

from spokes import clock
from spokes.cluster import digest as digests
from spokes.cluster.batch import Batch
from spokes.errors import ReplicaError
from spokes.ids import ZERO_UID
from spokes.store import audit_chain
from spokes.store.apply import Applied, apply_batch
from spokes.store.audit_budget import Counted, EventBudget
from spokes.store.base import PURGE_COUNT_MAX, Secrets
from spokes.store.batches import make_batch
from spokes.store.db import Database, Query, fetch_raw
from spokes.store.logged import TABLES, LoggedTable
from spokes.store.models import ChangeModel, PositionModel, RuleStateModel, TombstoneModel
from spokes.store.place import Place, lock_place, read_node_uid, read_place
from spokes.store.principal import current_acting
from spokes.store.rows import (
    ApiKey,
    AuthToken,
    Change,
    Json,
    Kind,
    Op,
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
from spokes.store.statement import Statement
from spokes.store.tombstones import put_tombstone

R = TypeVar("R", Token, Tunnel, AuthToken, Site, Port, PortMap, User, ApiKey, Webhook, Replica)

_SET_POSITION = Statement(lambda seq, digest: PositionModel.update(seq=seq, digest=digest))
_APPEND = Statement(
    lambda seq, epoch, kind, op, uid, body, time, digest: ChangeModel.insert(
        seq=seq, epoch=epoch, kind=kind, op=op, uid=uid, rev=seq, body=body, time=time, digest=digest
    )
)
_RULED = Statement(
    lambda tunnel_uid, rev: RuleStateModel.insert(tunnel_uid=tunnel_uid, rev=rev).on_conflict(
        conflict_target=[RuleStateModel.tunnel_uid], preserve=[RuleStateModel.rev]
    )
)
_CHANGES_AFTER = Statement(
    lambda seq, limit: ChangeModel.select().where(ChangeModel.seq > seq).order_by(ChangeModel.seq).limit(limit)
)

_CHANGE_AT = Statement(lambda seq: ChangeModel.select(ChangeModel.seq).where(ChangeModel.seq == seq))

RULES = (Site, Port, PortMap)           # what makes up the rules of a tunnel
SEQ_MAX = 2**63 - 1                      # both engines' largest integer
CHANGE_COUNT_MAX = 1_000                 # most changes handed out by one call


class Cursor(NamedTuple):
    """How far a consumer has read the log, and which log that was."""

    generation: int
    seq: int


class Writer:
    """One writing transaction. Made by ChangeLog.transaction() only."""

    def __init__(self, db: peewee.Database, log: ChangeLog, place: Place) -> None:
        self._db = db
        self._log = log
        self._event_budget = log.event_budget
        self._digest_key = log.secrets.digest_key
        self.now = clock.wall_s()        # one moment for everything in the transaction
        self._place = place
        self._epoch = place.epoch
        self._seq = place.seq
        self._digest = digests.from_hex(place.digest)
        self._changes: list[tuple[Any, ...]] = []
        self._ruled: dict[str, None] = {}  # tunnels whose rules are touched
        self._principal = current_acting().principal
        self._records: list[audit_chain.NewAuditRecord] = []
        self._admitted: list[audit_chain.NewAuditRecord] = []      # of which the budget was asked before
        self._counted: list[Counted] = []                # events that are written with the transaction

    @property
    def seq(self) -> int:
        """Of the newest change, those of this transaction included."""
        return self._seq

    @property
    def epoch(self) -> int:
        """In which this transaction commits."""
        return self._epoch

    def read(self, query: Query) -> list[Any]:
        """All rows of a SELECT, as they stand inside this transaction."""
        return list(query.execute(self._db))

    def rows(self, query: Query) -> list[Any]:
        """As read(), but tuples as the driver gives them."""
        return fetch_raw(self._db, query)

    def unlogged(self, query: Query) -> Any:
        """Run a statement on a table that is in no change log; what it answers."""
        return query.execute(self._db)

    def insert(self, row: R, **unlogged: Any) -> R:
        """Write a new row and its change; `unlogged` are columns that each node computes for itself."""
        table = TABLES[type(row)]
        row = replace(row, rev=self._next_seq())
        columns = table.values(row)
        table.insert({**columns, **unlogged}).execute(self._db)
        self._append(table, row, None, columns)
        self._note(table.kind, row.uid, None, columns)
        return row

    def update(self, row: R, **unlogged: Any) -> R:
        """Write all columns of an existing row, and its change."""
        table = TABLES[type(row)]
        row = replace(row, rev=self._next_seq())
        columns = table.values(row)
        before = self._stored(row.uid, table)
        table.update(row.uid, {**columns, **unlogged}).execute(self._db)
        self._append(table, row, before, columns)
        self._note(table.kind, row.uid, before, columns)
        return row

    def delete(self, row: Row) -> None:
        """Remove a row, as it was read in this transaction, and write its change and its tombstone."""
        table = TABLES[type(row)]
        self._next_seq()
        before = table.values(row)
        table.delete(row.uid).execute(self._db)
        self._append(table, row, before, None)
        put_tombstone(self._db, table.kind.value, row.uid, self._seq, self._epoch, self.now)
        self._note(table.kind, row.uid, before, None)

    def note(
        self, action: str, object_kind: str, object_uid: str, detail: Json | None = None, *, admitted: bool = False
    ) -> None:
        """A record that belongs to no row; none without a principal. `admitted`: the budget was asked."""
        if self._principal is not None:
            (self._admitted if admitted else self._records).append(audit_chain.NewAuditRecord(
                principal=self._principal, action=action, object_kind=object_kind, object_uid=object_uid, after=detail
            ))

    def set_place(self, key: str, seq: int, digest: str) -> None:
        audit_chain.set_place(self._db, key, seq, digest)

    def roll_back(self) -> None:
        """The transaction failed."""
        self._event_budget.put_back(self._counted)

    def flush(self) -> None:
        """Write events, position and changes: last statements of the transaction."""
        records = [
            one for one in self._records if self._event_budget.admits(one.principal, one.action, self.now)
        ]
        records += self._admitted
        self._counted = self._event_budget.due(self.now)
        for one in self._counted:
            records.append(audit_chain.NewAuditRecord(
                principal=one.principal, action=one.action, object_kind="", object_uid=ZERO_UID, after=one.detail()
            ))
        if records:
            audit_chain.append(self._db, records, self.now)
        if not self._changes:
            return
        _SET_POSITION(self._seq, digests.to_hex(self._digest)).execute(self._db)
        for values in self._changes:
            _APPEND(*values).execute(self._db)
        for uid in sorted(self._ruled):
            _RULED(uid, self._seq).execute(self._db)

    def _next_seq(self) -> int:
        if not self._changes and not self._place.may_write(self._log.node_uid):
            raise ReplicaError("this node is no master: changes are made at the master", hint="ask the master")
        self._seq += 1
        return self._seq

    def _append(
        self, table: LoggedTable[Any], row: Row, before: dict[str, Any] | None, after: dict[str, Any] | None
    ) -> None:
        """The change, and what it makes of the digest."""
        if isinstance(row, RULES):
            self._ruled[row.tunnel_uid] = None
        kind, text = table.kind.value, None
        if before is not None:
            gone = digests.element(self._digest_key, kind, row.uid, before["rev"], table.text(before))
            self._digest = digests.removed(self._digest, gone)
        if after is not None:
            text = table.text(after)
            self._digest = digests.added(
                self._digest, digests.element(self._digest_key, kind, row.uid, after["rev"], text)
            )
        op = Op.DEL if after is None else Op.PUT
        digest = digests.to_hex(self._digest)
        self._changes.append((self._seq, self._epoch, kind, op.value, row.uid, text, self.now, digest))

    def _note(self, kind: Kind, uid: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        if self._principal is None:
            return
        verb = "create" if before is None else "delete" if after is None else "edit"
        if before is not None and after is not None:
            differing = [name for name in after if after[name] != before[name] and name not in ("rev", "modified")]
            if kind == Kind.TUNNEL and "deleted_at" in differing:
                verb = "delete"
            elif kind == Kind.TUNNEL and "shutdown" in differing:
                verb = "shutdown" if after["shutdown"] else "enable"
            before = {name: before[name] for name in differing}
            after = {name: after[name] for name in differing}
        self._records.append(audit_chain.NewAuditRecord(
            principal=self._principal, action=f"{kind}.{verb}", object_kind=kind, object_uid=uid, before=before,
            after=after,
        ))

    def _stored(self, uid: str, table: LoggedTable[Any]) -> dict[str, Any]:
        for row in table.find(uid).execute(self._db):
            return table.read_columns(row)
        raise LookupError(f"{table.kind} {uid} vanished inside its own transaction")


class ChangeLog:
    """The log, and the writing transactions that append to it."""

    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self.secrets = secrets
        self.node_uid = read_node_uid(db)
        self.event_budget = EventBudget()

    @contextmanager
    def transaction(self) -> Iterator[Writer]:
        """The only way to a Writer. Nothing is written, logged or counted unless the block ends well."""
        writer: Writer | None = None
        try:
            with self._db.write() as db:
                writer = Writer(db, self, lock_place(self._db))
                for check in current_acting().checks:
                    check(writer)
                yield writer
                writer.flush()
        except BaseException:
            if writer is not None:
                writer.roll_back()
            raise

    def position(self) -> tuple[int, int]:
        """(epoch, seq) of the newest committed change; seq 0: none yet."""
        place = read_place(self._db)
        return place.epoch, place.seq

    def cursor(self) -> Cursor:
        """Behind which to follow the log, for who has read everything as it is from now on."""
        place = read_place(self._db)
        return Cursor(place.generation, place.seq)

    def continues(self, cursor: Cursor) -> bool:
        """Whether the log tells of everything behind the cursor; if not, its owner begins with a full read: rows came
        by a snapshot, or were removed from the log meanwhile."""
        place = read_place(self._db)
        if cursor.generation != place.generation or cursor.seq > place.seq:
            return False
        return cursor.seq == place.seq or bool(self._db.rows(_CHANGE_AT(cursor.seq + 1)))

    def apply(self, batch: Batch) -> Applied:
        """Put changes of the epoch's owner into this database: one transaction, all or none (apply.py)."""
        return apply_batch(self._db, self.secrets, batch)

    def batch(self, after_seq: int, limit: int = CHANGE_COUNT_MAX) -> Batch:
        """The changes behind `after_seq` for another node, secrets sealed; none where it has them all.

        Fails: GapError where the log does not tell of all of them: a snapshot is needed.
        """
        return make_batch(self._db, self.secrets, after_seq, limit)

    def bodies_before(self, deletions: Iterable[Change]) -> dict[int, Json]:
        """{seq of a deletion: the object as it was last written}; one that the log no longer knows is left out."""
        found = {}
        for change in deletions:
            query = (
                ChangeModel.select(ChangeModel.body)
                .where(ChangeModel.kind == change.kind, ChangeModel.uid == change.uid, ChangeModel.seq < change.seq)
                .order_by(ChangeModel.seq.desc()).limit(1).tuples()
            )
            for (body,) in self._db.read(query):
                if body is not None:
                    found[change.seq] = body
        return found

    def after(self, seq: int, limit: int = CHANGE_COUNT_MAX) -> list[Change]:
        """Committed changes behind `seq`, oldest first, at most `limit` and never over CHANGE_COUNT_MAX."""
        query = _CHANGES_AFTER(min(seq, SEQ_MAX), max(0, min(limit, CHANGE_COUNT_MAX)))
        return [_to_change(*row) for row in self._db.read(query)]

    def purge(self, older_than: float, row_count_min: int) -> int:
        """Remove those from before `older_than` (Unix seconds), the newest `row_count_min` excepted; how many: at most
        PURGE_COUNT_MAX, the oldest.

        Who follows the log from further behind begins with a full read.
        """
        _, seq = self.position()
        for (oldest,) in self._db.rows(ChangeModel.select(ChangeModel.seq).order_by(ChangeModel.seq).limit(1)):
            last = min(seq - row_count_min, oldest + PURGE_COUNT_MAX - 1)
            old = (ChangeModel.seq <= last) & (ChangeModel.time < older_than)
            return int(self._db.run(ChangeModel.delete().where(old)))
        return 0

    def purge_tombstones(self, older_than: float) -> int:
        """Remove those from before `older_than` (Unix seconds) whose deletion the log tells of no more; how many: at
        most PURGE_COUNT_MAX, the oldest."""
        kept = self._db.rows(ChangeModel.select(ChangeModel.seq).order_by(ChangeModel.seq).limit(1))
        first = kept[0][0] if kept else SEQ_MAX
        old = TombstoneModel.select(TombstoneModel.seq).where(
            TombstoneModel.seq < first, TombstoneModel.time < older_than
        )
        seqs = [seq for (seq,) in self._db.rows(old.order_by(TombstoneModel.seq).limit(PURGE_COUNT_MAX))]
        if not seqs:
            return 0
        return int(self._db.run(TombstoneModel.delete().where(
            TombstoneModel.seq <= seqs[-1], TombstoneModel.seq < first, TombstoneModel.time < older_than
        )))


def _to_change(
    seq: int, epoch: int, kind: str, op: str, uid: str, rev: int, body: str | None, time: float, _digest: str
) -> Change:
    try:
        values = None if body is None else json.loads(body)
    except ValueError:
        values = None                    # a row that was damaged must not keep those behind it from being read
    return Change(seq=seq, epoch=epoch, kind=kind, op=Op(op), uid=uid, rev=rev, body=values, time=time)
