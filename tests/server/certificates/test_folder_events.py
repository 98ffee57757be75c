"""inotify on a folder of folders: what changed, by name; and what happens where watches run out."""

import asyncio

import pytest

from spokes.server.certificates.folder_events import FolderEvents
from tests.support.eventually import eventually


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "above" / "root"
    for name in ("a", "b", "c"):
        (root / name).mkdir(parents=True)
    return root


@pytest.fixture
async def events(root):
    events = FolderEvents(root, lambda: None)
    assert events.open()
    for name in ("a", "b", "c"):
        events.add(name)
    yield events
    events.close()


async def changed(events):
    """What is told of next, in one turn of the event loop or more."""
    found = set()
    await eventually(lambda: (taken := events.take()) is None or found.update(taken) or found)
    return found


async def test_change_within_a_folder_names_the_folder(root, events):
    (root / "b" / "key").write_bytes(b"x")
    assert await changed(events) == {"b"}
    (root / "b" / "key").chmod(0o600)
    assert await changed(events) == {"b"}
    (root / "c" / "key").symlink_to("nowhere")
    assert await changed(events) == {"c"}


async def test_new_renamed_and_removed_folders_are_named(root, events):
    (root / "d").mkdir()
    assert await changed(events) == {"d"}
    (root / "a").rename(root / "e")
    assert await changed(events) == {"a", "e"}
    events.drop("a")
    events.add("e")
    (root / "e" / "key").write_bytes(b"x")
    assert await changed(events) == {"e"}
    (root / "b").rmdir()
    assert await changed(events) == {"b"}
    (root / ".hidden").mkdir()
    (root / "b").mkdir()
    assert await changed(events) == {"b"}


async def test_root_that_is_replaced_means_look_at_everything(root, events):
    root.rename(root.parent / "gone")
    (root / "z").mkdir(parents=True)
    await eventually(lambda: events.is_stale)
    assert events.take() is None
    assert events.open()
    events.add("z")
    (root / "z" / "key").write_bytes(b"x")
    assert "z" in await changed(events)


async def test_root_that_comes_later_is_watched_from_then_on(tmp_path):
    events = FolderEvents(tmp_path / "later", lambda: None)
    events.open()
    (tmp_path / "later" / "a").mkdir(parents=True)
    await eventually(lambda: events.is_stale)
    assert events.open()
    assert not events.open()
    events.close()


async def test_without_watches_left_it_is_said_once_and_the_others_go_on(root, caplog):
    events = FolderEvents(root, lambda: None, watch_count_max=2)
    for _ in range(2):
        events.open()
        for name in ("a", "b", "c"):
            events.add(name)
    assert caplog.text.count("too few watches") == 1
    (root / "c" / "key").write_bytes(b"x")
    (root / "a" / "key").write_bytes(b"x")
    assert await changed(events) == {"a"}
    events.close()


async def test_very_many_changes_are_everything(root, events):
    await asyncio.to_thread(lambda: [(root / f"n{number}").mkdir() for number in range(1100)])
    await eventually(lambda: events.take() is None)
