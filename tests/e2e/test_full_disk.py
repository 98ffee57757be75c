"""A disk that is really full: what is stored waits, traffic does not."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port_range
from tests.support.processes import Client, ServerProcess, run, service, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose `data` is a file system of 3 MB."""
    data = tmp_path / "data"
    data.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", data], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine mounts nothing")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", data], check=True)


def fill(directory: Path) -> Path:
    """A file that takes every byte that is left."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size_bytes in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size_bytes))
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


@contextlib.contextmanager
def tunnel(directory: Path) -> Iterator[tuple[ServerProcess, Client, int]]:
    """A server in the directory, a client of it that does not serve yet, and the port of a service."""
    server = ServerProcess(directory, str(free_port_range(4)))
    with contextlib.ExitStack() as ends:
        ends.callback(server.end)
        server.start()
        client = Client(server, directory / "client.json")
        ends.callback(client.end)
        yield server, client, ends.enter_context(service()).port


def test_server_disk_full_serves_and_admits_goes_on_writing_afterwards(small_disk: Path):
    with tunnel(small_disk) as (server, client, port):
        first = client.start("http", port)
        wait_until(lambda: server.serves(client.hostname), what="the first answer")
        filler = fill(server.data)

        refused = run("spokes", "token", "create", "--data", server.data, code=1)
        assert "the disk is full" in refused.stderr
        assert "SPK-STORE" in refused.stderr
        assert server.serves(client.hostname)

        first.end()  # a login needs no write
        wait_until(lambda: server.serves(client.hostname, 503), what="the page of an off-line tunnel")
        client.start("http", port)
        wait_until(lambda: server.serves(client.hostname), what="an answer after the reconnect")

        filler.unlink()
        run("spokes", "token", "create", "--data", server.data)
        assert "Traceback" not in server.log()


def test_rule_added_while_the_servers_disk_is_full_is_said_so_and_in_force_when_there_is_room(small_disk: Path):
    with tunnel(small_disk) as (server, client, port):
        running = client.start("http", port)
        wait_until(lambda: "Serving;" in running.log(), what="the rules in force")
        filler = fill(server.data)

        name = "shop.example.net"
        add = ("tunnel", "http", "add", "--domain", name, "--http", port)
        refused = client.spoke(*add, code=1)
        assert "the server cannot store the rules now" in refused.stderr
        assert "the disk is full" in refused.stderr
        assert "SPK-STORE" in refused.stderr
        assert str(server.data) not in refused.stderr
        waits = client.spoke("info").stdout
        assert "waiting: " in waits
        assert "Rules: kept here; the server cannot store them now: " in waits
        assert server.serves(client.hostname)
        assert client.spoke("tunnel", "tcp", "allocate", code=1).stderr.count("SPK-STORE") == 1  # heard meanwhile

        filler.unlink()
        wait_until(lambda: server.serves(name), what="the rule in force")
        wait_until(lambda: "waiting" not in client.spoke("info").stdout, what="the client knows it")
        client.spoke(*add)  # taken at once
        assert "Traceback" not in server.log() + running.log()
