"""Moving a store: every table, both directions, all or nothing."""

import pytest

from spokes.errors import SchemaTooNewError, StoreError
from spokes.model.rule_lists import ReplaceRules
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.store import Store
from spokes.store.copy import COPY_COUNT, copy_store
from spokes.store.db import Database
from spokes.store.migrations import MIGRATIONS, Migration, migrate
from spokes.store.tables import MODELS
from tests.support.operations import do
from tests.support.stores import fill, rows_of


@pytest.fixture
def filled(store_url):
    with Store.open(store_url) as store:
        keys = fill(store)
    return store_url, keys


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def target_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'target.db'}"
    else:
        server = request.getfixturevalue("postgresql")
        url = server.create_database()
        yield url
        server.drop_database(url)


def test_copy_store_target_holds_the_same_in_every_table(filled, target_url):
    source_url, keys = filled
    told = []
    counts = copy_store(source_url, target_url, lambda table, count: told.append((table, count)))
    assert list(counts) == [model._meta.table_name for model in MODELS]
    assert all(counts.values()), "a table without a row proves nothing"
    assert dict(told) == counts
    assert rows_of(target_url) == rows_of(source_url)
    with Store.open(target_url) as store:
        assert store.tunnels.find_by_key(keys["tunnel"])
        assert store.api_keys.find(keys["api_key"])
        assert store.logins.find(keys["cookie"])
        assert store.audit.verify() is None
        seq = store.changes.position()[1]
        assert do(store, CreateToken("next")).rev == seq + 1


def test_copy_store_many_rows_in_batches(store_url, target_url):
    with Store.open(store_url) as store:
        tunnel, _ = do(store, CreateTunnel(name="t", domain="tun.example.net"))
        for _ in range(3):
            do(store, ReplaceRules(tunnel.uid, [{"domain": f"s{n}.example.org"} for n in range(1000)], {}))
            do(store, ReplaceRules(tunnel.uid, [], {}))
    told = []
    counts = copy_store(store_url, target_url, lambda table, count: told.append((table, count)))
    assert counts["change"] == 6002
    assert [count for table, count in told if table == "change"] == [COPY_COUNT, 2 * COPY_COUNT, 3 * COPY_COUNT, 6002]


def test_copy_store_target_with_something_refused_and_untouched(filled, target_url):
    source_url, _ = filled
    with Store.open(target_url) as store:
        store.access_records.add([])
        store.alerts.open("disk", "/", "warning", "t")       # not configured, but somebody's
    before = rows_of(target_url)
    with pytest.raises(StoreError, match="is not empty"):
        copy_store(source_url, target_url)
    assert rows_of(target_url) == before


def test_copy_store_onto_itself_refused(filled):
    source_url, _ = filled
    before = rows_of(source_url)
    with pytest.raises(StoreError, match="is not empty"):
        copy_store(source_url, source_url)
    assert rows_of(source_url) == before


def test_copy_store_target_opened_once_but_unused_is_empty(filled, target_url):
    source_url, _ = filled
    Store.open(target_url).close()                           # made its secret, which the source's replaces
    copy_store(source_url, target_url)
    assert rows_of(target_url) == rows_of(source_url)


def test_copy_store_failing_midway_leaves_the_target_empty(filled, target_url):
    source_url, _ = filled

    def fail(table, _):
        if table == "site":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(source_url, target_url, fail)
    rows = rows_of(target_url)
    assert not [table for table in rows if rows[table] and table not in ("meta", "position", "epoch")]
    assert [row[:3] for row in rows["position"]] == [(1, 1, 0)]
    copy_store(source_url, target_url)
    assert rows_of(target_url) == rows_of(source_url)


def test_copy_store_missing_source_refused_and_not_made(tmp_path, target_url):
    with pytest.raises(StoreError, match="there is no database"):
        copy_store(str(tmp_path / "missing.db"), target_url)
    assert not (tmp_path / "missing.db").exists()


def test_copy_store_source_of_another_schema_refused(empty_url, target_url):
    with pytest.raises(StoreError, match=r"nothing to copy|there is no database"):
        Database(empty_url).close()
        copy_store(empty_url, target_url)
    database = Database(empty_url)
    migrate(database, MIGRATIONS[:1])
    with pytest.raises(StoreError, match="schema version 1"):
        copy_store(empty_url, target_url)
    migrate(database, (*MIGRATIONS, Migration(MIGRATIONS[-1].version + 1, ("CREATE TABLE extra (n INTEGER)",))))
    with pytest.raises(SchemaTooNewError):
        copy_store(empty_url, target_url)
    database.close()


@pytest.mark.postgresql
def test_copy_store_text_that_postgresql_cannot_keep_says_so(tmp_path, postgresql):
    source_url, target_url = str(tmp_path / "s.db"), postgresql.create_database()
    with Store.open(source_url) as store:
        token = do(store, CreateToken("t"))
        with store._db.write():
            store._db.query("UPDATE token SET description = {} WHERE uid = {}", ("a\x00b", token.uid))
    with pytest.raises(StoreError):
        copy_store(source_url, target_url)
    postgresql.drop_database(target_url)
