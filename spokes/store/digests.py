"""The digest of all rows of the change log, computed from the rows themselves.

The running digest in `position` follows each change; this is what it must be equal to. It is needed where there is no
running one: after a migration, and when the key has changed.
"""

from __future__ import annotations

from typing import Any

from spokes.cluster import digest as digests
from spokes.store.db import Database
from spokes.store.logged import TABLES, LoggedTable
from spokes.store.models import PositionModel
from spokes.store.place import lock_place, read_place


def element_of(key: bytes, table: LoggedTable[Any], columns: dict[str, Any]) -> int:
    """Of one row, by its columns as read_columns() gives them."""
    return digests.element(key, table.kind, columns["uid"], columns["rev"], table.text(columns))


def elements(db: Database, key: bytes, table: LoggedTable[Any]) -> dict[str, int]:
    """{uid: element} of the rows that stand."""
    found = {}
    for row in db.rows(table.all()):
        columns = table.read_columns(row)
        found[columns["uid"]] = element_of(key, table, columns)
    return found


def computed_digest(db: Database, key: bytes) -> str:
    digest = digests.EMPTY
    for table in TABLES.values():
        for one in elements(db, key, table).values():
            digest = digests.added(digest, one)
    return digests.to_hex(digest)


def ensure_digest(db: Database, key: bytes) -> None:
    """Compute the running digest where there is none yet."""
    if read_place(db).digest == "":
        with db.write():
            if lock_place(db).digest == "":
                PositionModel.update(digest=computed_digest(db, key)).execute(db.peewee)
