"""This node in its cluster, as its database knows it: identity, standing, settings; promotion, joining, snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from spokes import clock
from spokes.cluster.history import EpochStart, continued
from spokes.cluster.position import Epoch, Position
from spokes.cluster.standing import Standing
from spokes.errors import StaleEpochError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret
from spokes.store.apply import standing_of
from spokes.store.base import HASH_KEY, Secrets
from spokes.store.db import Database
from spokes.store.digests import computed_digest
from spokes.store.full_sync import Loaded, export_snapshot, load_snapshot
from spokes.store.logged import AUTH_TOKENS, TOKENS
from spokes.store.models import MetaModel, PositionModel, QuarantineModel
from spokes.store.models_admin import LoginModel
from spokes.store.place import lock_place, read_history, read_node_uid, read_place, write_history
from spokes.store.rows import Change, Op

SETTINGS_KEY = "replication"


class ReplicationSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator sets of this node's part in a cluster; each node has its own."""

    admin_key: str = ""                  # an API key of the master
    hmac_key: str = ""                   # of requests between nodes; "": in no cluster
    master_hostname: str = ""
    cluster_hostname: str = ""           # the same on all nodes
    own_hostname: str = ""
    interval_s: int = 60                 # of silence, after which a replica asks by itself
    is_master: bool = False
    is_active: bool = False

    def __repr__(self) -> str:           # two of these are secret
        return f"ReplicationSettings(own_hostname={self.own_hostname!r}, is_master={self.is_master})"


class ClusterState:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    @property
    def node_uid(self) -> str:
        """Made once, kept as long as the database; a backup that is restored elsewhere does not bring it along."""
        return read_node_uid(self._db)

    def standing(self) -> Standing:
        return standing_of(self._db, self._secrets)

    def may_write(self) -> bool:
        return read_place(self._db).may_write(self.node_uid)

    def settings(self) -> ReplicationSettings:
        query = MetaModel.select(MetaModel.value).where(MetaModel.key == SETTINGS_KEY)
        for (value,) in self._db.rows(query):
            return msgspec.json.decode(value, type=ReplicationSettings)
        return ReplicationSettings()

    def set_settings(self, settings: ReplicationSettings) -> None:
        query = MetaModel.insert(key=SETTINGS_KEY, value=msgspec.json.encode(settings).decode()).on_conflict(
            conflict_target=[MetaModel.key], preserve=[MetaModel.value]
        )
        self._db.alone(lambda: query.execute(self._db.peewee))

    def set_fenced(self, fenced: bool) -> None:
        """While fenced nobody changes configuration here, in any process: a node on probation."""
        with self._db.write() as db:
            lock_place(self._db)
            PositionModel.update(fenced=fenced).execute(db)

    def note_epoch(self, epoch: Epoch) -> None:
        """An epoch that another node told of: if it is the highest, this node writes no more."""
        with self._db.write() as db:
            place = lock_place(self._db)
            if epoch > max(place.highest, place.position.epoch):
                PositionModel.update(highest_epoch=epoch.number, highest_owner=epoch.owner).execute(db)

    def promote(self, epoch: Epoch) -> Position:
        """Begin an epoch of this node's own, as standing.next_epoch() gave it; from now on it writes.

        Fails: StaleEpochError where one as high was seen meanwhile.
        """
        with self._db.write() as db:
            place, node_uid = lock_place(self._db), self.node_uid
            highest = max(place.highest, place.position.epoch)
            if epoch.owner != node_uid or epoch.number <= highest.number:
                raise StaleEpochError(highest)
            start = EpochStart(epoch.number, node_uid, place.seq)
            write_history(db, continued(read_history(self._db), start), clock.wall_s())
            PositionModel.update(
                epoch=epoch.number, owner=node_uid, highest_epoch=epoch.number, highest_owner=node_uid, fenced=False
            ).execute(db)
            return Position(epoch, place.seq)

    def join(self, cluster_key: str) -> None:
        """Take the cluster's key: from now on this node writes nothing and waits for a snapshot, which takes the place
        of what it holds. Hashes of tokens are made anew; cookies and API keys of this node are worth nothing any more.

        Other processes that have this store open keep the old key: they are started again.
        """
        if not is_secret(cluster_key):
            raise ValueRefusedError("a cluster key is 64 hex digits")
        with self._db.write() as db:
            lock_place(self._db)
            before = self._secrets.key
            self._secrets.set_key(bytes.fromhex(cluster_key))
            try:
                MetaModel.update(value=cluster_key).where(MetaModel.key == f"secret.{HASH_KEY}").execute(db)
                for table in (TOKENS, AUTH_TOKENS):
                    for row in self._db.rows(table.all()):
                        columns = table.read_columns(row)
                        table.update(columns["uid"], table.unlogged(columns, self._secrets.hash)).execute(db)
                LoginModel.delete().execute(db)
                PositionModel.update(
                    epoch=0, owner=ZERO_UID, highest_epoch=0, highest_owner=ZERO_UID,
                    digest=computed_digest(self._db, self._secrets.digest_key),
                ).execute(db)
            except BaseException:
                self._secrets.set_key(before)
                raise

    def cluster_key(self) -> str:
        """What a node that joins is given; secret."""
        return self._secrets.key.hex()

    def export(self) -> Iterator[bytes]:
        """A snapshot as a gzip stream, of one moment; to be read to its end, or closed, by one thread."""
        return export_snapshot(self._db, self._secrets)

    def load(self, chunks: Iterable[bytes]) -> Loaded:
        """Put a snapshot in the place of what is here, in one transaction (full_sync.py)."""
        return load_snapshot(self._db, self._secrets, chunks)

    def is_digest_right(self) -> bool:
        """Whether the rows are those that the log told of: False after a hand in the database."""
        with self._db.snapshot():
            return computed_digest(self._db, self._secrets.digest_key) == read_place(self._db).digest

    def quarantine(self) -> list[tuple[float, Change]]:
        """What was set aside, oldest first: when, and the change. Bodies hold secrets, as the log's do."""
        query = QuarantineModel.select().order_by(QuarantineModel.set_aside, QuarantineModel.seq)
        return [
            (row.set_aside, Change(
                seq=row.seq, epoch=row.epoch, kind=row.kind, op=Op(row.op), uid=row.uid, rev=row.rev, body=row.body,
                time=row.time,
            ))
            for row in self._db.read(query)
        ]
