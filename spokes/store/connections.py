"""What an address of a store leads to: SQLite's file or a PostgreSQL server, and connections to either.

Owns: the file's mode, and every connection that is open. Bound: no connection waits for an answer without end.
Fails: StoreError for an address that is not understood or leads nowhere.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import urllib.parse
import weakref
from pathlib import Path
from typing import Any

import peewee
import psycopg

from spokes.errors import DatabaseMissingError, StoreError
from spokes.file_systems import shared_file_system

ANSWER_WITHIN_S = 20.0                   # of PostgreSQL to one statement; longer than it waits for a lock
BUSY_TIMEOUT_S = 10                      # another process (the admin API) may be writing
FILE_MODE = 0o600                        # the database holds every token in full

# For what an address leaves open. A server that vanished without a word is given up after about 25 s, not after hours.
_POSTGRESQL = {
    "application_name": "spokes",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,          # milliseconds
}


class Connections:
    """Every connection that is open, so that close() reaches those of other threads too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, connection: Any) -> None:
        with self._lock:
            self._open.add(connection)

    def close_all(self) -> None:
        with self._lock:
            connections = list(self._open)
            self._open.clear()
        for connection in connections:
            connection.close()


class _SqliteConnection(sqlite3.Connection):
    """A connection that weak references can point to; the built-in class has no room for them."""


class _Counting(peewee.Database):
    """Counts what it sends, so that an operator can see what the store is asked to do."""

    statement_count = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections = Connections()

    def execute_sql(self, sql: Any, params: Any = None) -> Any:
        self.statement_count += 1       # two threads may lose one to each other; it is a figure, no account
        return super().execute_sql(sql, params)  # type: ignore[no-untyped-call]


class Sqlite(_Counting, peewee.SqliteDatabase):
    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        self.connections.add(connection)
        return connection


class PostgresqlConnection(psycopg.Connection[Any]):
    """Gives up a server that takes a question and never answers, stopped or before a disk that hangs: its kernel still
    acknowledges what TCP sends."""

    answer_within_s: float | None = ANSWER_WITHIN_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.answer_within_s if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()         # whatever it would say later is no answer to what is asked next
            raise psycopg.OperationalError("no answer in time") from error


class _Adapter(peewee.Psycopg3Adapter):
    def connect(self, db: Any, **params: Any) -> PostgresqlConnection:
        return PostgresqlConnection.connect(db.database, **params)


class Postgresql(_Counting, peewee.PostgresqlDatabase):
    psycopg3_adapter = _Adapter

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]
        # Bounded waits: a lock held by a hung process must not hang the server's store thread for good.
        connection.execute("SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'")
        self.connections.add(connection)
        return connection


def find_database(url: str, *, create: bool) -> tuple[Sqlite | Postgresql, str]:
    """What the address leads to, not connected yet, and its name for people. Without `create`, a SQLite file that is
    not there is StoreError, not made."""
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql://" + url.partition("://")[2]
        parts = _postgresql_parts(url)
        name, host = parts.get("dbname", "(default)"), parts.get("host", "local socket")
        options: dict[str, Any] = {key: value for key, value in _POSTGRESQL.items() if key not in parts}
        return Postgresql(url, prefer_psycopg3=True, **options), f"PostgreSQL database {name} at {host}"
    if "://" in url and not url.startswith("sqlite://"):
        raise StoreError(
            f"store address of an unknown kind: {url.partition('://')[0]}://",
            hint="use sqlite:////path/to/file or postgresql://user@host/database",
        )
    path = _sqlite_path(url)
    if create:
        _create_private(path)
    elif not _holds_something(path):
        raise DatabaseMissingError(
            f"there is no database {path}", hint="check the store's address, or name the data directory with --data"
        )
    found = Sqlite(
        str(path),
        pragmas=(*_journal(path), ("foreign_keys", 1)),
        timeout=BUSY_TIMEOUT_S,
        lock_type="IMMEDIATE",
        factory=_SqliteConnection,
        check_same_thread=False,  # each thread has its own; close() alone touches those of others
    )
    return found, str(path)


def _journal(path: Path) -> tuple[tuple[str, str], ...]:
    """WAL keeps its index in memory that processes of one host share, so it is for local file systems alone. A rollback
    journal needs full syncs to survive a loss of power."""
    if shared_file_system(path):
        return ("journal_mode", "delete"), ("synchronous", "full")
    return ("journal_mode", "wal"), ("synchronous", "normal")


def _holds_something(path: Path) -> bool:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreError(
            f"cannot read the database {path}: {error.strerror}", hint="run it as root or as the server's user"
        ) from None
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _sqlite_path(url: str) -> Path:
    text = url
    if url.startswith("sqlite://"):
        text = urllib.parse.unquote(url.removeprefix("sqlite://"))
        if not text.startswith("/"):
            raise StoreError("a SQLite address holds no host", hint="use sqlite:////path/to/file")
        text = text[1:]                  # sqlite:////abs is /abs, sqlite:///rel is rel
    if not text or text == ":memory:":
        raise StoreError("the store needs a file", hint="use sqlite:////path/to/file")
    return Path(text).absolute()


def check_place(url: str) -> None:
    """Raise where the folder of a SQLite database that is not there yet does not let it be made. The data directory
    may be missing too: a start makes it."""
    path = _sqlite_path(url)
    standing = next(folder for folder in path.parents if folder.exists())
    if not os.access(standing, os.W_OK | os.X_OK):
        raise StoreError(
            f"cannot write the database {path}: {standing} is closed to this user", hint="change its owner"
        )


def _create_private(path: Path) -> None:
    """Make an empty file that only its owner reads, before SQLite makes one by the umask; its journals follow it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise StoreError(
            f"cannot write the database {path}: {reason}",
            hint=f"check that {path.parent} exists and may be written by this user",
        ) from error


def _postgresql_parts(url: str) -> dict[str, Any]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(url))
    except psycopg.Error:                # its text may quote the password
        raise StoreError(
            "the store's PostgreSQL address is not understood", hint="use postgresql://user:password@host:port/database"
        ) from None
