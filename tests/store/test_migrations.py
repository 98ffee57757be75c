import threading

import pytest

from spokes.errors import SchemaTooNewError, StoreError
from spokes.model.tokens import CreateToken
from spokes.password_hash import fits, hash_of
from spokes.store import Store
from spokes.store.db import Database
from spokes.store.migrations import MIGRATIONS, Migration, migrate, schema_version
from spokes.store.models import canonical_json
from spokes.store.tables import MODELS
from tests.support.operations import do
from tests.support.threads import join_thread

NEXT = MIGRATIONS[-1].version + 1

# What a program of schema version 1 left behind, as statements: never edited, like the step itself.
VERSION_1_ROWS = (
    "UPDATE position SET seq = 3",
    "INSERT INTO meta (key, value) VALUES ('secret.hash_key', '" + "ab" * 32 + "')",
    "INSERT INTO tunnel VALUES ('" + "11" * 16 + "', '" + "00" * 16 + "', '" + "00" * 16 + "', 1.5, 1.5, 'till', "
    "'calm-otter-104.tun.example.net', {false}, NULL, 1)",
    "INSERT INTO site VALUES ('" + "22" * 16 + "', '" + "11" * 16 + "', 'shop.example.org', "
    "'{{\"domain\":\"shop.example.org\",\"port\":8080}}', 2.5, 2.5, 2)",
    "INSERT INTO port VALUES ('" + "33" * 16 + "', '" + "11" * 16 + "', 22001, '{{\"port\":22001}}', 3.5, 3.5, 3)",
    "INSERT INTO presence VALUES ('" + "11" * 16 + "', 2, 4.5, '198.51.100.7', '1.0', 'linux', 'arm64')",
)


@pytest.fixture
def database(empty_url):
    database = Database(empty_url)
    yield database
    database.close()


def test_migrate_empty_database_reaches_the_present_schema(database):
    assert schema_version(database) == 0
    assert migrate(database) == MIGRATIONS[-1].version
    assert schema_version(database) == MIGRATIONS[-1].version
    assert migrate(database) == MIGRATIONS[-1].version       # nothing to do, nothing done


def test_migrations_are_numbered_without_gaps():
    assert [step.version for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_migrated_schema_has_the_columns_the_models_name(database):
    migrate(database)
    for model in MODELS:
        columns = {column.name: column for column in database.peewee.get_columns(model._meta.table_name)}
        assert columns.keys() == model._meta.columns.keys(), model
        for name, field in model._meta.columns.items():
            assert columns[name].null == field.null, (model, name)
        keys = {name for name, column in columns.items() if column.primary_key}
        assert keys == {field.column_name for field in model._meta.get_primary_keys()}, model
        unique = {index.columns[0] for index in database.peewee.get_indexes(model._meta.table_name)
                  if index.unique and len(index.columns) == 1}
        assert {field.column_name for field in model._meta.sorted_fields if field.unique} <= unique, model
    assert set(database.tables()) == {model._meta.table_name for model in MODELS}


def test_open_version_1_database_keeps_its_rows(database, empty_url):
    migrate(database, MIGRATIONS[:1])
    with database.write():
        for statement in VERSION_1_ROWS:
            database.query(statement.format(false="0" if database.is_sqlite else "FALSE"))
    with Store.open(empty_url) as store:
        (tunnel,) = store.tunnels.select()
        assert (tunnel.name, tunnel.hostname, tunnel.state) == ("till", "calm-otter-104.tun.example.net", 2)
        assert (tunnel.created, tunnel.last_active, tunnel.address) == (1.5, 4.5, "198.51.100.7")
        assert [site.rule for site in store.sites.select(tunnel.uid)] == [{"domain": "shop.example.org", "port": 8080}]
        assert [port.port for port in store.ports.select(tunnel.uid)] == [22001]
        assert store.secrets.get("hash_key") == "ab" * 32
        assert store.changes.position() == (1, 3)
        assert do(store, CreateToken("next")).rev == 4


def test_migrated_rules_know_their_newest_change(database, empty_url):
    """Whatever the tunnel has: sites, ports, or both."""
    migrate(database, MIGRATIONS[:3])
    false = "0" if database.is_sqlite else "FALSE"
    tunnels = {"both": "11" * 16, "ports": "12" * 16, "sites": "13" * 16, "neither": "14" * 16}
    with database.write():
        for name, uid in tunnels.items():
            database.query(
                f"INSERT INTO tunnel VALUES ('{uid}', '{'00' * 16}', '{'00' * 16}', 1, 1, '', '{name}.example', "
                f"{false}, NULL, 1)"
            )
        for number, (table, name, rev) in enumerate((("site", "both", 2), ("port", "both", 7), ("port", "ports", 5),
                                                     ("site", "sites", 4))):  # fmt: skip
            key = f"'{name}.example.org'" if table == "site" else str(22000 + number)
            database.query(
                f"INSERT INTO {table} VALUES ('{number:032x}', '{tunnels[name]}', {key}, '{{}}', 1, 1, {rev})"
            )
    with Store.open(empty_url) as store:
        revisions = {name: store.rules.read(uid).rev for name, uid in tunnels.items()}
    assert revisions == {"both": 7, "ports": 5, "sites": 4, "neither": 0}


def test_migrated_passwords_of_clients_lists_are_hashes(database, empty_url):
    """In the rules and in what the change log tells of them; nothing else is touched."""
    migrate(database, MIGRATIONS[:6])
    tunnel, false = "11" * 16, "0" if database.is_sqlite else "FALSE"
    kept = {"domain": "b.example.org", "password": hash_of("kept"), "port": 1}
    rules = {"a.example.org": {"basicHttpAuth": "mara:pw", "domain": "a.example.org", "password": "pw {1}%"},
             "b.example.org": kept, "c.example.org": {"domain": "c.example.org"}}  # fmt: skip
    with database.write():
        database.query(
            f"INSERT INTO tunnel VALUES ('{tunnel}', '{'00' * 16}', '{'00' * 16}', 1, 1, '', 'x.example', {false}, "
            "NULL, 1)"
        )
        for number, (domain, rule) in enumerate(rules.items(), 1):
            database.query(
                "INSERT INTO site VALUES ({}, {}, {}, {}, 1, 1, 1)",
                (f"{number:032x}", tunnel, domain, canonical_json(rule)),
            )
            database.query(
                "INSERT INTO change VALUES ({}, 1, 'site', 'put', {}, 1, {}, 1)",
                (number, f"{number:032x}", canonical_json({"rule": rule, "domain": domain})),
            )
    with Store.open(empty_url) as store:
        found = {site.domain: site.rule for site in store.sites.select()}
        logged = [change.body["rule"] for change in store.changes.after(0)]
    assert [found["b.example.org"], found["c.example.org"]] == [kept, rules["c.example.org"]]
    sealed = found["a.example.org"]
    assert fits(sealed["password"], "pw {1}%") and fits(sealed["basicHttpAuth"], "mara:pw")
    assert logged == list(found.values())


def test_migrate_applies_only_missing_steps(database):
    migrate(database)
    later = (*MIGRATIONS, Migration(NEXT, ("CREATE TABLE extra (n INTEGER)", "INSERT INTO extra VALUES (1)")))
    assert migrate(database, later) == NEXT
    assert migrate(database, later) == NEXT
    assert database.query("SELECT n FROM extra") == [(1,)]


def test_migrate_failing_step_undoes_all_steps(database):
    migrate(database)
    broken = (
        *MIGRATIONS, Migration(NEXT, ("CREATE TABLE extra (n INTEGER)",)), Migration(NEXT + 1, ("CREATE TABEL x (n)",)),
    )
    with pytest.raises(StoreError):
        migrate(database, broken)
    assert schema_version(database) == MIGRATIONS[-1].version
    assert "extra" not in database.tables()


def test_open_newer_schema_refused_and_untouched(database, empty_url):
    migrate(database, (*MIGRATIONS, Migration(NEXT, ("CREATE TABLE extra (n INTEGER)",))))
    with pytest.raises(SchemaTooNewError, match=f"version {NEXT}; this program knows up to {NEXT - 1}") as refusal:
        Store.open(empty_url)
    assert "later" in refusal.value.hint
    assert schema_version(database) == NEXT


def test_open_another_program_s_database_refused_and_untouched(database, empty_url):
    with database.write():
        database.query("CREATE TABLE tunnel (length_km INTEGER)")
    with pytest.raises(StoreError, match="another program's tables"):
        Store.open(empty_url)
    assert database.tables() == ["tunnel"]


@pytest.mark.parametrize("version", [None, "", "one", "-1"])
def test_open_damaged_schema_version_refused(database, empty_url, version):
    with database.write():
        database.query("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        if version is not None:
            database.query("INSERT INTO meta VALUES ('schema_version', {})", (version,))
    with pytest.raises(StoreError, match="no schema version"):
        Store.open(empty_url)


def test_open_by_many_at_once_migrates_once(empty_url):
    failures = []

    def open_and_close():
        try:
            Store.open(empty_url).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_and_close, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        join_thread(thread)
    assert failures == []
    with Store.open(empty_url) as store:
        assert store.changes.position() == (1, 0)


def test_foreign_keys_are_enforced(store):
    with pytest.raises(StoreError, match=r"(?i)foreign key"), store._db.write():
        store._db.query("INSERT INTO port VALUES ({}, {}, 1, 'x', 0, 0, 0)", ("1" * 32, "2" * 32))
    assert store.ports.select() == []
