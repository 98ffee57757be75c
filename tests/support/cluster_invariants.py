"""What must hold of a cluster's stores at every moment: each invariant is a function that raises BrokenInvariant.

A Cluster (cluster_nodes.py) calls them after each of its steps; tests/store/test_cluster_runs.py shows that each finds
a build that is broken on purpose.
"""

from __future__ import annotations

from spokes.cluster.history import common_seq
from spokes.cluster.position import Epoch, Position
from spokes.store.logged import TABLES


class BrokenInvariant(AssertionError):
    """`name` says which."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


class Watch:
    """What was seen of a cluster so far, and what follows from it for what is seen next."""

    def __init__(self) -> None:
        self._committers: dict[int, set[str]] = {}
        self._positions: dict[str, Position] = {}
        self._digests: dict[Position, str] = {}
        self._deleted: dict[tuple[str, str], Position] = {}
        self.acknowledged: dict[tuple[Epoch, int], tuple[str, str]] = {}

    def note_commit(self, store, node_uid, first_seq):
        """A write that was acknowledged: its changes are those behind `first_seq`."""
        epoch = store.cluster.standing().position.epoch
        self._committers.setdefault(epoch.number, set()).add(node_uid)
        for change in store.changes.after(first_seq):
            self.acknowledged[epoch, change.seq] = (change.kind, change.uid)

    def check_one_committer(self):
        for number, nodes in self._committers.items():
            if len(nodes) > 1:
                raise BrokenInvariant("one committer per epoch", f"{sorted(nodes)} wrote in epoch {number}")

    def check_position(self, store):
        """Never back, but by an epoch that is newer."""
        node, position = store.cluster.node_uid, store.cluster.standing().position
        before = self._positions.get(node, position)
        if position < before:
            raise BrokenInvariant("positions never go back", f"{node} went from {before} to {position}")
        self._positions[node] = position

    def check_digest(self, store):
        """Equal positions, equal digests; and the digest is that of the rows."""
        standing = store.cluster.standing()
        if self._digests.setdefault(standing.position, standing.digest) != standing.digest:
            raise BrokenInvariant("equal position, equal digest", f"two digests at {standing.position}")
        if not store.cluster.is_digest_right():
            raise BrokenInvariant("equal position, equal digest", f"rows and digest differ at {standing.position}")

    def check_deleted(self, store):
        """What the log of this node says is deleted is not there."""
        present = {(kind, uid) for kind, uid, _ in rows_of(store)}
        last = {(change.kind, change.uid): change.op for change in store.changes.after(0)}
        for one, op in last.items():
            if op == "del" and one in present:
                raise BrokenInvariant("a deleted id never returns", f"{one} is there again")

    def check_same_rows(self, stores):
        """Nodes at one position hold the same rows."""
        found: dict[Position, frozenset[tuple[str, str, str]]] = {}
        for store in stores:
            position, rows = store.cluster.standing().position, frozenset(rows_of(store))
            if found.setdefault(position, rows) != rows:
                raise BrokenInvariant("equal position, equal rows", f"two sets of rows at {position}")

    def check_acknowledged(self, master, stores):
        """Every acknowledged write is in the master's log, or stands in somebody's quarantine."""
        standing = master.cluster.standing()
        log = {(change.epoch, change.seq) for change in master.changes.after(0)}
        listed = {
            (change.epoch, change.seq, change.uid) for store in stores for _, change in store.cluster.quarantine()
        }
        floor = min((seq for _, seq in log), default=standing.position.seq + 1)
        for (epoch, seq), (kind, uid) in self.acknowledged.items():
            in_history = any(one.epoch == epoch for one in standing.history)
            survives = in_history and (seq < floor or (epoch.number, seq) in log)
            if not survives and (epoch.number, seq, uid) not in listed:
                raise BrokenInvariant("acknowledged writes survive or are listed", f"{kind} {uid} of {epoch} {seq}")

    def check(self, stores):
        self.check_one_committer()
        for store in stores:
            self.check_position(store)
            self.check_deleted(store)
            self.check_digest(store)
        self.check_same_rows(stores)


def rows_of(store):
    """(kind, uid, the row as the log tells it) of everything in the change log's tables."""
    return [
        (table.kind.value, columns["uid"], table.text(columns))
        for table in TABLES.values()
        for columns in map(table.read_columns, store._db.rows(table.all()))
    ]


def parted(one, other):
    """Behind which change two stores' histories part."""
    return common_seq(one.cluster.standing().history, other.cluster.standing().history)
