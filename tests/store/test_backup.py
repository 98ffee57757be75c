"""Backups, and the way back."""

import os
import sqlite3
import stat
import threading

import pytest

from spokes.errors import StoreError
from spokes.model.tokens import CreateToken
from spokes.model.users import DeleteUser
from spokes.store import DeliveryState, Store
from spokes.store.backup import RESTORED, backup, restore
from spokes.store.db import Database
from spokes.store.migrations import MIGRATIONS, migrate
from tests.support.operations import do
from tests.support.stores import due_deliveries, fill, rows_of
from tests.support.threads import join_thread

NOT_RESTORED = ("login", "login_failure", "frozen_list", "operation_result")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "backups" / "spokes.backup"


@pytest.fixture(autouse=True)
def directory(path):
    path.parent.mkdir()


@pytest.fixture
def keys(store):
    return fill(store)


def test_backup_is_one_private_file_with_everything(store, store_url, keys, path):
    size = backup(store_url, path)
    assert size == path.stat().st_size > 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]            # no journal, nothing left over
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert rows_of(str(path)) == rows_of(store_url)


def test_backup_beside_a_writer_is_of_one_moment(store, store_url, path):
    done = threading.Event()
    failures = []

    def write():
        try:
            while not done.is_set():
                do(store, CreateToken("t"))
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        for _ in range(5):
            backup(store_url, path)
            rows = rows_of(str(path))
            assert len(rows["token"]) == len(rows["change"]) == rows["position"][0][2]
    finally:
        done.set()
        join_thread(writer)
    assert failures == []


def test_backup_that_fails_keeps_the_last_one(store, store_url, path, monkeypatch):
    path.write_bytes(b"the last one")

    def fail(_):
        raise OSError("No space left on device")

    monkeypatch.setattr("spokes.store.backup._sync", fail)
    with pytest.raises(StoreError, match="No space left"):
        backup(store_url, path)
    assert path.read_bytes() == b"the last one"
    assert list(path.parent.iterdir()) == [path]


def test_backup_to_nowhere_or_of_nothing_has_words(store_url, store, path, tmp_path):
    with pytest.raises(StoreError, match=r"cannot write the backup .*: No such file or directory$"):
        backup(store_url, tmp_path / "missing" / "x")
    with pytest.raises(StoreError, match="there is no database"):
        backup(str(tmp_path / "missing.db"), path)
    assert not path.exists()


def test_database_that_this_user_may_not_read_is_not_taken_for_missing(store_url, path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    with pytest.raises(StoreError, match=r"cannot read the database .*: Permission denied") as caught:
        Database("/var/lib/spokes/spokes.db", create=False)
    assert "root" in caught.value.hint


def test_restore_brings_all_back_in_a_new_epoch(store, store_url, keys, path):
    backup(store_url, path)
    saved = rows_of(str(path))
    do(store, DeleteUser(store.users.select()[0].uid))
    do(store, CreateToken("later"))
    assert restore(path, store_url, force=True)["tunnel"] == 2
    rows = rows_of(store_url)
    for table in saved.keys() - {"position", "epoch", "delivery", *NOT_RESTORED}:
        assert rows[table] == saved[table], table
    assert store.changes.position() == (2, saved["position"][0][2])
    assert store.tunnels.find_by_key(keys["tunnel"])
    assert store.audit.verify() is None
    restore(path, store_url, force=True)
    assert store.changes.position()[0] == 3                          # beyond every epoch that ever was here


def test_restore_cookies_stay_ended_and_old_deliveries_unsent(store, store_url, keys, path):
    assert store.logins.find(keys["cookie"])
    backup(store_url, path)
    restore(path, store_url, force=True)
    assert store.logins.find(keys["cookie"]) is None
    assert due_deliveries(store, 4e9) == []
    webhook, = store.webhooks.select()
    assert [(delivery.state, delivery.error) for delivery in store.deliveries.select(webhook.uid)] == [
        (DeliveryState.FAILED, RESTORED), (DeliveryState.DELIVERED, ""),
    ]


def test_restore_over_something_needs_force(store, store_url, keys, path):
    backup(store_url, path)
    before = rows_of(store_url)
    with pytest.raises(StoreError, match="is not empty"):
        restore(path, store_url)
    assert rows_of(store_url) == before


def test_restore_into_a_new_database_needs_no_force(store_url, keys, path, tmp_path):
    backup(store_url, path)
    restore(path, str(tmp_path / "new.db"))
    with Store.open(str(tmp_path / "new.db")) as restored:
        assert restored.tunnels.find_by_key(keys["tunnel"])
        assert restored.changes.position()[0] == 2


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\x00" + b"\x00" * 4096])
def test_restore_of_what_is_no_backup_refused_and_untouched(store, store_url, keys, path, content):
    path.write_bytes(content)
    before = rows_of(store_url)
    with pytest.raises(StoreError):
        restore(path, store_url, force=True)
    assert rows_of(store_url) == before
    assert path.read_bytes() == content


def test_restore_of_a_damaged_backup_refused_and_untouched(store, store_url, keys, path):
    backup(store_url, path)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    before = rows_of(store_url)
    with pytest.raises(StoreError):
        restore(path, store_url, force=True)
    assert rows_of(store_url) == before


def test_restore_of_an_older_schema_brings_it_up_and_leaves_the_backup(store, store_url, path):
    database = Database(str(path))
    migrate(database, MIGRATIONS[:1])
    with database.write():
        database.query("UPDATE position SET seq = 7")
    database.close()
    before = path.read_bytes()
    restore(path, store_url, force=True)
    assert store.changes.position() == (2, 7)
    assert store.users.select() == []
    assert path.read_bytes() == before


def test_restore_of_a_missing_file_has_words(store_url, path):
    with pytest.raises(StoreError, match="there is no backup"):
        restore(path, store_url)
