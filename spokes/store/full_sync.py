"""All rows of the change log at one position, out of this database as a stream and into it in one transaction.

Owns: how a snapshot takes the place of what is here. The stream is first put into a temporary file whole, so that no
writer waits for a network; then, in one transaction, rows that it lacks go, rows that differ are replaced and new ones
come, and the log begins anew behind its position. Rows that are alike are not touched, so what was seen of them
(presence, when a key was used) stays. Unique names and ports are vacated before the first of them is taken, so that no
order of rows can fail.
Bound: memory for the id and digest of each row, and for the rows that differ. Whatever fails (a cut stream, a full
disk) leaves everything as it was.
Fails: SnapshotError, NewerSchemaError, StaleEpochError, SignatureError, ClusterKindError, SealError, StoreError.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import peewee

from spokes import clock
from spokes.cluster import digest as digests
from spokes.cluster.history import common_seq
from spokes.cluster.position import Position
from spokes.cluster.sealing import Sealer, cluster_id
from spokes.cluster.snapshot import FORMAT, SnapshotHead, SnapshotRow, Tombstone, read_snapshot, write_snapshot
from spokes.errors import ClusterKindError, NewerSchemaError, SignatureError, SnapshotError, StaleEpochError
from spokes.ids import new_uid
from spokes.store.apply import RULED, opened_columns
from spokes.store.base import Secrets
from spokes.store.copy import COPY_COUNT, read_rows, write_rows
from spokes.store.db import Database
from spokes.store.digests import element_of, elements
from spokes.store.logged import KINDS, RULE_TABLES, LoggedTable
from spokes.store.migrations import MIGRATIONS
from spokes.store.models import (
    ChangeModel,
    FormerHostnameModel,
    PositionModel,
    QuarantineModel,
    TombstoneModel,
)
from spokes.store.models_admin import DomainProofModel
from spokes.store.place import lock_place, read_history, read_node_uid, read_place, write_history
from spokes.store.rows import Kind
from spokes.store.statement import EachOf

SPOOL_CHUNK_BYTES = 256 * 1024
IN_MEMORY_BYTES = 1024 * 1024
_CUT = 500                               # ids in one statement
# Not in the change log, and still needed after a promotion: held names, and domains that were proved.
_BESIDE: dict[str, type[peewee.Model]] = {"former_hostname": FormerHostnameModel, "domain_proof": DomainProofModel}


Rows = dict[str, dict[str, dict[str, Any]]]      # {kind: {uid: columns}}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a snapshot changed."""

    position: Position
    put_count: int
    deleted_count: int
    quarantined_count: int               # changes of this node's own that were set aside


def export_snapshot(db: Database, secrets: Secrets) -> Iterator[bytes]:
    """The stream, of one moment, whoever writes beside it. To be read to its end, or closed, by one thread."""
    with db.snapshot() as connection:
        place, key = read_place(db), secrets.key
        head = SnapshotHead(
            format=FORMAT, cluster=cluster_id(key), sender=read_node_uid(db), history=read_history(db), seq=place.seq,
            digest=place.digest, schema=MIGRATIONS[-1].version,
        )
        yield from write_snapshot(key, head, _rows(db, connection, Sealer(key)), _tombstones(db, connection))


def _rows(db: Database, connection: Any, sealer: Sealer) -> Iterator[SnapshotRow]:
    for kind, model in _BESIDE.items():
        names = tuple(model._meta.columns)
        for batch in read_rows(db, connection, model._meta.table_name, names):
            for row in batch:
                yield SnapshotRow(kind, dict(zip(names, row, strict=True)))
    for kind, table in KINDS.items():
        for batch in read_rows(db, connection, table.name, tuple(field.column_name for field in table.columns)):
            for row in batch:
                columns = table.read_columns(row)
                yield SnapshotRow(kind, sealer.seal(kind, columns["uid"], columns))


def _tombstones(db: Database, connection: Any) -> Iterator[Tombstone]:
    for batch in read_rows(db, connection, "tombstone", Tombstone._fields):
        for row in batch:
            yield Tombstone(*row)


def load_snapshot(db: Database, secrets: Secrets, chunks: Iterable[bytes]) -> Loaded:
    try:
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as spool:
            for chunk in chunks:
                spool.write(chunk)
            with db.write() as connection:
                return _Load(db, connection, secrets, spool).run()
    except OSError as error:
        raise SnapshotError(
            f"a snapshot cannot be kept: {error.strerror}", hint="look at the free space of the temporary directory"
        ) from error


class _Load:
    """One snapshot that takes the place of what is here; inside db.write()."""

    def __init__(self, db: Database, connection: peewee.Database, secrets: Secrets, spool: IO[bytes]) -> None:
        self._db = db
        self._connection = connection
        self._secrets = secrets
        self._sealer = Sealer(secrets.key)
        self._spool = spool
        self._now = clock.wall_s()
        self._tombstones: list[Tombstone] = []
        self._beside: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _BESIDE}

    def run(self) -> Loaded:
        place, history = lock_place(self._db), read_history(self._db)
        reading = self._read()
        head = next(reading)
        assert isinstance(head, SnapshotHead)
        self._check(head, place.position, max(place.highest, place.position.epoch))
        here = {kind: elements(self._db, self._secrets.digest_key, table) for kind, table in KINDS.items()}
        removed, changed, new = self._compare(reading, here, head)
        quarantined_count = self._quarantine(common_seq(history, head.history))
        ruled = self._tunnels_of(removed, changed)
        self._make_room(removed, changed)
        ruled |= self._put(changed, new)
        ruled &= here[Kind.TUNNEL].keys() - removed[Kind.TUNNEL] | new[Kind.TUNNEL].keys()
        self._finish(head, place.generation, max(place.highest, head.position.epoch), ruled)
        write_history(self._connection, head.history, self._now)
        return Loaded(
            head.position, sum(len(changed[kind]) + len(new[kind]) for kind in KINDS),
            sum(map(len, removed.values())), quarantined_count,
        )

    def _read(self) -> Iterator[SnapshotHead | SnapshotRow | Tombstone]:
        self._spool.seek(0)
        return read_snapshot(self._secrets.key, iter(lambda: self._spool.read(SPOOL_CHUNK_BYTES), b""))

    def _check(self, head: SnapshotHead, own: Position, highest: tuple[int, str]) -> None:
        if head.cluster != cluster_id(self._secrets.key):
            raise SnapshotError("a snapshot is of another cluster", hint="join this node to the cluster again")
        if head.schema > MIGRATIONS[-1].version:
            raise NewerSchemaError(head.schema, MIGRATIONS[-1].version)
        if head.sender != head.position.epoch.owner:
            raise SignatureError("a snapshot comes from a node that does not own its epoch")
        if head.position.epoch < highest:
            raise StaleEpochError(highest)
        if head.position < own:
            raise SnapshotError("a snapshot is older than what this node has", hint="a newer one is asked for")

    def _compare(
        self, reading: Iterator[Any], here: dict[str, dict[str, int]], head: SnapshotHead
    ) -> tuple[dict[str, set[str]], Rows, Rows]:
        """Rows that it lacks, by id; those that differ, and those that are new. Reads it to its end, so it is whole."""
        removed = {kind: set(rows) for kind, rows in here.items()}
        changed: Rows = {kind: {} for kind in KINDS}
        new: Rows = {kind: {} for kind in KINDS}
        digest = digests.EMPTY
        for one in reading:
            if isinstance(one, Tombstone):
                self._tombstones.append(one)
            elif one.kind in _BESIDE:
                self._beside[one.kind].append(one.body)
            else:
                table, columns = self._columns(one)
                uid, there = columns["uid"], element_of(self._secrets.digest_key, table, columns)
                digest = digests.added(digest, there)
                known = here[one.kind].get(uid)
                if known is None:
                    new[one.kind][uid] = columns
                else:
                    removed[one.kind].discard(uid)
                    if known != there:
                        changed[one.kind][uid] = columns
        if digests.to_hex(digest) != head.digest:
            raise SnapshotError("the rows of a snapshot do not add up to its digest")
        return removed, changed, new

    def _columns(self, row: SnapshotRow) -> tuple[LoggedTable[Any], dict[str, Any]]:
        table = KINDS.get(row.kind)
        if table is None:
            raise ClusterKindError(row.kind)
        return table, opened_columns(table, str(row.body.get("uid")), row.body, self._sealer)

    def _quarantine(self, last: int) -> int:
        """Sets aside what this node wrote and the snapshot does not know; how many changes."""
        rows = self._db.read(ChangeModel.select().where(ChangeModel.seq > last).order_by(ChangeModel.seq).tuples())
        names = tuple(ChangeModel._meta.fields)
        for row in rows:
            fields = dict(zip(names, row, strict=True))
            fields.pop("digest")
            QuarantineModel.insert(entry_uid=new_uid(), **fields, set_aside=self._now).execute(self._connection)
        return len(rows)

    def _tunnels_of(self, *uids: Mapping[str, Iterable[str]]) -> set[str]:
        """Whose rules are among these rows, as they stand."""
        found: set[str] = set()
        for table in RULE_TABLES.values():
            wanted = set().union(*(some[table.kind] for some in uids))
            for row in self._select(table, wanted):
                found.add(table.read_columns(row)["tunnel_uid"])
        return found

    def _select(self, table: LoggedTable[Any], uids: set[str]) -> Iterator[Any]:
        for cut in _cuts(uids):
            yield from self._db.rows(table.model.select(*table.columns).where(table.uid.in_(EachOf(cut))))

    def _make_room(self, removed: dict[str, set[str]], changed: Rows) -> None:
        """Rows that go are deleted, and those that change give up what must be unique."""
        for kind, table in reversed(KINDS.items()):
            gone = removed[kind] | (set() if table.vacated else changed[kind].keys())
            for cut in _cuts(gone):
                table.model.delete().where(table.uid.in_(EachOf(cut))).execute(self._connection)
            if table.vacated:
                for cut in _cuts(changed[kind]):
                    table.model.update(dict(table.vacated)).where(table.uid.in_(EachOf(cut))).execute(self._connection)

    def _put(self, changed: Rows, new: Rows) -> set[str]:
        """Writes rows, tombstones and what stands beside; the tunnels of rules among them."""
        ruled = set()
        for kind, table in KINDS.items():
            fresh = list(new[kind].values())
            for columns in changed[kind].values():
                if table.vacated:
                    unlogged = table.unlogged(columns, self._secrets.hash)
                    table.update(columns["uid"], {**columns, **unlogged}).execute(self._connection)
                else:
                    fresh.append(columns)
            self._insert(table, fresh)
            if kind in RULE_TABLES:
                ruled |= {columns["tunnel_uid"] for columns in (*new[kind].values(), *changed[kind].values())}
        for kind, model in _BESIDE.items():
            names = tuple(model._meta.columns)
            self._replace(model, names, [tuple(body[name] for name in names) for body in self._beside[kind]])
        self._replace(TombstoneModel, Tombstone._fields, self._tombstones)
        return ruled

    def _insert(self, table: LoggedTable[Any], rows: Sequence[dict[str, Any]]) -> None:
        for begin in range(0, len(rows), COPY_COUNT):
            whole = [
                {**columns, **table.unlogged(columns, self._secrets.hash), **table.unlogged_at_first}
                for columns in rows[begin:begin + COPY_COUNT]
            ]
            write_rows(self._db, table.name, tuple(whole[0]), [table.driver_values(columns) for columns in whole])

    def _replace(self, model: type[peewee.Model], names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        model.delete().execute(self._connection)
        if rows:
            write_rows(self._db, model._meta.table_name, names, rows)

    def _finish(self, head: SnapshotHead, generation: int, highest: tuple[int, str], ruled: set[str]) -> None:
        for uid in sorted(ruled):
            RULED(uid, head.seq).execute(self._connection)
        ChangeModel.delete().execute(self._connection)
        epoch = head.position.epoch
        PositionModel.update(
            epoch=epoch.number, owner=epoch.owner, seq=head.seq, digest=head.digest, generation=generation + 1,
            highest_epoch=highest[0], highest_owner=highest[1],
        ).execute(self._connection)


def _cuts(uids: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(uids)
    for begin in range(0, len(ordered), _CUT):
        yield ordered[begin:begin + _CUT]
