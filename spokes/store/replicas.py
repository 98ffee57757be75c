"""Replica entries: the nodes to which the master sends its changes."""

from __future__ import annotations

from spokes.errors import NotFoundError
from spokes.ids import is_uid
from spokes.store.base import View
from spokes.store.db import Database
from spokes.store.logged import REPLICAS
from spokes.store.models import ReplicaModel
from spokes.store.rows import Replica

_ALL = REPLICAS.where(order_by=(ReplicaModel.created, ReplicaModel.uid))
_BY_HOSTNAME = REPLICAS.where(ReplicaModel.hostname)


class Replicas:
    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, uid: str, view: View | None = None) -> Replica:
        if is_uid(uid):
            for row in (view or self._db).rows(REPLICAS.find(uid)):
                return REPLICAS.read(row)
        raise NotFoundError("unknown replica")

    def find_by_hostname(self, hostname: str, view: View | None = None) -> Replica | None:
        for row in (view or self._db).rows(_BY_HOSTNAME(hostname)):
            return REPLICAS.read(row)
        return None

    def select(self) -> list[Replica]:
        """Oldest first, inactive ones too."""
        return [REPLICAS.read(row) for row in self._db.rows(_ALL())]
