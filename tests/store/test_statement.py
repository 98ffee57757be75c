"""Statements that are written once: the same text for every run, values in their places, on both engines."""

import json

import pytest

from spokes.model.tokens import CreateToken
from spokes.store.logged import TABLES
from spokes.store.models import MetaModel
from spokes.store.rows import Token
from spokes.store.statement import EachOf, Statement
from tests.support.operations import do

INSERT = Statement(lambda key, value: MetaModel.insert(key=key, value=value))
FIND = Statement(lambda key: MetaModel.select(MetaModel.value, MetaModel.key).where(MetaModel.key == key))
# The second value stands before the first, one is always the same, and one stands twice.
TURNED = Statement(
    lambda key, value: MetaModel.update(value=value).where(
        (MetaModel.key == key) & ((MetaModel.key == key) | (MetaModel.key == "always"))
    )
)
THESE = Statement(lambda keys: MetaModel.select(MetaModel.key).where(MetaModel.key.in_(EachOf(keys))))


@pytest.fixture
def db(store):
    return store._db


def test_statement_is_written_once(db):
    built = []

    def build(key):
        built.append(key)
        return MetaModel.select(MetaModel.value).where(MetaModel.key == key)

    statement = Statement(build)
    for key in ("a", "b", "schema_version"):
        db.rows(statement(key))
    assert len(built) == 1
    assert db.rows(statement("nothing")) == []


def test_statement_values_find_their_places(db):
    db.run(INSERT("k", "first"))
    assert db.rows(FIND("k")) == [("first", "k")]
    assert db.run(TURNED("k", "second")) == 1
    assert db.run(TURNED("none", "third")) == 0
    assert db.rows(FIND("k")) == [("second", "k")]


@pytest.mark.parametrize("value", ["?", "%s", "{}", "'; DROP TABLE meta; --", "\\", "😀", ""])
def test_statement_takes_any_text_as_a_value(db, value):
    db.run(INSERT("k", value))
    assert db.rows(FIND("k")) == [(value, "k")]


def test_statement_of_another_number_of_values_is_refused():
    with pytest.raises(TypeError):
        FIND()
    with pytest.raises(TypeError):
        FIND("a", "b")


def test_each_of_any_number_of_texts(db):
    keys = ["a", 'quoted "b"', "c", "ü"]
    for key in keys[:3]:
        db.run(INSERT(key, ""))
    asked = [*keys, *(f"more {n}" for n in range(40_000))]   # more than engines take parameters
    assert sorted(db.rows(THESE(json.dumps(asked)))) == sorted([(key,) for key in keys[:3]])
    query = MetaModel.select(MetaModel.key).where(MetaModel.key.in_(EachOf(iter(asked))))
    assert sorted(db.rows(query)) == sorted([(key,) for key in keys[:3]])
    assert db.rows(THESE("[]")) == []


def test_logged_table_of_every_kind_reads_what_it_wrote(store):
    token = do(store, CreateToken("a token"))
    table = TABLES[Token]
    row, = store._db.rows(table.find(token.uid))
    assert table.read(row) == token
    assert {one.kind for one in TABLES.values()} == {
        "token", "tunnel", "auth_token", "site", "port", "portmap", "user", "api_key", "webhook", "replica",
    }
