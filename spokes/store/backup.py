"""Backups: one SQLite file, whatever the engine, taken while the server runs; and the way back.

Fails: StoreError; a backup that is not finished never has the name that was asked for, a restore is done wholly or not
at all.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from spokes import clock
from spokes.cluster.history import EpochStart, continued
from spokes.errors import StoreError
from spokes.store.connections import FILE_MODE
from spokes.store.copy import Progress, check_empty, check_schema, copy_store, copy_tables
from spokes.store.db import Database
from spokes.store.migrations import migrate, schema_version
from spokes.store.models import MetaModel, PositionModel
from spokes.store.models_admin import (
    DeliveryModel,
    FrozenListModel,
    LoginFailureModel,
    LoginModel,
    OperationResultModel,
)
from spokes.store.place import NODE_KEY, Place, read_history, read_node_uid, read_place, write_history
from spokes.store.rows_admin import DeliveryState

RESTORED = "restored from a backup"


def backup(url: str, path: Path, progress: Progress | None = None) -> int:
    """Write everything as it is at one moment to the file `path`, which only its owner may read; its size in bytes.

    A file that is there is replaced when the backup is whole.
    """
    try:
        # Beside the target, so that the last step is a rename.
        with tempfile.TemporaryDirectory(prefix=".spokes-backup-", dir=path.absolute().parent) as directory:
            made = Path(directory) / "spokes.db"
            if url.startswith(("postgresql://", "postgres://")):
                copy_store(url, str(made), progress)
            else:
                _copy_file(url, made)
            _settle(made)
            size = made.stat().st_size
            made.replace(path)
        _sync(path.absolute().parent)
        return size
    except (OSError, sqlite3.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise StoreError(f"cannot write the backup {path}: {reason}", hint="check directory and free space") from error


def restore(path: Path, url: str, force: bool = False, progress: Progress | None = None) -> dict[str, int]:
    """Put a backup in the place of what the database holds; {table: rows}. No server may run on it.

    A database that is not empty needs `force`. The epoch grows, so whoever followed the old log sees that this is
    another one. Cookie sessions do not come back, and what waited to be delivered then is not delivered now.
    """
    with _work_directory() as directory:
        copied = Path(directory) / "spokes.db"
        _copy_backup(path, copied)
        source = Database(str(copied))
        try:
            if schema_version(source) == 0:
                raise StoreError(f"{path} is no backup of Spokes")
            migrate(source)
            check_schema(source)
            target = Database(url)
            try:
                migrate(target)
                with target.write() as db:
                    if not force:
                        check_empty(target, hint="replace what it holds with --force")
                    node_uid, before = read_node_uid(target), read_place(target)
                    counts = copy_tables(source, target, progress)
                    _open_epoch(target, node_uid, before)
                    for model in (LoginModel, LoginFailureModel, FrozenListModel, OperationResultModel):
                        model.delete().execute(db)
                        counts[model._meta.table_name] = 0
                    DeliveryModel.update(
                        state=DeliveryState.FAILED.value, error=RESTORED, finished=DeliveryModel.created
                    ).where(DeliveryModel.state == DeliveryState.PENDING.value).execute(db)
                    return counts
            finally:
                target.close()
        finally:
            source.close()


def _work_directory() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="spokes-restore-")
    except OSError as error:
        raise StoreError(f"no temporary directory can be made: {error}", hint="name another one as TMPDIR") from error


def _open_epoch(db: Database, node_uid: str, before: Place) -> None:
    """The node stays who it was, and what was restored is the beginning of an epoch that nobody has seen: other nodes
    find that their rows are not of it, set aside what it lacks and load it."""
    place = read_place(db)
    number = 1 + max(before.epoch, before.highest_epoch, place.epoch, place.highest_epoch)
    MetaModel.update(value=node_uid).where(MetaModel.key == NODE_KEY).execute(db.peewee)
    write_history(
        db.peewee, continued(read_history(db), EpochStart(number, node_uid, place.seq)), clock.wall_s()
    )
    PositionModel.update(
        epoch=number, owner=node_uid, highest_epoch=number, highest_owner=node_uid, fenced=False,
        generation=max(before.generation, place.generation) + 1,
    ).execute(db.peewee)


def _copy_file(url: str, made: Path) -> None:
    """SQLite's own online copy, in one step: writers go on beside it."""
    source = Database(url, create=False)
    try:
        check_schema(source)
        with source.snapshot() as connection, closing(sqlite3.connect(made)) as copy:
            connection.backup(copy)
    finally:
        source.close()


def _copy_backup(path: Path, copied: Path) -> None:
    """A copy of one's own, which may be migrated. The backup itself is only read."""
    if not path.is_file():
        raise StoreError(f"there is no backup {path}")
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as backup_file,
            closing(sqlite3.connect(copied)) as copy,
        ):
            backup_file.backup(copy)
            ((verdict,), *_) = copy.execute("PRAGMA quick_check")
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} is no backup or is damaged: {error}", hint="take another one") from error
    if verdict != "ok":
        raise StoreError(f"{path} is damaged: {verdict}", hint="take another one")


def _settle(made: Path) -> None:
    """One file, without a journal beside it, on the disk."""
    with closing(sqlite3.connect(made)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")
    made.chmod(FILE_MODE)
    _sync(made)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
