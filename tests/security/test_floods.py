"""Floods from one address: what is left for the others."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.frames import client_context
from tests.support.hostile_links import HostileLink
from tests.support.processes import DOMAIN, wait_until

pytestmark = pytest.mark.e2e

PER_ADDRESS = 40
ATTACKER = "127.0.0.66"
HANDSHAKES_PER_S = 30
HANDSHAKE_FLOODER = "127.0.0.67"


@pytest.fixture(scope="module")
def options(directory: Path) -> tuple[object, ...]:
    config = directory / "spokes.toml"
    config.write_text(
        f"visitors_per_address = {PER_ADDRESS}\n"
        f"handshakes_per_address_per_s = {HANDSHAKES_PER_S}\n"
        'unmetered_networks = ["127.0.0.1/32"]\n'
    )
    return "--config", config


@pytest.mark.parametrize("first", ["nothing", "half a head", "hello of a visitor", "hello of a link"])
def test_visitor_flood_from_one_address_leaves_room_for_others(server, tenant, first):
    words = {
        "nothing": b"",
        "half a head": b"GET / HT",
        "hello of a visitor": _client_hello("http/1.1"),
        "hello of a link": _client_hello("spokes/1"),
    }[first]
    port = server.https_port if first.startswith("hello") else server.http_port
    before = server.status()["engine"]["visitors_refused"]
    with _crowd(port, words, 3 * PER_ADDRESS):
        wait_until(lambda: server.status()["engine"]["visitors_refused"] >= before + 2 * PER_ADDRESS)
        assert server.status()["engine"]["visitors_open"] <= PER_ADDRESS
        assert server.serves(tenant.hostname)
        HostileLink(server).close()  # a client gets in too
    wait_until(lambda: server.status()["engine"]["visitors_open"] == 0)


@pytest.mark.parametrize("alpn", ["http/1.1", "spokes/1"])
def test_handshake_flood_from_one_address_is_refused_before_it_costs(server, tenant, alpn):
    done = refused = 0
    while not refused:
        try:
            with socket.create_connection(
                ("127.0.0.1", server.https_port), 5, source_address=(HANDSHAKE_FLOODER, 0)
            ) as sock:
                client_context(alpn).wrap_socket(sock, server_hostname=DOMAIN).close()
                done += 1
        except OSError:
            refused += 1
        assert done < 100 * HANDSHAKES_PER_S
    assert alpn != "http/1.1" or done >= 10 * HANDSHAKES_PER_S  # the burst; the second flood finds it used up
    assert server.serves(tenant.hostname)
    HostileLink(server).close()  # from another address


def _client_hello(alpn: str) -> bytes:
    """The first flight of a TLS client that says no more."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(alpn).wrap_bio(incoming, outgoing, server_hostname=DOMAIN)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@contextlib.contextmanager
def _crowd(port: int, words: bytes, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), 5, source_address=(ATTACKER, 0))
                stack.enter_context(sock)
                sock.sendall(words)
        yield
