"""Moving a whole store from one database to another, on either engine.

Bound: read in one snapshot, written in one transaction, COPY_COUNT rows in memory at a time; a failure leaves the
target as it was.
Fails: StoreError when the source is of another schema or the target holds something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import peewee

from spokes.errors import SchemaTooNewError, StoreError
from spokes.store.db import Database
from spokes.store.migrations import MIGRATIONS, migrate, schema_version
from spokes.store.models import EpochModel, MetaModel, PositionModel
from spokes.store.tables import MODELS

COPY_COUNT = 2_000

Progress = Callable[[str, int], None]    # table, rows of it that are done


def copy_store(source_url: str, target_url: str, progress: Progress | None = None) -> dict[str, int]:
    """Copy every table; {table: rows}. The target must hold nothing yet; it is brought to the present schema first."""
    source = Database(source_url, create=False)
    try:
        check_schema(source)
        target = Database(target_url)
        try:
            migrate(target)
            with target.write():
                check_empty(target)
                return copy_tables(source, target, progress)
        finally:
            target.close()
    finally:
        source.close()


def check_schema(db: Database) -> None:
    """The database has the schema this program writes."""
    found, newest = db.alone(lambda: schema_version(db)), MIGRATIONS[-1].version
    if found > newest:
        raise SchemaTooNewError(
            f"{db.where} has schema version {found}; this program knows up to {newest}",
            hint="use the version of Spokes that wrote it, or a later one",
        )
    if found == 0:
        raise StoreError(f"{db.where} is empty: there is nothing to copy", hint="check the store's address")
    if found < newest:
        raise StoreError(
            f"{db.where} has schema version {found}; this program writes {newest}", hint="start the server once with it"
        )


def is_empty(db: Database) -> bool:
    """Nothing was ever configured, and nothing happened; inside write(). Secrets that an opened store made do not
    count."""
    if db.query("SELECT seq FROM position")[0][0] != 0:
        return False
    names = (model._meta.table_name for model in MODELS if model not in (MetaModel, PositionModel, EpochModel))
    return not any(db.query(f'SELECT 1 FROM "{name}" LIMIT 1') for name in names)  # noqa: S608  names of ours


def check_empty(db: Database, hint: str = "name a new database") -> None:
    if not is_empty(db):
        raise StoreError(f"{db.where} is not empty", hint=hint)


def copy_tables(source: Database, target: Database, progress: Progress | None) -> dict[str, int]:
    """Replace the rows of every table; inside target.write()."""
    for model in reversed(MODELS):
        model.delete().execute(target.peewee)
    counts = {}
    with source.snapshot() as connection:
        for model in MODELS:
            counts[model._meta.table_name] = _copy_table(model, source, connection, target, progress)
    return counts


def _copy_table(
    model: type[peewee.Model], source: Database, connection: Any, target: Database, progress: Progress | None
) -> int:
    table = model._meta.table_name
    columns = tuple(model._meta.columns)
    switches = [place for place, name in enumerate(columns) if isinstance(model._meta.columns[name],
                                                                         peewee.BooleanField)]
    count = 0
    for batch in read_rows(source, connection, table, columns):
        if switches and source.is_sqlite:                    # knows no truth, only 0 and 1
            batch = [_with_truth(row, switches) for row in batch]
        write_rows(target, table, columns, batch)
        count += len(batch)
        if progress is not None:
            progress(table, count)
    return count


def _with_truth(row: tuple[Any, ...], switches: list[int]) -> tuple[Any, ...]:
    values = list(row)
    for place in switches:
        values[place] = bool(values[place])
    return tuple(values)


def read_rows(
    db: Database, connection: Any, table: str, columns: tuple[str, ...]
) -> Iterator[list[tuple[Any, ...]]]:
    """All of a table, COPY_COUNT at a time; `connection` is what db.snapshot() gave."""
    names = ", ".join(f'"{name}"' for name in columns)
    # A named cursor stays at the server; without a name PostgreSQL would send everything at once.
    cursor = connection.cursor() if db.is_sqlite else connection.cursor(name="copy")
    try:
        with db.translated():
            cursor.execute(f'SELECT {names} FROM "{table}"')  # noqa: S608  names of ours
            batch = cursor.fetchmany(COPY_COUNT)
        while batch:
            yield batch
            with db.translated():
                batch = cursor.fetchmany(COPY_COUNT)
    finally:
        cursor.close()


def write_rows(db: Database, table: str, columns: tuple[str, ...], batch: Sequence[Sequence[Any]]) -> None:
    """Inside db.write(); values as the driver takes them."""
    connection = db.peewee.connection()  # type: ignore[no-untyped-call]
    names = ", ".join(f'"{name}"' for name in columns)
    if db.is_sqlite:
        placeholders = ", ".join("?" * len(columns))
        with db.translated():
            connection.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({placeholders})', batch)  # noqa: S608  as above
        return
    copy = f'COPY "{table}" ({names}) FROM STDIN'
    with db.translated(), connection.cursor() as cursor, cursor.copy(copy) as rows:
        for row in batch:
            rows.write_row(row)
