"""A server on the engine's stand-in, with a real store and real sockets."""

from pathlib import Path

import pytest

from spokes.config import ServerConfig
from spokes.config_values import Address
from spokes.server.process.app import Server
from tests.support.fake_engine import FakeEngine
from tests.support.ports import free_port_range

DOMAIN = "tun.example.net"


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        domain=DOMAIN,
        data=tmp_path / "data",
        http=(Address("127.0.0.1", 0),),
        https=(Address("127.0.0.1", 0),),
        tcp_address="127.0.0.1",
        tcp_ports=free_port_range(4),
        workers=2,
        drain_timeout_s=5.0,
        presence_interval_s=0.1,
        admin=False,
        traffic_interval_s=0.1,
    )


@pytest.fixture
async def server(config):
    server = Server(config, make_engine=FakeEngine)
    await server.start()
    yield server
    server.force_stop()
    await server.stop()


@pytest.fixture
def engine(server) -> FakeEngine:
    return server._engine


@pytest.fixture
def store(server):
    """The server's own store, called from the test's thread."""
    return server._store.store
