"""TLS pass-through: the visitor's handshake goes to its tunnel as it is; the server holds no key for it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes._fastpath.engine import RouteKind
from tests.support.client_hello import real_hello
from tests.support.engines import Pair, engine_pair, make_certificate
from tests.support.frames import server_context
from tests.support.upstreams import connect, is_reset, pattern, read_all, read_exactly, tcp_upstream

NAME = "own.example"
CHAIN_PEM, KEY_PEM, _ = make_certificate(NAME)


def serve(pair: Pair, upstream) -> None:
    pair.server.set_tunnel_route(RouteKind.TLS, NAME, pair.server_tunnel)
    pair.client.set_upstream_route(RouteKind.TLS, NAME, upstream.upstream)
    pair.publish()


def visitor_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=CHAIN_PEM.decode())
    return context


def sent_and_read(tls: ssl.SSLSocket, data: bytes) -> bytes:
    """`data` up while as much comes down, by one thread: two at one TLS conn are a data race before Python 3.13."""
    tls.setblocking(False)
    sent, got = 0, bytearray()
    while len(got) < len(data):
        waits_for = selectors.EVENT_READ
        with contextlib.suppress(ssl.SSLWantReadError):
            part = tls.recv(1 << 20)
            assert part, f"the conn ended {len(data) - len(got)} bytes early"
            got += part
            continue
        if sent < len(data):
            try:
                sent += tls.send(memoryview(data)[sent : sent + (1 << 16)])
                continue
            except ssl.SSLWantWriteError:
                waits_for |= selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector:
            selector.register(tls, waits_for)
            assert selector.select(30), f"nothing came or left, {len(data) - len(got)} bytes early"
    return bytes(got)


def tls_echo(conn: socket.socket) -> None:
    with server_context(CHAIN_PEM, KEY_PEM, alpn="").wrap_socket(conn, server_side=True) as tls:
        while data := tls.recv(65536):
            tls.sendall(data)


@pytest.mark.parametrize("workers", [1, 2])
def test_passthrough_handshake_is_with_the_tunnels_own_certificate(workers):
    data = pattern(2_000_000)

    def visit(_: int) -> bytes:
        with connect(pair.ports["tls"]) as sock, visitor_context().wrap_socket(sock, server_hostname=NAME) as tls:
            assert tls.getpeercert()["subjectAltName"] == (("DNS", NAME),)
            return sent_and_read(tls, data)

    with engine_pair(workers=workers) as pair, tcp_upstream(tls_echo) as upstream, ThreadPoolExecutor(4) as pool:
        serve(pair, upstream)
        for got in pool.map(visit, range(8)):
            assert got == data
        pair.assert_idle()


@pytest.mark.parametrize("step", [1, 3, 100, 100_000])
def test_passthrough_hello_in_any_parts_arrives_unchanged(step):
    hello = real_hello(NAME, ["h2", "http/1.1"])
    heard: list[bytes] = []

    def record(conn: socket.socket) -> None:
        heard.append(read_exactly(conn, len(hello) + 5))
        conn.sendall(b"server flight")

    with engine_pair() as pair, tcp_upstream(record) as upstream:
        serve(pair, upstream)
        with connect(pair.ports["tls"]) as sock:
            for at in range(0, len(hello), step):
                sock.sendall(hello[at : at + step])
            sock.sendall(b"early")
            assert read_all(sock) == b"server flight"
        assert heard == [hello + b"early"]
        pair.assert_idle()


def test_passthrough_name_in_capitals_finds_its_tunnel():
    hello = real_hello(NAME.upper())

    def record(conn: socket.socket) -> None:
        conn.sendall(read_exactly(conn, len(hello)))

    with engine_pair() as pair, tcp_upstream(record) as upstream:
        serve(pair, upstream)
        with connect(pair.ports["tls"]) as sock:
            sock.sendall(hello)
            assert read_all(sock) == hello
        pair.assert_idle()


@pytest.mark.parametrize("name", ["unknown.example", "sub.own.example", None])
def test_passthrough_unknown_name_gets_the_alert(name):
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        sock.sendall(real_hello(name))
        assert read_all(sock) == bytes.fromhex("15 03 01 00 02 02 70")
        sock.close()
        pair.assert_idle()


def test_passthrough_unknown_name_is_an_unrecognized_name_for_a_real_client():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            visitor_context().wrap_socket(sock, server_hostname="unknown.example")
        pair.assert_idle()


def test_passthrough_tunnel_off_line_closes_the_visitor():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        pair.server.set_tunnel_route(RouteKind.TLS, NAME, pair.server.open_tunnel())
        pair.server.publish()
        sock.sendall(real_hello(NAME))
        assert is_reset(sock)
        pair.assert_idle()


def test_passthrough_visitor_that_goes_in_the_handshake_leaves_nothing():
    with engine_pair() as pair, tcp_upstream(tls_echo) as upstream:
        serve(pair, upstream)
        for _ in range(30):
            with connect(pair.ports["tls"]) as sock:
                sock.sendall(real_hello(NAME))
                with contextlib.suppress(ConnectionResetError):
                    sock.recv(1)
        pair.assert_idle()
