"""Changes of the epoch's owner put into this database: one function, wherever they come from.

Owns: the rule that a batch is in force wholly or not at all. In its one transaction stand the rows, the same entries of
the change log (with `seq` and epoch as at the owner), tombstones, position and digest; if the digest is not the
owner's, all of it is undone. No audit record is left: the node that was asked has it.

Within a batch changes are applied in the order of the log. Each of the owner's statements met the unique names and
ports as they stood then, so the same statements in the same order meet them here; one that does not fit shows that the
rows differ.
Fails: what judge_batch fails with, ClusterKindError (an unknown form too), SealError, DivergedError, GapError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import peewee
import psycopg

from spokes.cluster import digest as digests
from spokes.cluster.batch import Batch, BatchAnswer, Event, check_batch
from spokes.cluster.history import History
from spokes.cluster.position import Position
from spokes.cluster.sealing import Sealer, cluster_id
from spokes.cluster.standing import Standing, Verdict, judge_batch
from spokes.errors import ClusterKindError, DivergedError
from spokes.store.base import Secrets
from spokes.store.db import Database, Query, fetch_raw
from spokes.store.digests import element_of
from spokes.store.former_hostnames import hold_hostname
from spokes.store.logged import KINDS, RULE_TABLES, TUNNELS, LoggedTable
from spokes.store.migrations import MIGRATIONS
from spokes.store.models import ChangeModel, PositionModel, RuleStateModel
from spokes.store.place import Place, lock_place, read_history, read_node_uid, read_place, write_history
from spokes.store.rows import Tunnel
from spokes.store.statement import Statement
from spokes.store.tombstones import is_deleted_since, put_tombstone

_NOT_FITTING = (peewee.IntegrityError, psycopg.IntegrityError)
_APPEND = Statement(
    lambda seq, epoch, kind, op, uid, rev, body, time, digest: ChangeModel.insert(
        seq=seq, epoch=epoch, kind=kind, op=op, uid=uid, rev=rev, body=body, time=time, digest=digest
    )
)
RULED = Statement(
    lambda tunnel_uid, rev: RuleStateModel.insert(tunnel_uid=tunnel_uid, rev=rev).on_conflict(
        conflict_target=[RuleStateModel.tunnel_uid], preserve=[RuleStateModel.rev]
    )
)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch, and what its sender is answered."""

    verdict: Verdict
    answer: BatchAnswer
    change_count: int = 0                # of those that are in force by it


def standing_of(db: Database, secrets: Secrets, place: Place | None = None) -> Standing:
    """This node, by what the database holds; `place` where it is locked already."""
    place = place or read_place(db)
    return Standing(
        node=read_node_uid(db), cluster=cluster_id(secrets.key), position=place.position, digest=place.digest,
        highest=max(place.highest, place.position.epoch), schema=MIGRATIONS[-1].version, history=read_history(db),
    )


def apply_batch(db: Database, secrets: Secrets, batch: Batch) -> Applied:
    check_batch(batch)
    standing = standing_of(db, secrets)
    if (batch.cluster, batch.sender) == (standing.cluster, batch.epoch.owner) and batch.epoch > standing.highest:
        # By itself, before anything that may fail: a master that is deposed writes no more, whatever comes of the rest.
        with db.write() as connection:
            if batch.epoch > lock_place(db).highest:
                PositionModel.update(
                    highest_epoch=batch.epoch.number, highest_owner=batch.epoch.owner
                ).execute(connection)
    sealer = Sealer(secrets.key)
    with db.write() as connection:
        place = lock_place(db)
        verdict = judge_batch(standing_of(db, secrets, place), batch, KINDS)
        if verdict is not Verdict.APPLY:
            return Applied(verdict, _answer(place))
        events = [event for event in batch.events if event.seq > place.seq]
        work = _Work(connection, secrets, place, batch)
        try:
            for event in events:
                work.apply(event, sealer)
        except _NOT_FITTING as error:
            raise DivergedError(place.position, batch.sender) from error
        if work.digest_text != batch.digest:
            raise DivergedError(Position(batch.epoch, batch.to_seq), batch.sender)
        work.finish(read_history(db))
    return Applied(
        verdict,
        BatchAnswer(
            epoch=batch.epoch.number, owner=batch.epoch.owner, applied_seq=batch.to_seq, digest=work.digest_text
        ),
        len(events),
    )


def opened_columns(table: LoggedTable[Any], uid: str, body: Any, sealer: Sealer) -> dict[str, Any]:
    """The columns of a row that came from another node. Fails: ClusterKindError for another form, SealError."""
    if not isinstance(body, dict) or body.keys() != table.names or body["uid"] != uid:
        raise ClusterKindError(table.kind)
    try:
        return table.values(msgspec.convert(sealer.open(table.kind, uid, body), table.row_type))
    except msgspec.ValidationError:
        raise ClusterKindError(table.kind) from None


class _Work:
    """One batch being applied."""

    def __init__(self, db: peewee.Database, secrets: Secrets, place: Place, batch: Batch) -> None:
        self._db = db
        self._hash = secrets.hash
        self._key = secrets.digest_key
        self._place = place
        self._batch = batch
        self._digest = digests.from_hex(place.digest)
        self._ruled: dict[str, int] = {}  # tunnel: seq of the newest change of its rules
        self.now = 0.0

    @property
    def digest_text(self) -> str:
        return digests.to_hex(self._digest)

    # What hold_hostname is given.
    def read(self, query: Query) -> list[Any]:
        return list(query.execute(self._db))

    def rows(self, query: Query) -> list[Any]:
        return fetch_raw(self._db, query)

    def unlogged(self, query: Query) -> Any:
        return query.execute(self._db)

    def apply(self, event: Event, sealer: Sealer) -> None:
        table, self.now = KINDS[event.kind], event.time
        stored = self._stored(table, event.uid)
        text = None
        if event.body is None:
            self._take_away(table, stored)
            table.delete(event.uid).execute(self._db)
            put_tombstone(self._db, event.kind, event.uid, event.seq, event.epoch, event.time)
            owner = stored
        else:
            columns = owner = opened_columns(table, event.uid, event.object(), sealer)
            text = table.text(columns)
            is_newer = stored is None or stored["rev"] < event.rev
            if is_newer and not is_deleted_since(self._db, event.kind, event.uid, event.rev):
                self._take_away(table, stored)
                self._put(table, stored, columns)
        if table.kind in RULE_TABLES and owner is not None:
            self._ruled[owner["tunnel_uid"]] = event.seq
        _APPEND(
            event.seq, event.epoch, event.kind, event.op, event.uid, event.rev, text, event.time, self.digest_text
        ).execute(self._db)

    def finish(self, history: History) -> None:
        for tunnel_uid, seq in sorted(self._ruled.items()):
            RULED(tunnel_uid, seq).execute(self._db)
        epoch = self._batch.epoch
        highest = max(epoch, self._place.highest)
        PositionModel.update(
            epoch=epoch.number, owner=epoch.owner, seq=self._batch.to_seq, digest=self.digest_text,
            highest_epoch=highest.number, highest_owner=highest.owner,
        ).execute(self._db)
        if history != self._batch.history:
            write_history(self._db, self._batch.history, self.now)

    def _put(self, table: LoggedTable[Any], stored: dict[str, Any] | None, columns: dict[str, Any]) -> None:
        unlogged = table.unlogged(columns, self._hash)
        if stored is None:
            table.insert({**columns, **unlogged, **table.unlogged_at_first}).execute(self._db)
        else:
            if table is TUNNELS and stored["hostname"] != columns["hostname"]:
                hold_hostname(self, Tunnel(**stored), columns["hostname"])
            table.update(columns["uid"], {**columns, **unlogged}).execute(self._db)
        self._digest = digests.added(self._digest, element_of(self._key, table, columns))

    def _take_away(self, table: LoggedTable[Any], stored: dict[str, Any] | None) -> None:
        if stored is not None:
            self._digest = digests.removed(self._digest, element_of(self._key, table, stored))

    def _stored(self, table: LoggedTable[Any], uid: str) -> dict[str, Any] | None:
        for row in table.find(uid).execute(self._db):
            return table.read_columns(row)
        return None


def _answer(place: Place) -> BatchAnswer:
    return BatchAnswer(epoch=place.epoch, owner=place.owner, applied_seq=place.seq, digest=place.digest)
