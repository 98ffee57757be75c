"""A server on the engine's stand-in, with a real store and real sockets."""

import socket
from pathlib import Path

import pytest

from spokes.config import Address, PortRange, ServerConfig
from spokes.server.app import Server
from tests.support.fake_engine import FakeEngine

DOMAIN = "tun.example.net"


def free_port_range(count: int) -> PortRange:
    """Ports next to each other that nobody has at this moment."""
    for begin in range(23000, 29000, count):
        try:
            for port in range(begin, begin + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as sock:
                        sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        return PortRange(begin, begin + count - 1)
    raise AssertionError("no free ports")


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
    server.hurry()
    await server.stop()


@pytest.fixture
def engine(server) -> FakeEngine:
    return server._engine


@pytest.fixture
def store(server):
    """The server's own store, called from the test's thread."""
    return server._store.store
