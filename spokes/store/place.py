"""The `position` row: where this database stands in the cluster's history, and whether this node may write.

Every writing transaction locks it first of all, so what is read of it stands until the transaction ends.
"""

from __future__ import annotations

from typing import NamedTuple

import peewee

from spokes.cluster.history import EpochStart, History
from spokes.cluster.position import Epoch, Position
from spokes.store.db import Database
from spokes.store.models import EpochModel, MetaModel, PositionModel
from spokes.store.statement import Statement

NODE_KEY = "node.uid"


class Place(NamedTuple):
    """The row, as the driver gives it."""

    epoch: int
    seq: int
    owner: str                           # of the epoch; ZERO_UID while a node that joins has loaded nothing
    digest: str                          # of all rows of the change log; "" until it is computed
    fenced: bool                         # nobody writes: the node is on probation
    highest_epoch: int                   # ever seen
    highest_owner: str
    generation: int                      # grows when rows were put here that the log does not tell of

    @property
    def position(self) -> Position:
        return Position(Epoch(self.epoch, self.owner), self.seq)

    @property
    def highest(self) -> Epoch:
        return Epoch(self.highest_epoch, self.highest_owner)

    def may_write(self, node_uid: str) -> bool:
        return (
            self.owner == node_uid and not self.fenced
            and (self.highest_epoch, self.highest_owner) <= (self.epoch, self.owner)
        )


_COLUMNS = tuple(getattr(PositionModel, name) for name in Place._fields)
_READ = Statement(lambda: PositionModel.select(*_COLUMNS))
_LOCK = Statement(lambda: PositionModel.select(*_COLUMNS).for_update())
_HISTORY = Statement(
    lambda: EpochModel.select(EpochModel.number, EpochModel.owner, EpochModel.start).order_by(
        EpochModel.number, EpochModel.owner
    )
)
_NODE = Statement(lambda: MetaModel.select(MetaModel.value).where(MetaModel.key == NODE_KEY))


def read_place(db: Database) -> Place:
    """As it is now, or in the transaction that this thread is in."""
    (row,) = db.read(_READ())
    return Place(*row)


def lock_place(db: Database) -> Place:
    """First of all in a writing transaction."""
    (row,) = (_READ if db.is_sqlite else _LOCK)().execute(db.peewee)
    return Place(*row)


def read_history(db: Database) -> History:
    return tuple(EpochStart(*row) for row in db.read(_HISTORY()))


def read_node_uid(db: Database) -> str:
    ((uid,),) = db.read(_NODE())
    return str(uid)


def write_history(db: peewee.Database, history: History, time: float) -> None:
    """In the place of what stood there; of epochs that stay it is kept when they came. Inside a writing transaction."""
    stays = {(one.number, one.owner) for one in history}
    known = set()
    for number, owner, _ in _HISTORY().execute(db):
        known.add((number, owner))
        if (number, owner) not in stays:
            EpochModel.delete().where(EpochModel.number == number, EpochModel.owner == owner).execute(db)
    for one in history:
        if (one.number, one.owner) not in known:
            EpochModel.insert(number=one.number, owner=one.owner, start=one.start, time=time).execute(db)
