"""Statements and transactions of one database, SQLite or PostgreSQL.

Owns: one connection per thread that calls, and the rule that writers take turns: on SQLite by a lock of this process
and `BEGIN IMMEDIATE`, on PostgreSQL by the lock on the `position` row that every writing transaction takes first.
Fails: StoreError (its words: error_mapping.py), and nothing of peewee's or a driver's leaves this room.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import peewee
import psycopg

from spokes.errors import StoreError
from spokes.store.connections import ANSWER_WITHIN_S, PostgresqlConnection, Sqlite, find_database
from spokes.store.error_mapping import explained
from spokes.store.statement import Prepared

# peewee's debug lines hold parameters, tokens among them: a program that logs everything must not log those.
logging.getLogger("peewee").setLevel(logging.WARNING)

T = TypeVar("T")

_BAD_DATA = (
    peewee.DataError, peewee.IntegrityError, psycopg.DataError, psycopg.IntegrityError, sqlite3.DataError,
    sqlite3.IntegrityError,
)


class Query(Protocol):
    """Any query of peewee's."""

    def execute(self, database: Any) -> Any: ...


def fetch_raw(db: peewee.Database, query: Query) -> list[Any]:
    if isinstance(query, Prepared):
        return list(query.execute(db))   # tuples already
    return list(db.execute(query).fetchall())  # type: ignore[no-untyped-call]


class Database:
    """One database, on either engine, for any number of threads."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Nothing is connected yet. Without `create`, a SQLite file that is not there is StoreError, not made."""
        self._write_lock = threading.Lock()
        self._closed = False
        self.peewee, self.where = find_database(url, create=create)
        self.is_sqlite = isinstance(self.peewee, Sqlite)

    # --- statements and transactions -----------------------------------------------------------------------------

    def read(self, query: Query) -> list[Any]:
        """All rows of one SELECT, which is its own transaction.

        Always read to the end: an unfinished cursor would hold its snapshot open, and the next write on this
        connection would find it stale.
        """
        return self.alone(lambda: list(query.execute(self.peewee)))

    def rows(self, query: Query) -> list[Any]:
        """As read(), but tuples as the driver gives them: for long lists, where peewee's conversions cost most."""
        return self.alone(lambda: fetch_raw(self.peewee, query))

    def alone(self, run: Callable[[], T]) -> T:
        """Run one statement that is its own transaction and may be run twice: again if the connection was broken."""
        with self.translated():
            try:
                return run()
            except (peewee.OperationalError, peewee.InterfaceError):
                if not self._is_broken():
                    raise
                self._forget_connection()
                return run()

    def run(self, query: Query) -> Any:
        """What one INSERT, UPDATE or DELETE answers (for most: how many rows), which is its own transaction."""
        return self.alone(lambda: query.execute(self.peewee))

    @contextmanager
    def write(self) -> Iterator[peewee.Database]:
        """A writing transaction: no other writer, in this process or another, is inside at the same time."""
        with self.translated(), self._turn():
            self._begin()
            try:
                yield self.peewee
                self.peewee.commit()
            except BaseException:
                self._rollback()
                raise

    @contextmanager
    def snapshot(self) -> Iterator[Any]:
        """A reading transaction that sees one moment of everything, whoever writes beside it; the driver's
        connection."""
        begin = "BEGIN" if self.is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
        with self.translated():
            self.alone(lambda: self.query(begin))
            try:
                with self._taking_long():
                    yield self.peewee.connection()  # type: ignore[no-untyped-call]
            finally:
                self._rollback()

    @contextmanager
    def exclusive(self, lock_id: int) -> Iterator[None]:
        """A writing transaction before there is a `position` row to lock: for migrations."""
        with self.write(), self._taking_long():
            if not self.is_sqlite:
                self.query("SELECT pg_advisory_xact_lock({})", (lock_id,))
            yield

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run SQL in which every `{}` is a parameter, inside write() or alone(); all its rows."""
        placeholder = "?" if self.is_sqlite else "%s"
        text = sql.format(*[placeholder] * len(params)) if params else sql
        cursor = self.peewee.execute_sql(text, params or None)
        return list(cursor.fetchall()) if cursor.description else []

    def checkpoint_at(self, page_count: int) -> None:
        """How long SQLite's log grows before a commit of this process moves it into the database."""
        if isinstance(self.peewee, Sqlite):
            self.peewee.pragma("wal_autocheckpoint", page_count, permanent=True)

    def tables(self) -> list[str]:
        return list(self.peewee.get_tables())

    def close(self) -> None:
        """Close every thread's connection. Calls that are under way in other threads fail with StoreError."""
        self._closed = True
        self.peewee.connections.close_all()

    # --- below -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _taking_long(self) -> Iterator[None]:
        """Inside, a statement may take any time, as one over a whole table does."""
        connection = self.peewee.connection()  # type: ignore[no-untyped-call]
        if not isinstance(connection, PostgresqlConnection):
            yield
            return
        connection.answer_within_s = None
        try:
            yield
        finally:
            connection.answer_within_s = ANSWER_WITHIN_S

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # SQLite's own busy handler sleeps and is not fair; threads of one process queue here instead.
        if self.is_sqlite:
            with self._write_lock:
                yield
        else:
            yield

    def _begin(self) -> None:
        try:
            self.peewee.begin()
        except (peewee.OperationalError, peewee.InterfaceError):
            if not self._is_broken():
                raise
            self._forget_connection()    # PostgreSQL was restarted: nothing was done yet, so once more is safe
            self.peewee.begin()

    def _rollback(self) -> None:
        try:
            if self.is_sqlite and not self.peewee.connection().in_transaction:  # type: ignore[no-untyped-call]
                return                   # on a full disk and the like SQLite undoes the transaction by itself
            self.peewee.rollback()
        except (peewee.DatabaseError, peewee.InterfaceError):
            self._forget_connection()    # the connection is gone, and with it the transaction

    def _is_broken(self) -> bool:
        """Whether this thread's connection was cut by the server; SQLite has none that could be."""
        if self.is_sqlite or self.peewee.is_closed():
            return False
        return bool(self.peewee.connection().closed)  # type: ignore[no-untyped-call]

    def _forget_connection(self) -> None:
        try:
            self.peewee.close()
        except (peewee.DatabaseError, peewee.InterfaceError):
            return

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What peewee or a driver raises inside leaves as StoreError."""
        if self._closed:
            raise StoreError("the store is closed")
        try:
            yield
        except (peewee.DatabaseError, peewee.InterfaceError, sqlite3.Error, psycopg.Error) as error:
            if self._is_broken():
                self._forget_connection()
            fault = explained(error, self.where)
            if isinstance(error, _BAD_DATA):
                fault.retryable = False  # these rows will never be taken, however often they are written
            raise fault from error
