"""Backup, restore and copy as an operator types them, on both databases."""

import stat

import pytest

from spokes.model.users import DeleteUser
from spokes.server.base.datadir import DataLock
from spokes.store import Store
from tests.support.operations import do
from tests.support.stores import fill, rows_of


@pytest.fixture
def filled(store_url):
    with Store.open(store_url) as store:
        secrets = fill(store)
    return store_url, secrets


def test_backup_and_restore_bring_everything_back(spokes, filled, tmp_path):
    url, secrets = filled
    file = tmp_path / "b.db"
    made = spokes.json("backup", file, "--store", url)
    assert made == {"file": str(file), "bytes": file.stat().st_size}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with Store.open(url) as store:
        before = [user.uid for user in store.users.select()]
        for uid in before:
            do(store, DeleteUser(uid))
    assert "--force" in spokes("restore", file, "--store", url, code=1).err
    counts = spokes.json("restore", file, "--force", "--store", url)["tables"]
    assert counts["user"] == len(before)
    with Store.open(url) as store:
        assert [user.uid for user in store.users.select()] == before
        assert store.tunnels.find_by_key(secrets["tunnel"]).name == "t"
        assert store.audit.select(limit=1)[0].action == "store.restore"
        assert store.audit.verify() is None


def test_backup_refuses_to_overwrite_without_force(spokes, tmp_path):
    spokes("user", "create")
    file = tmp_path / "b.db"
    file.write_text("precious")
    assert "--force" in spokes("backup", file, code=1).err
    assert file.read_text() == "precious"
    spokes("backup", file, "--force")
    assert file.read_bytes().startswith(b"SQLite format 3")
    assert "directory" in spokes("backup", tmp_path, "--force", code=1).err


@pytest.mark.parametrize(
    "content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)], ids=["empty", "text", "cut"]
)
def test_restore_of_what_is_no_backup_changes_nothing(spokes, tmp_path, content):
    user = spokes.json("user", "create")["id"]
    file = tmp_path / "bad.db"
    file.write_bytes(content)
    spokes("restore", file, "--force", code=1)
    spokes("user", "show", user)


def test_restore_and_copy_refuse_while_a_server_runs_there(spokes, tmp_path):
    spokes("user", "create")
    file = tmp_path / "b.db"
    spokes("backup", file)
    lock = DataLock(spokes.data)
    try:
        assert "[SPK-DATA-LOCKED]" in spokes("restore", file, "--force", code=1).err
        assert "[SPK-DATA-LOCKED]" in spokes("db", "copy", spokes.data / "spokes.db", tmp_path / "c.db", code=1).err
        spokes("backup", file, "--force")
    finally:
        lock.close()
    assert not (tmp_path / "c.db").exists()
    spokes("restore", file, "--force")


def test_db_copy_moves_everything_to_the_other_engine_and_back(spokes, filled, empty_url, tmp_path):
    url, _ = filled
    if url == empty_url:
        empty_url = str(tmp_path / "other.db")
    counts = spokes.json("db", "copy", url, empty_url)["tables"]
    assert {table: len(rows) for table, rows in rows_of(empty_url).items()} == counts
    assert rows_of(empty_url) == rows_of(url)
    assert "not empty" in spokes("db", "copy", url, empty_url, code=1).err
