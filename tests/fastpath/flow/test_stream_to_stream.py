"""Three engines in a row: a visitor's stream arrives at the middle one and goes on as a stream to the client."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator

import pytest

from spokes._fastpath.engine import Engine, EventKind, ListenerKind, RouteKind, Site
from tests.support.engines import (
    CHAIN_PEM,
    DOMAIN,
    KEY_PEM,
    PIN,
    Pair,
    engine_pair,
    eventually,
    listening,
    publish,
    terminate,
    wait_events,
)
from tests.support.frames import FramePeer, FrameType, Service, accept_peer, frame, listening_peer, open_payload
from tests.support.http_wire import Message, ScriptedUpstream, Wire, request, response, serving
from tests.support.upstreams import tcp_upstream

HOST = "a.tun.test"


class Row:
    """`front` has the visitors' sockets; `pair.server` is the middle, which front's link reaches."""

    def __init__(self, pair: Pair, *, brings_visitors: bool) -> None:
        self.pair = pair
        self.brings_visitors = brings_visitors
        self.front = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=True)
        self.front.set_link_certificate(terminate(self.front, [DOMAIN], CHAIN_PEM, KEY_PEM))
        self.front.start()
        self.tunnel = self.front.open_tunnel()
        port = self.listen(ListenerKind.TLS)
        publish(self.front)
        middle = pair.server
        dialled = middle.connect_link("127.0.0.1", port, server_name=DOMAIN, pin_sha256=PIN,
                                      brings_visitors=brings_visitors)
        wait_events(middle, lambda event: event.kind == EventKind.LINK_UP and event.link == dialled)
        link = wait_events(self.front, lambda event: event.kind == EventKind.LINK_UP).link
        self.front.bind_link(link, self.tunnel)
        middle.bind_link(dialled, middle.open_tunnel())
        eventually(lambda: self.front.tunnel_counters(self.tunnel)[3] > 0)

    def listen(self, kind: ListenerKind, sock: socket.socket | None = None) -> int:
        sock = sock or listening()
        port: int = sock.getsockname()[1]
        self.front.add_listener(kind, sock.detach(), worker=0, port=port)
        return port


@pytest.fixture(params=[True, False], ids=["brings visitors", "passes on"])
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    with engine_pair(via=b"middle") as pair:
        joined = Row(pair, brings_visitors=request.param)
        try:
            yield joined
            pair.assert_idle()
            eventually(lambda: joined.front.stats()["streams_open"] == 0)
        finally:
            joined.front.stop()


def test_requests_go_from_stream_to_stream(row: Row) -> None:
    seen: list[Message] = []

    def answer(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(asked.body[::-1]))

    with ScriptedUpstream(serving(answer)) as upstream:
        row.pair.serve_http(HOST, upstream.upstream())
        row.front.set_route(RouteKind.HTTP, HOST, Site(tunnels=(row.tunnel,)))
        port = row.listen(ListenerKind.HTTP)
        publish(row.front)
        wire = Wire(socket.create_connection(("127.0.0.1", port)))
        body = os.urandom(3_000_000)
        for sent in (b"first", body, b""):
            wire.send(request("/", method="POST", body=sent))
            assert wire.read_response().body == sent[::-1]
        wire.close()
    via = [line for asked in seen for line in asked.all("Via")]
    facing = row.brings_visitors
    assert any("middle" in line for line in via) == facing


def test_raw_bytes_go_from_stream_to_stream_both_ways(row: Row) -> None:
    def echo(conn: socket.socket) -> None:
        digest = hashlib.sha256()
        while part := conn.recv(65536):
            digest.update(part)
            conn.sendall(part)
        conn.sendall(digest.digest())

    sent = os.urandom(5_000_000)
    with tcp_upstream(echo) as upstream:
        sock = listening()
        port = sock.getsockname()[1]
        middle, client = row.pair.server, row.pair.client
        row.front.set_route(RouteKind.TCP, port, Site(tunnels=(row.tunnel,)))
        middle.set_route(RouteKind.TCP, port, Site(tunnels=(row.pair.server_tunnel,)))
        client.set_route(RouteKind.TCP, port, Site(upstream=upstream.upstream))
        for engine in (row.front, middle, client):
            publish(engine)
        row.listen(ListenerKind.TCP, sock)
        visitor = socket.create_connection(("127.0.0.1", port), timeout=20)
        got = bytearray()
        for start in range(0, len(sent), 250_000):
            visitor.sendall(sent[start:start + 250_000])
            while len(got) < start + 250_000:
                got += visitor.recv(1 << 20)
        visitor.shutdown(socket.SHUT_WR)
        while part := visitor.recv(65536):
            got += part
        assert got == sent + hashlib.sha256(sent).digest()
        visitor.close()


def test_stream_without_a_client_behind_the_middle_is_refused(row: Row) -> None:
    sock = listening()
    port = sock.getsockname()[1]
    row.front.set_route(RouteKind.TCP, port, Site(tunnels=(row.tunnel,)))
    row.pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(row.pair.server.open_tunnel(),)))
    publish(row.front)
    publish(row.pair.server)
    row.listen(ListenerKind.TCP, sock)
    with pytest.raises(ConnectionResetError), socket.socket() as visitor:
        visitor.settimeout(20)
        visitor.connect(("127.0.0.1", port))    # the reset may come before it returns
        visitor.recv(1)


# --- visitors who came elsewhere --------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[tuple[Pair, FramePeer]]:
    """A middle, and by hand the end that its visitors came to."""
    with engine_pair() as pair, listening_peer() as listener:
        middle = pair.server
        link = middle.connect_link("127.0.0.1", listener.getsockname()[1], server_name=DOMAIN, pin_sha256=PIN,
                                   brings_visitors=True)
        peer = accept_peer(listener)
        wait_events(middle, lambda event: event.kind == EventKind.LINK_UP and event.link == link)
        middle.bind_link(link, middle.open_tunnel())
        yield pair, peer
        peer.close()
        pair.assert_idle()


def open_by(visitor_flags: int) -> bytes:
    return frame(FrameType.OPEN, 2, open_payload(Service.HTTP, 80, flags=visitor_flags))


def answer_of(peer: FramePeer) -> bytes:
    """What comes back until its end."""
    got = b""
    while (one := peer.read(FrameType.DATA, FrameType.FIN, FrameType.RESET)).type == FrameType.DATA:
        got += one.payload
    return got


@pytest.mark.parametrize(("flags", "scheme"), [(0, "http"), (1, "https")])
def test_visitor_who_came_elsewhere_is_told_of_as_one_who_came_here(elsewhere, flags: int, scheme: str) -> None:
    pair, peer = elsewhere
    seen: list[Message] = []

    def answer(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(b"ok"))

    with ScriptedUpstream(serving(answer)) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        forged = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: evil.test",
                  "X-Real-IP: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "Connection: close")
        peer.send(open_by(flags), frame(FrameType.DATA, 2, request("/", *forged, host=HOST)))
        assert answer_of(peer).startswith(b"HTTP/1.1 200 ")
    told = {name: seen[0].one(f"X-Forwarded-{name}") for name in ("For", "Proto", "Host")}
    assert told == {"For": "192.0.2.7", "Proto": scheme, "Host": HOST}
    assert seen[0].one("X-Real-IP") == "192.0.2.7"
    assert not seen[0].all("X_Forwarded_For")


def test_visitor_who_came_elsewhere_has_as_long_for_a_head_as_one_who_came_here(elsewhere) -> None:
    pair, peer = elsewhere
    with ScriptedUpstream(serving(lambda wire, _: wire.send(response(b"ok")))) as upstream:
        pair.serve_http(HOST, upstream.upstream())
        peer.sock.settimeout(30)
        peer.send(open_by(0), frame(FrameType.DATA, 2, b"GET / HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nX: "))
        assert answer_of(peer).startswith(b"HTTP/1.1 408 ")
