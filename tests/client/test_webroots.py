"""Directories that sites are served from: found again when they are replaced, missed in one line of the log."""

import asyncio
import logging
import threading

import pytest

from spokes._fastpath.engine import Directory
from spokes.client.webroots import THREAD_COUNT_MAX, WebRoots, usable_web_root
from spokes.errors import WebRootError
from tests.support.eventually import eventually


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site"
    path.mkdir()
    return path


async def test_use_opens_each_and_forgets_what_is_not_used(site, tmp_path):
    roots = WebRoots(Directory)
    await roots.use({str(site), str(tmp_path)})
    assert roots.directory(str(site)).identity == (site.stat().st_dev, site.stat().st_ino)
    await roots.use({str(site)})
    assert roots.directory(str(tmp_path)) is None
    assert await roots.refresh() is False


async def test_refresh_same_directory_stays_open(site):
    roots = WebRoots(Directory)
    await roots.use({str(site)})
    first = roots.directory(str(site))
    (site / "new").touch()
    assert await roots.refresh() is False
    assert roots.directory(str(site)) is first


async def test_refresh_replaced_directory_is_opened(site, tmp_path):
    roots = WebRoots(Directory)
    await roots.use({str(site)})
    site.rename(tmp_path / "old")
    site.mkdir()
    assert await roots.refresh() is True
    assert roots.directory(str(site)).identity[1] == site.stat().st_ino


async def test_refresh_switched_link_is_followed(site, tmp_path):
    other, link = tmp_path / "other", tmp_path / "current"
    other.mkdir()
    link.symlink_to(site)
    roots = WebRoots(Directory)
    await roots.use({str(link)})
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(link)
    assert await roots.refresh() is True
    assert roots.directory(str(link)).identity[1] == other.stat().st_ino


async def test_missing_directory_is_logged_once_and_found_when_it_comes(site, caplog):
    caplog.set_level(logging.WARNING)
    missing = site / "later"
    roots = WebRoots(Directory)
    await roots.use({str(missing)})
    await roots.refresh()
    assert roots.directory(str(missing)) is None
    (record,) = caplog.records
    assert (record.code, record.path, record.reason) == ("SPK-WEBROOT", str(missing), "No such file or directory")
    missing.mkdir()
    assert await roots.refresh() is True
    assert roots.directory(str(missing)) is not None
    missing.rmdir()
    assert await roots.refresh() is True
    assert roots.directory(str(missing)) is None
    assert [entry.message for entry in caplog.records].count("web root not readable") == 2


@pytest.mark.parametrize("path", ["site", "", "/nowhere\0x", "/" + "x" * 300])
async def test_path_that_can_be_no_directory_is_none(path, caplog):
    roots = WebRoots(Directory)
    await roots.use({path})
    assert roots.directory(path) is None
    assert [record.message for record in caplog.records] == ["web root not readable"]


async def test_use_hanging_disk_holds_nobody_up_and_is_told_later(site, tmp_path):
    answered = threading.Event()

    def open_directory(path):
        if path == str(site):
            answered.wait(10)
        return Directory(path)

    roots = WebRoots(open_directory, patience_s=0.01)
    changes = []
    roots.on_change = lambda: changes.append(roots.directory(str(site)))
    await roots.use({str(site), str(tmp_path)})
    assert roots.directory(str(site)) is None
    answered.set()
    await eventually(lambda: changes)
    assert changes[0].identity[1] == site.stat().st_ino


async def test_refresh_hanging_disk_is_asked_once_and_holds_no_other_up(site, tmp_path):
    answered = threading.Event()
    asked = []

    def open_directory(path):
        asked.append(path)
        if path == str(site):
            answered.wait(10)
        return Directory(path)

    roots = WebRoots(open_directory, patience_s=0.01)
    later = tmp_path / "later"
    await roots.use({str(site), str(later)})
    later.mkdir()
    async with asyncio.timeout(30):
        while roots.directory(str(later)) is None:  # found by this check, or told late by one before it
            await roots.refresh()
            await asyncio.sleep(0.01)
    assert await roots.refresh() is False
    assert asked.count(str(site)) == 1
    answered.set()
    await eventually(lambda: roots.directory(str(site)))


async def test_hanging_disk_leaves_the_threads_of_others_alone(site, tmp_path):
    """As many directories that hang as there are threads of the event loop's own executor, and more."""
    answered = threading.Event()

    def open_directory(path):
        if path.startswith(str(site)):
            answered.wait(30)
        return Directory(path)

    folders = [site / str(number) for number in range(THREAD_COUNT_MAX - 1)]
    for folder in folders:
        folder.mkdir()
    hanging = {str(folder) for folder in folders}
    roots = WebRoots(open_directory, patience_s=0.01)
    await roots.use(hanging)
    assert await asyncio.to_thread(lambda: "another task's") == "another task's"
    await roots.use({*hanging, str(tmp_path)})
    await eventually(lambda: roots.directory(str(tmp_path)))
    assert not any(roots.directory(path) for path in hanging)
    answered.set()
    await eventually(lambda: all(roots.directory(path) for path in hanging))


async def test_run_replaced_directory_is_reported(site, tmp_path):
    roots = WebRoots(Directory, refresh_interval_s=0.001)
    await roots.use({str(site)})
    changes = []
    roots.on_change = lambda: changes.append(roots.directory(str(site)))
    running = asyncio.create_task(roots.run())
    site.rename(tmp_path / "old")
    await eventually(lambda: changes)
    running.cancel()
    assert changes[0] is None


def test_usable_web_root_is_absolute_and_keeps_links(site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "current").symlink_to(site)
    assert usable_web_root("site") == str(site)
    assert usable_web_root("~/site") == str(site)
    assert usable_web_root("current") == str(tmp_path / "current")


@pytest.mark.parametrize("text", ["nowhere", "file", "file/x", "~nobody-here/site", "a\0b", "x" * 300])
def test_usable_web_root_refuses_in_words(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WebRootError) as refused:
        usable_web_root(text)
    assert refused.value.code == "SPK-WEBROOT"
    assert refused.value.hint
