"""A node's identity, standing and settings; promotion, fencing, joining, and restore from a backup."""

import pytest

from spokes.cluster.history import common_seq
from spokes.cluster.position import Epoch, Position
from spokes.errors import ReplicaError, StaleEpochError, TokenError, ValueRefusedError
from spokes.model.api_keys import CreateApiKey
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.store import ReplicationSettings, Store
from spokes.store.backup import backup, restore
from tests.support.operations import do
from tests.support.stores import DOMAIN

OTHER = "f" * 32


def test_new_store_is_a_master_of_its_own_epoch(empty_url):
    with Store.open(empty_url) as store:
        standing = store.cluster.standing()
        assert standing.position == Position(Epoch(1, store.cluster.node_uid), 0)
        assert standing.digest == "0" * 64
        assert store.cluster.may_write()
        uid = store.cluster.node_uid
    with Store.open(empty_url) as store:
        assert store.cluster.node_uid == uid


def test_settings_read_back_and_show_no_secret(store):
    assert store.cluster.settings() == ReplicationSettings()
    settings = ReplicationSettings(admin_key="hush-1", hmac_key="hush-2", own_hostname="a.example.org", is_master=True)
    store.cluster.set_settings(settings)
    assert store.cluster.settings() == settings
    assert "hush" not in repr(settings)


def test_fenced_node_writes_nothing_until_it_may(store):
    store.cluster.set_fenced(True)
    assert not store.cluster.may_write()
    with pytest.raises(ReplicaError):
        do(store, CreateToken("t"))
    store.cluster.set_fenced(False)
    do(store, CreateToken("t"))


def test_node_that_hears_of_a_newer_epoch_writes_nothing(store):
    store.cluster.note_epoch(Epoch(1, "0" * 32))             # older than its own
    do(store, CreateToken("t"))
    store.cluster.note_epoch(Epoch(2, OTHER))
    assert store.cluster.standing().highest == Epoch(2, OTHER)
    with pytest.raises(ReplicaError):
        do(store, CreateToken("t"))


def test_promote_begins_an_epoch_behind_what_was_written(store):
    do(store, CreateToken("t"))
    store.cluster.note_epoch(Epoch(4, OTHER))
    node = store.cluster.node_uid
    for stale in (Epoch(4, node), Epoch(5, OTHER)):
        with pytest.raises(StaleEpochError):
            store.cluster.promote(stale)
    assert store.cluster.promote(Epoch(5, node)) == Position(Epoch(5, node), 1)
    assert [(one.number, one.start) for one in store.cluster.standing().history] == [(1, 0), (5, 1)]
    assert do(store, CreateToken("t")).rev == 2
    assert store.changes.after(1)[0].epoch == 5


def test_join_takes_the_key_and_hashes_anew(store):
    token = do(store, CreateToken("t"))
    tunnel, key = do(store, CreateTunnel(name="a", domain=DOMAIN))
    _, api_key = do(store, CreateApiKey("k"))
    _, cookie = store.logins.create(user_uid=OTHER)
    store.cluster.join("ab" * 32)
    assert store.cluster.cluster_key() == store.secrets.get("hash_key") == "ab" * 32
    assert store.cluster.is_digest_right()
    assert store.tunnels.find_by_key(key.value if hasattr(key, "value") else key).uid == tunnel.uid
    with store.changes.transaction() as tx:
        assert store.tokens.find_by_value(tx, token.value).uid == token.uid
    with pytest.raises(TokenError):
        store.api_keys.find(api_key)
    assert store.logins.select() == [] and cookie
    assert not store.cluster.may_write()


@pytest.mark.parametrize("key", ["", "x", "AB" * 32, "ab" * 31])
def test_join_with_what_is_no_key_refused(store, key):
    before = store.cluster.cluster_key()
    with pytest.raises(ValueRefusedError):
        store.cluster.join(key)
    assert store.cluster.cluster_key() == before
    do(store, CreateToken("t"))


def test_join_that_fails_keeps_the_key(store, monkeypatch):
    before = store.cluster.cluster_key(), store.cluster.standing()

    def fail(*_):
        raise OSError("gone")

    monkeypatch.setattr("spokes.store.cluster_state.computed_digest", fail)
    with pytest.raises(OSError, match="gone"):
        store.cluster.join("ab" * 32)
    monkeypatch.undo()
    assert (store.cluster.cluster_key(), store.cluster.standing()) == before


def test_restore_opens_an_epoch_of_the_node_that_was_there(store, store_url, tmp_path):
    """Whoever followed the old log finds where the two part."""
    do(store, CreateToken("kept"))
    backup(store_url, tmp_path / "backup")
    cursor = store.changes.cursor()
    for _ in range(3):
        do(store, CreateToken("lost"))
    before = store.cluster.standing()
    store.cluster.note_epoch(Epoch(6, OTHER))
    restore(tmp_path / "backup", store_url, force=True)
    after = store.cluster.standing()
    assert after.node == before.node
    assert after.position == Position(Epoch(7, before.node), 1)
    assert common_seq(before.history, after.history) == 1
    assert not store.changes.continues(cursor)
    do(store, CreateToken("goes on"))
    assert store.cluster.is_digest_right()


def test_restore_elsewhere_gives_no_second_node_of_one_identity(store, store_url, tmp_path):
    do(store, CreateToken("t"))
    backup(store_url, tmp_path / "backup")
    other_url = str(tmp_path / "other.db")
    restore(tmp_path / "backup", other_url)
    with Store.open(other_url) as other:
        assert other.cluster.node_uid != store.cluster.node_uid
        assert other.cluster.may_write()
        assert other.cluster.is_digest_right()
        assert other.tokens.select() == store.tokens.select()
