"""TLS pass-through: the visitor's handshake goes to its tunnel as it is; the server holds no key for it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes._fastpath.engine import Policy, RouteKind, Site, Upstream
from tests.support.client_hello import extension, message, real_hello, records, server_name
from tests.support.engines import CHAIN_PEM as SERVER_CHAIN_PEM
from tests.support.engines import DOMAIN, Pair, engine_pair, make_certificate, publish
from tests.support.frames import server_context
from tests.support.upstreams import connect, pattern, read_all, read_exactly, tcp_upstream

NAME = "own.example"
CHAIN_PEM, KEY_PEM, _ = make_certificate(NAME)
DECODE_ERROR, INTERNAL_ERROR, UNRECOGNIZED_NAME = 50, 80, 112


def serve(pair: Pair, upstream) -> None:
    pair.server.set_route(RouteKind.TLS, NAME, Site(tunnels=(pair.server_tunnel,)))
    pair.client.set_route(RouteKind.TLS, NAME, Site(upstream=upstream.upstream))
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


def alert(description: int) -> bytes:
    return b"\x15\x03\x01\x00\x02\x02" + bytes([description])


def test_passthrough_tunnel_off_line_is_an_alert():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        pair.server.set_route(RouteKind.TLS, NAME, Site(tunnels=(pair.server.open_tunnel(),)))
        publish(pair.server)
        sock.sendall(real_hello(NAME))
        assert read_all(sock) == alert(INTERNAL_ERROR)
        sock.close()
        pair.assert_idle()


@pytest.mark.parametrize("is_known", [True, False])
def test_passthrough_service_that_is_not_there_is_an_alert(is_known):
    with engine_pair() as pair, socket.socket() as closed, connect(pair.ports["tls"]) as sock:
        closed.bind(("127.0.0.1", 0))
        pair.server.set_route(RouteKind.TLS, NAME, Site(tunnels=(pair.server_tunnel,)))
        if is_known:
            pair.client.set_route(RouteKind.TLS, NAME, Site(upstream=Upstream(addresses=[closed.getsockname()])))
        pair.publish()
        sock.sendall(real_hello(NAME))
        assert read_all(sock) == alert(INTERNAL_ERROR if is_known else UNRECOGNIZED_NAME)
        sock.close()
        pair.assert_idle()


def test_passthrough_goes_before_a_certificate_of_ours():
    name = f"own.{DOMAIN}"
    chain_pem, key_pem, _ = make_certificate(name)

    def serve_tls(conn: socket.socket) -> None:
        with server_context(chain_pem, key_pem, alpn="").wrap_socket(conn, server_side=True) as tls:
            tls.sendall(b"mine")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=chain_pem.decode())
    with engine_pair() as pair, tcp_upstream(serve_tls) as upstream:
        pair.server.set_route(RouteKind.TLS, name, Site(tunnels=(pair.server_tunnel,)))
        policy = Policy(https_port=pair.ports["tls"])
        pair.server.set_route(RouteKind.HTTP, name, Site(tunnels=(pair.server_tunnel,), policy=policy))
        pair.client.set_route(RouteKind.TLS, name, Site(upstream=upstream.upstream))
        pair.publish()
        with connect(pair.ports["tls"]) as sock, context.wrap_socket(sock, server_hostname=name) as tls:
            assert tls.recv(100) == b"mine"
        # On a conn whose TLS ends here for another name, the visitor is told to open one of its own.
        context.load_verify_locations(cadata=SERVER_CHAIN_PEM.decode())
        with connect(pair.ports["tls"]) as sock, context.wrap_socket(sock, server_hostname=f"b.{DOMAIN}") as tls:
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            assert tls.recv(100).startswith(b"HTTP/1.1 421 ")
        pair.assert_idle()


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", b"\x16\x03\x01\x00\x00", b"\x00" * 50, b"\x16\x03\x01\x40\x01\x01",
     b"\x16\x03\x01\x40\x00\x01\xff\xff\xff", records(message(server_name(b"a b"))) + b"x" * 100_000],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_malformed_hello_is_answered_with_an_alert(garbage, step):
    if len(garbage) > 1000 and step == 1:
        garbage = garbage[:500]
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        for at in range(0, len(garbage), step):
            sock.sendall(garbage[at : at + step])
        assert read_all(sock) == alert(DECODE_ERROR)
        sock.close()
        pair.assert_idle()


def test_hello_that_openssl_refuses_is_answered_with_an_alert():
    hello = records(message(server_name(b"a.tun.test"), version=b"\x03\x00"))
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        sock.sendall(hello + b"x" * 1000)
        answer = read_all(sock)
        assert answer[0] == 21 and answer[5] == 2, answer
        sock.close()
        pair.assert_idle()


@pytest.mark.parametrize("record_bytes", [1, 100, 16384])
def test_hello_of_60_kib_in_any_records_is_passed_through_unchanged(record_bytes):
    whole = message(server_name(NAME.encode()) + extension(21, bytes(60_000)))
    hello = records(whole, *[record_bytes] * (len(whole) // record_bytes))

    def echo(conn: socket.socket) -> None:
        got = read_exactly(conn, len(hello))
        conn.sendall(b"same" if got == hello else b"other")

    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        serve(pair, upstream)
        with connect(pair.ports["tls"]) as sock:
            for at in range(0, len(hello), 3000):
                sock.sendall(hello[at : at + 3000])
            assert read_all(sock) == b"same"
        pair.assert_idle()


@pytest.mark.parametrize("record_bytes", [0, 1, 50])
def test_hello_in_any_records_ends_at_our_certificate(record_bytes):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=SERVER_CHAIN_PEM.decode())
    context.set_alpn_protocols([f"a-protocol-with-a-long-name-{number:03}" for number in range(1000)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=f"a.{DOMAIN}")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    flight = outgoing.read()
    assert len(flight) > 30_000
    if record_bytes:
        handshake = b"".join(
            flight[at + 5 : at + 5 + size] for at, size in record_places(flight)
        )
        flight = records(handshake, *[record_bytes] * (len(handshake) // record_bytes))
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        sock.sendall(flight)
        while True:
            incoming.write(sock.recv(65536))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        sock.sendall(outgoing.read())
        sock.close()
        pair.assert_idle()


def record_places(flight: bytes) -> list[tuple[int, int]]:
    places, at = [], 0
    while at < len(flight):
        size = int.from_bytes(flight[at + 3 : at + 5], "big")
        places.append((at, size))
        at += 5 + size
    return places


def test_plain_http_at_the_tls_port_is_told_so():
    with engine_pair() as pair, connect(pair.ports["tls"]) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a.tun.test\r\n\r\n")
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"X-Spokes-Code: SPK-PLAIN-HTTP\r\n" in answer
        sock.close()
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
