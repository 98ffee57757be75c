"""The client's configuration as people mount it: read-only folders, single files, links, and an editor beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Client, wait_until

pytestmark = pytest.mark.e2e


@contextlib.contextmanager
def mounted(*steps: tuple[object, ...], on: Path) -> Iterator[None]:
    done = subprocess.run(["mount", *map(str, steps[0])], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this machine mounts nothing")
    try:
        for step in steps[1:]:
            subprocess.run(["mount", *map(str, step)], check=True)
        yield
    finally:
        subprocess.run(["umount", on], check=True)


def moved(client: Client, folder: Path) -> Path:
    folder.mkdir()
    client.config = Path(shutil.move(client.config, folder / "config.json"))
    return client.config


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_read_only_folder_serves_takes_changes_and_says_once_what_is_not_kept(server, client, web, tmp_path):
    client.spoke("http", "add", "--domain", "kept.test", "--http", web.port)
    config = moved(client, tmp_path / "mounted")
    before = config.read_bytes()
    with mounted(("--bind", config.parent, config.parent), ("-o", "remount,ro,bind", config.parent), on=config.parent):
        process = client.start()
        wait_until(lambda: server.serves("kept.test"))
        for domain in ("a.test", "b.test"):
            done = client.spoke("http", "add", "--domain", domain, "--http", web.port)
            assert "not kept" in done.stderr
            assert "Read-only file system" in done.stderr
            wait_until(lambda domain=domain: server.serves(domain))
        assert process.log().count("configuration not saved") == 1
        assert process.end(signal.SIGTERM) == 0
        refused = client.spoke("http", "add", "--domain", "c.test", "--http", web.port, code=1)
        assert "SPK-CONFIG" in refused.stderr
    assert config.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_single_file_mounted_keeps_what_is_changed_running_or_not(server, client, web, tmp_path):
    real = moved(client, tmp_path / "real")
    client.config = tmp_path / "single.json"
    client.config.touch()
    with mounted(("--bind", real, client.config), on=client.config):
        client.spoke("http", "add", "--domain", "a.test", "--http", web.port)
        client.start()
        wait_until(lambda: server.serves("a.test"))
        client.spoke("http", "add", "--domain", "b.test", "--http", web.port)
    assert [rule["domain"] for rule in json.loads(real.read_text())["https"]] == ["a.test", "b.test"]


def test_link_is_written_through(server, client, web, tmp_path):
    real = moved(client, tmp_path / "dotfiles")
    client.config = tmp_path / "link.json"
    client.config.symlink_to(real)
    client.start()
    wait_until(lambda: client.try_spoke("info", "--json").stdout.find("online") > 0)
    client.spoke("http", "add", "--domain", "a.test", "--http", web.port)
    assert client.config.is_symlink()
    assert [rule["domain"] for rule in json.loads(real.read_text())["https"]] == ["a.test"]


def test_hand_edits_while_the_client_writes_are_all_kept(server, client, web):
    """Each is written without a lock, as editors do, while the client notes what the server accepted of the last."""
    process = client.start()
    wait_until(lambda: "Connected" in process.log())
    for number in range(20):
        edited = json.loads(client.config.read_text())
        edited.setdefault("https", []).append({"domain": f"n{number}.test", "port": web.port})
        beside = client.config.with_suffix(".typed")
        beside.write_text(json.dumps(edited))
        beside.replace(client.config)
        process.send(signal.SIGHUP)
    wait_until(lambda: all(server.serves(f"n{number}.test") for number in range(20)), within_s=30)
