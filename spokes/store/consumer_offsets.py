"""How far each consumer of the change log has read, for those that must miss nothing over a restart."""

from __future__ import annotations

from spokes.store.db import Database
from spokes.store.models import MetaModel


class ConsumerOffsets:
    def __init__(self, db: Database) -> None:
        self._db = db

    def read(self, name: str) -> tuple[int, int] | None:
        """(epoch, seq); None: this consumer has never been."""
        for (value,) in self._db.rows(MetaModel.select(MetaModel.value).where(MetaModel.key == f"offset.{name}")):
            epoch, _, seq = str(value).partition(" ")
            return int(epoch), int(seq)
        return None

    def write(self, name: str, epoch: int, seq: int) -> None:
        query = MetaModel.insert(key=f"offset.{name}", value=f"{epoch} {seq}").on_conflict(
            conflict_target=[MetaModel.key], preserve=[MetaModel.value]
        )
        self._db.alone(lambda: query.execute(self._db.peewee))
