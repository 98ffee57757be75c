"""A server, a client and a service, as real processes."""

from pathlib import Path

import pytest

from tests.support.ports import free_port_range
from tests.support.processes import Client, ServerProcess, service


@pytest.fixture
def server(tmp_path: Path):
    server = ServerProcess(tmp_path, str(free_port_range(4)), "--drain-timeout", 10)
    server.start()
    yield server
    server.end()


@pytest.fixture
def client(server, tmp_path: Path):
    client = Client(server, tmp_path / "client.json")
    yield client
    client.end()


@pytest.fixture
def web():
    with service() as running:
        yield running
