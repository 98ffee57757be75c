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
from tests.support.http_wire import Message, ScriptedUpstream, Wire, request, response, serving
from tests.support.upstreams import tcp_upstream

HOST = "a.tun.test"


class Row:
    """`front` has the visitors' sockets; `pair.server` is the middle, which front's link reaches."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.front = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=True)
        self.front.set_link_certificate(terminate(self.front, [DOMAIN], CHAIN_PEM, KEY_PEM))
        self.front.start()
        self.tunnel = self.front.open_tunnel()
        port = self.listen(ListenerKind.TLS)
        publish(self.front)
        middle = pair.server
        dialled = middle.connect_link("127.0.0.1", port, server_name=DOMAIN, pin_sha256=PIN)
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


@pytest.fixture
def row() -> Iterator[Row]:
    with engine_pair(via=b"middle") as pair:
        joined = Row(pair)
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
    assert not any("middle" in line for line in via)        # it passes on what was looked at before


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
