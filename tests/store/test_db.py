"""Addresses, files and what is said when they are no good."""

import functools
import logging
import os
import sqlite3
import stat
import threading

import psycopg
import pytest

from spokes.errors import SpokesError, StoreError
from spokes.ids import new_uid
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import RegisterTunnel
from spokes.store import CHECKPOINT_PAGES, Store, connections
from tests.support.operations import do
from tests.support.threads import join_thread


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_open_sqlite_by_path_or_address(tmp_path, form):
    path = tmp_path / "a b.db"
    with Store.open(form.format(path)) as store:
        do(store, CreateToken("t"))
        assert store.where == str(path)
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT COUNT(*) FROM token").fetchone() == (1,)


def test_open_sqlite_relative_path_is_pinned_to_the_directory_of_that_moment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Store.open("s.db") as store:
        monkeypatch.chdir("/")
        thread = threading.Thread(target=do, args=(store, CreateToken("made by another connection")), daemon=True)
        thread.start()
        join_thread(thread)
        assert len(store.tokens.select()) == 1


def test_sqlite_is_set_up_as_promised(tmp_path):
    with Store.open(str(tmp_path / "s.db")) as store:
        connection = store._db.peewee.connection()
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 10_000}


def test_sqlite_files_are_the_owner_s_only(tmp_path):
    umask = os.umask(0)
    try:
        with Store.open(str(tmp_path / "s.db")) as store:
            do(store, CreateToken("t"))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}


@pytest.mark.parametrize(("address", "words"), [
    ("{dir}/missing/s.db", "No such file or directory"),
    ("{dir}", "Is a directory"),
    ("{dir}/text", "not a Spokes database or is damaged"),
    ("mysql://root@localhost/spokes", "unknown kind: mysql://"),
    ("sqlite://host/s.db", "holds no host"),
    ("sqlite:///missing/s.db", "No such file or directory"),
    ("", "needs a file"),
    (":memory:", "needs a file"),
    ("postgresql://nobody:hunter2@127.0.0.1:1/spokes", "cannot be reached"),
    ("postgresql://nobody:hunter2@[::1/spokes", "not understood"),
    ("postgresql://localhost:port/spokes", "cannot be resolved"),
])
def test_open_bad_address_is_a_store_error_in_words(tmp_path, monkeypatch, address, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("This is no database. " * 100)
    with pytest.raises(StoreError) as failure:
        Store.open(address.format(dir=tmp_path))
    assert words in str(failure.value)
    assert failure.value.hint
    assert "hunter2" not in failure.value.line()
    assert (tmp_path / "text").read_text().startswith("This is no database.")


@pytest.mark.postgresql
@pytest.mark.parametrize(("statement", "address", "words"), [
    ("SELECT 1", "{missing}", "no such database"),
    ("SELECT 1", "{url}&options=-c%20default_transaction_read_only%3Don", "read-only"),
    ("CREATE ROLE {role} LOGIN", "{as_role}", "lacks a right"),
    ("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0", "{as_role}", "no connection left"),
])
def test_open_postgresql_that_refuses_is_said(postgresql, statement, address, words):
    url = postgresql.create_database()
    role = f"role_{new_uid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.format(role=role))
    forms = {
        "url": url, "missing": postgresql.url("nowhere"),
        "as_role": url.replace(f"//{postgresql.user}@", f"//{role}@"),
    }
    with pytest.raises(StoreError, match=words):
        Store.open(address.format(**forms))


def test_open_directory_not_writable_is_said(tmp_path):
    tmp_path.chmod(0o500)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:                                           # root may write anywhere: try as somebody else
        line = "opened"
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            Store.open(str(tmp_path / "s.db"))
        except SpokesError as error:
            line = error.line()
        except BaseException as error:
            line = repr(error)
        finally:
            os.write(writing, line.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        line = file.read()
    assert "Permission denied" in line
    assert "[SPK-STORE]" in line


def test_open_truncated_database_is_a_store_error(tmp_path):
    path = tmp_path / "s.db"
    with Store.open(str(path)) as store:
        do(store, CreateToken("t"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="damaged"), Store.open(str(path)) as store:
        store.tokens.select()
        do(store, CreateToken("t"))


def test_write_while_another_program_holds_the_lock_waits_then_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "s.db"
    with Store.open(str(path)) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another program holds the database locked") as failure:
            do(store, CreateToken("t"))
        assert failure.value.retryable
        assert store.tokens.select() == []                     # readers do not wait for writers
        other.execute("ROLLBACK")
        other.close()
        assert do(store, CreateToken("t")).rev == 1


def test_closed_store_says_so(store):
    store.close()
    make = functools.partial(do, store, CreateToken("t"))
    for call in (store.tokens.select, make, store.changes.position, store.presence.reset):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_store_logging_everything_logs_no_secret(store, caplog):
    with caplog.at_level(logging.DEBUG):
        token = do(store, CreateToken("t"))
        _, key = do(store, RegisterTunnel(token=token.value, name="a", domain="tun.example.net"))
        store.tunnels.find_by_key(key)
    assert token.value not in caplog.text
    assert key not in caplog.text


def test_leave_checkpoints_lets_the_log_grow_for_those_who_do_not(tmp_path):
    path = tmp_path / "s.db"

    def pages_logged() -> int:
        return path.with_name("s.db-wal").stat().st_size // 4096

    def write(store) -> None:
        for _ in range(60):
            store.result_snapshots.take([new_uid() for _ in range(3_000)])     # some 25 pages each

    waited_for, other = Store.open(str(path)), Store.open(str(path))
    waited_for.leave_checkpoints()
    write(waited_for)
    grown = pages_logged()
    assert 1_200 < grown < CHECKPOINT_PAGES
    write(other)
    assert pages_logged() <= grown + 100             # it was moved, and begun anew
    for store in (waited_for, other):
        store.close()


def test_sqlite_on_a_file_system_that_hosts_share_has_no_wal(tmp_path, monkeypatch):
    with Store.open(str(tmp_path / "s.db")) as store:       # local until now
        do(store, CreateToken("before"))
    monkeypatch.setattr(connections, "shared_file_system", lambda path: "NFS")
    with Store.open(str(tmp_path / "s.db")) as store:
        do(store, CreateToken("after"))
        pragmas = [store._db.query(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")]
        assert pragmas == ["delete", 2]
        assert {path.name for path in tmp_path.iterdir()} == {"s.db"}
        assert {token.description for token in store.tokens.select()} == {"before", "after"}
