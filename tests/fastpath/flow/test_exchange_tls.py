"""Visitors over TLS that is terminated here: the same exchanges, and only for hosts the certificate covers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from spokes._fastpath.engine import RouteKind, Site
from tests.support.engines import CHAIN_PEM, Pair, eventually, make_certificate, terminate
from tests.support.http_wire import (
    Ended,
    Message,
    ScriptedUpstream,
    Wire,
    answering,
    request,
    response,
    serving,
)
from tests.support.visitors import context_for

Visit = Callable[..., Wire]
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def visit_tls(pair: Pair) -> Iterator[Visit]:
    wires: list[Wire] = []

    def connect(
        name: str = "a.tun.test", version: ssl.TLSVersion = TLS13, chain_pem: bytes = CHAIN_PEM
    ) -> Wire:
        sock = socket.create_connection(("127.0.0.1", pair.ports["tls"]), timeout=10)
        wires.append(Wire(context_for(chain_pem, version).wrap_socket(sock, server_hostname=name)))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_https_to_a_terminated_name_is_served(pair: Pair, visit_tls: Visit, version: ssl.TLSVersion) -> None:
    seen: list[Message] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(asked.body))

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls(version=version)
        for size in (0, 1, 16384, 16385, 300_000):
            visitor.send(request("/", "X-Forwarded-Proto: http", method="POST", body=b"t" * size))
            assert visitor.read_response().body == b"t" * size
    assert {asked.one("X-Forwarded-Proto") for asked in seen} == {"https"}
    assert pair.server.stats()["streams_total"] == 1


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_https_ten_megabytes_come_down_and_go_up(pair: Pair, visit_tls: Visit, version: ssl.TLSVersion) -> None:
    body = bytes(range(256)) * 40_000
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.body)))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls(version=version)
        visitor.send(request(method="PUT", body=body))
        assert visitor.read_response().body == body


def test_https_pipelined_in_one_record_is_answered_in_order(pair: Pair, visit_tls: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.target.encode())))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        visitor.send(*(request(f"/{i}") for i in range(200)))
        for i in range(200):
            assert visitor.read_response().body == f"/{i}".encode()


def test_https_request_sent_byte_by_byte_is_understood(pair: Pair, visit_tls: Visit) -> None:
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(asked.body)))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        whole = request("/", method="POST", body=b"abc")
        visitor.send_in_parts([bytes([byte]) for byte in whole], pause_s=0.0005)
        assert visitor.read_response().body == b"abc"


def test_https_two_names_of_one_certificate_share_a_conn(pair: Pair, visit_tls: Visit) -> None:
    with (
        ScriptedUpstream(answering(response(b"a"))) as first,
        ScriptedUpstream(answering(response(b"b"))) as second,
    ):
        pair.serve_http("a.tun.test", first.upstream())
        pair.serve_http("b.tun.test", second.upstream())
        visitor = visit_tls("a.tun.test")
        for name in ("a", "b", "a", "b"):
            visitor.send(request(host=f"{name}.tun.test"))
            assert visitor.read_response().body == name.encode()


def test_host_the_certificate_does_not_cover_is_421(pair: Pair, visit_tls: Visit) -> None:
    chain, key, _ = make_certificate("other.test")
    terminate(pair.server, ["other.test"], chain, key)
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        pair.serve_http("other.test", upstream.upstream())
        pair.serve_http("plain.test", upstream.upstream())
        visitor = visit_tls("a.tun.test")
        for host in ("other.test", "plain.test", "x.y.tun.test", "unknown.test"):
            visitor.send(request(host=host))
            answer = visitor.read_response()
            assert (answer.status, answer.code) == (421, "SPK-MISDIRECTED"), host
        visitor.send(request(host="a.tun.test"))
        assert visitor.read_response().body == b"hello"
        other = visit_tls("other.test", chain_pem=chain)
        other.send(request(host="a.tun.test"))
        assert other.read_response().status == 421
        other.send(request(host="other.test"))
        assert other.read_response().body == b"hello"


def test_renewed_certificate_does_not_disturb_live_conns(pair: Pair, visit_tls: Visit) -> None:
    with ScriptedUpstream(answering(response())) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        old = visit_tls()
        old.send(request())
        assert old.read_response().body == b"hello"
        chain, key, _ = make_certificate("tun.test", "*.tun.test")
        terminate(pair.server, ["tun.test", "*.tun.test"], chain, key)
        pair.publish()
        new = visit_tls(chain_pem=chain)
        for visitor in (old, new):
            visitor.send(request())
            answer = visitor.read_response()
            assert (answer.status, answer.body) == (200, b"hello")


def test_unknown_server_name_is_refused_with_an_alert(pair: Pair, visit_tls: Visit) -> None:
    with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|unrecognized"):
        visit_tls("unknown.test")


def test_https_until_close_ends_with_close_notify(pair: Pair, visit_tls: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n", b"c" * 500_000)

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        visitor.sock.suppress_ragged_eofs = False       # type: ignore[attr-defined]
        visitor.send(request())
        visitor.read_head()
        assert visitor.read_to_end() == b"c" * 500_000


def test_https_truncated_body_has_no_close_notify(pair: Pair, visit_tls: Visit) -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        visitor.sock.suppress_ragged_eofs = False       # type: ignore[attr-defined]
        with pytest.raises(Ended) as ended:
            visitor.send(request())
            visitor.read_head()
            visitor.read_to_end()
        assert ended.value.reset


def test_https_upgrade_carries_bytes_both_ways(pair: Pair, visit_tls: Visit) -> None:
    schemes = []

    def script(wire: Wire) -> None:
        schemes.append(wire.read_head().one("X-Forwarded-Proto"))
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nfirst")
        wire.send(wire.read(100_000))

    with ScriptedUpstream(script) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        visitor.send(request("/", "Connection: upgrade", "Upgrade: x") + b"w" * 100_000)
        assert visitor.read_response().status == 101
        assert schemes == ["https"]
        assert visitor.read(5) == b"first"
        assert visitor.read(100_000) == b"w" * 100_000
        visitor.assert_closed()


def test_https_smuggling_is_400_and_close(pair: Pair, visit_tls: Visit) -> None:
    visitor = visit_tls()
    visitor.send(request("/", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST"), b"0\r\n\r\n")
    answer = visitor.read_response()
    assert (answer.status, answer.code) == (400, "SPK-BAD-REQUEST")
    visitor.assert_closed()


def test_plain_http_on_the_tls_port_is_told_so_and_closed(pair: Pair) -> None:
    for _ in range(5):
        with Wire(socket.create_connection(("127.0.0.1", pair.ports["tls"]))) as visitor:
            visitor.send(request() * 2)
            assert visitor.read_response().code == "SPK-PLAIN-HTTP"
            visitor.assert_closed()


def test_visitor_that_leaves_in_mid_handshake_leaves_nothing(pair: Pair) -> None:
    for _ in range(20):
        sock = socket.create_connection(("127.0.0.1", pair.ports["tls"]))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context_for(CHAIN_PEM).wrap_bio(incoming, outgoing, server_hostname="a.tun.test")
        with contextlib.suppress(ssl.SSLWantReadError):
            session.do_handshake()
        sock.sendall(outgoing.read())
        sock.recv(100)
        sock.close()
    eventually(lambda: pair.server.stats()["visitors_open"] == 0)


def test_slow_https_visitor_gets_every_byte(pair: Pair, visit_tls: Visit) -> None:
    body = b"0123456789abcdef" * 300_000
    with ScriptedUpstream(answering(response(body))) as upstream:
        pair.serve_http("a.tun.test", upstream.upstream())
        visitor = visit_tls()
        visitor.send(request("/", "Connection: close"))
        assert visitor.read_head().status == 200
        first = visitor.read(100_000)
        threading.Event().wait(0.3)
        assert first + visitor.read(len(body) - 100_000) == body
        visitor.assert_closed()


def test_https_route_to_the_servers_own_upstream_says_https(pair: Pair, visit_tls: Visit) -> None:
    seen: list[Message] = []

    def handle(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response())

    with ScriptedUpstream(serving(handle)) as upstream:
        pair.server.set_route(RouteKind.HTTP, "tun.test", Site(upstream=upstream.upstream()))
        pair.publish()
        visitor = visit_tls("tun.test")
        visitor.send(request("/", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: http", host="tun.test"))
        assert visitor.read_response().body == b"hello"
    assert seen[0].one("X-Forwarded-For") == "127.0.0.1" and seen[0].one("X-Forwarded-Proto") == "https"
