import asyncio
import json
from contextlib import contextmanager

import pytest

from spokes.client import config_edit
from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig, edit_config, merge_documents
from spokes.errors import ConfigError
from spokes.wire.rules import Site
from tests.support.eventually import eventually

A, B, C = ({"domain": f"{name}.example", "port": 1} for name in "abc")


def write(path, **members):
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def read(path):
    return json.loads(path.read_text())


def set_sites(config, *rules):
    config.set_sites([Site(domain=rule["domain"], port=rule["port"]) for rule in rules])


def test_edit_of_a_person_meanwhile_is_kept_beside_ours(config_path):
    write(config_path, https=[A])
    with edit_config(config_path) as config:
        set_sites(config, A, B)
        write(config_path, https=[A, C], name="typed")
    assert read(config_path)["https"] == [A, B, C]
    assert read(config_path)["name"] == "typed"


def test_edit_of_the_same_rule_by_a_person_stands(config_path):
    write(config_path, https=[A])
    with edit_config(config_path) as config:
        set_sites(config, {**A, "port": 2})
        write(config_path, https=[{**A, "port": 3}])
    assert [rule["port"] for rule in read(config_path)["https"]] == [3]


def test_edit_half_written_by_a_person_is_left_alone(config_path):
    with pytest.raises(ConfigError, match="no JSON"), edit_config(config_path) as config:
        set_sites(config, B)
        config_path.write_text("{")
    assert config_path.read_text() == "{"


def test_edit_that_changes_nothing_writes_nothing(config_path):
    before = config_path.stat().st_ino
    with edit_config(config_path):
        pass
    assert config_path.stat().st_ino == before


def test_edit_lock_held_for_ever_is_an_error(config_path, monkeypatch):
    monkeypatch.setattr(config_edit, "LOCK_PATIENCE_S", 0)
    refused = pytest.raises(ConfigError, match="another `spoke` command")
    with edit_config(config_path), refused, edit_config(config_path):
        pass


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        ({}, {"name": "x"}, {}, {"name": "x"}),
        ({}, {}, {"name": "x"}, {"name": "x"}),
        ({"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "c"}),
        ({"name": "a"}, {"name": "a"}, {}, {}),
        ({"name": "a"}, {}, {"name": "a"}, {"name": "a"} | {"name": None}),
        ({"https": [A]}, {"https": [A, B]}, {"https": [A, C]}, {"https": [A, B, C]}),
        ({"https": [A, B]}, {"https": [A]}, {"https": [A, B, C]}, {"https": [A, C]}),
        ({"https": [A, B]}, {"https": [A, B, C]}, {"https": [None, B]}, {"https": [B, C]}),
        ({"https": None}, {"https": [A]}, {"https": [B]}, {"https": [A, B]}),
        ({"synced": {}}, {"synced": {"https": [A]}}, {"synced": {"https": [B]}}, {"synced": {"https": [A]}}),
        ({"x": 1}, {"x": 1}, {"x": None, "y": 2}, {"x": None, "y": 2}),
    ],
)
def test_merge_documents(base, ours, theirs, merged):
    assert merge_documents(base, ours, theirs) == merged


@pytest.fixture
def closed(monkeypatch):
    """A file that cannot be written; call it to open it again."""

    def save(self, **_):
        raise ConfigError("cannot write: Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(ClientConfig, "save", save)
        yield patch.undo


def test_held_file_closed_goes_on_in_memory_and_says_so_once(config_path, closed, caplog):
    held = HeldConfig(config_path)
    for rules in ((A,), (A, B)):
        with held.edit() as config:
            set_sites(config, *rules)
    assert [site.domain for site in held.read().sites()] == ["a.example", "b.example"]
    assert "Read-only" in held.unsaved
    assert [record.getMessage() for record in caplog.records] == ["configuration not saved"]
    assert "https" not in read(config_path)


def test_held_file_edited_while_closed_is_taken_with_what_is_in_memory(config_path, closed):
    held = HeldConfig(config_path)
    with held.edit() as config:
        set_sites(config, A)
    write(config_path, https=[B])  # a ConfigMap that is changed from outside
    assert [site.domain for site in held.read().sites()] == ["a.example", "b.example"]
    write(config_path, https=[C])
    assert [site.domain for site in held.read().sites()] == ["a.example", "c.example"]


def test_held_file_open_again_gets_both(config_path, closed):
    held = HeldConfig(config_path)
    with held.edit() as config:
        set_sites(config, A)
    write(config_path, https=[B])
    closed()
    with held.edit() as config:
        config.document["name"] = "x"
    assert read(config_path)["https"] == [A, B]
    assert read(config_path)["name"] == "x"
    assert held.unsaved == ""


def test_held_file_half_written_is_never_overwritten(config_path):
    held = HeldConfig(config_path)
    config_path.write_text("{")
    with held.edit() as config:
        set_sites(config, A)
    assert config_path.read_text() == "{"
    config_path.write_text(json.dumps({"https": [B]}))
    with held.edit() as config:
        config.document["name"] = "x"
    assert read(config_path) == {"name": "x", "https": [A, B]}


def test_held_error_inside_changes_nothing(config_path):
    held = HeldConfig(config_path)
    with pytest.raises(RuntimeError), held.edit() as config:
        set_sites(config, A)
        raise RuntimeError
    assert held.read().sites() == []


@contextmanager
def held_by_a_command(path):
    """Another process holds the file, as `spoke` commands do while they change it."""
    with config_edit._lock(path, patience_s=0.0):
        yield


async def test_held_file_of_a_command_is_not_waited_for_and_written_once_it_is_free(config_path, caplog):
    held = HeldConfig(config_path)
    with held_by_a_command(config_path):
        with held.edit() as config:
            set_sites(config, A)
        with held.edit() as config:
            set_sites(config, A, C)
        write(config_path, https=[B])
        assert [site.domain for site in held.read().sites()] == ["a.example", "c.example", "b.example"]
        waiting = asyncio.ensure_future(held.settled())
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 30)
    assert read(config_path)["https"] == [A, C, B]
    assert held.unsaved == ""
    assert caplog.records == []


async def test_held_file_of_a_command_that_stays_is_told_and_written_when_that_goes(config_path, caplog, monkeypatch):
    monkeypatch.setattr(config_edit, "LOCK_PATIENCE_S", 0.0)
    monkeypatch.setattr(config_edit, "_HELD_RETRY_LATE_S", 0.01)
    held = HeldConfig(config_path)
    with held_by_a_command(config_path):
        with held.edit() as config:
            set_sites(config, A)
        await asyncio.wait_for(held.settled(), 30)
        assert "another `spoke` command" in held.unsaved
    await eventually(lambda: held.unsaved == "")
    assert read(config_path)["https"] == [A]
    words = ["configuration not saved", "configuration saved again"]
    assert [record.getMessage() for record in caplog.records] == words
