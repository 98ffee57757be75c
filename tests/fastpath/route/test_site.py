"""A site: one immutable value that a route leads to; several tunnels behind one name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from spokes._fastpath.hooks.route_hooks import live_sites

from spokes._fastpath.engine import Directory, Engine, EventKind, ListenerKind, Policy, RouteKind, Site, Upstream
from spokes.errors import EngineError
from tests.support.engines import DOMAIN, PIN, Pair, engine_pair, eventually, publish, wait_events
from tests.support.http_wire import Message, ScriptedUpstream, Wire, request, response, serving
from tests.support.upstreams import tcp_upstream

HOST = "several.tun.test"


class Second:
    """A second client of the same server, with a tunnel of its own."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.engine = Engine(workers=1, memory_limit_bytes=16 << 20, accepting=False)
        self.engine.start()
        self.tunnel = pair.server.open_tunnel()
        self.link = 0

    def join(self) -> None:
        port = self._pair.ports["tls"]
        dialled = self.engine.connect_link("127.0.0.1", port, server_name=DOMAIN, pin_sha256=PIN)
        wait_events(self.engine, lambda event: event.kind == EventKind.LINK_UP and event.link == dialled)
        self.link = wait_events(self._pair.server, lambda event: event.kind == EventKind.LINK_UP).link
        self._pair.server.bind_link(self.link, self.tunnel)
        self.engine.bind_link(dialled, self.engine.open_tunnel())
        eventually(lambda: self._pair.server.tunnel_counters(self.tunnel)[3] > 0)


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def workers(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def pair(workers: int) -> Iterator[Pair]:
    with engine_pair(workers=workers) as joined:
        yield joined


@pytest.fixture
def second(pair: Pair) -> Iterator[Second]:
    other = Second(pair)
    yield other
    other.engine.stop()


def saying(name: bytes) -> Callable[[Wire, Message], None]:
    return lambda wire, asked: wire.send(response(name))


def ask(pair: Pair) -> Message:
    wire = Wire(socket.create_connection(("127.0.0.1", pair.ports["http"])))
    wire.send(request("/", host=HOST))
    answer = wire.read_response()
    wire.close()
    return answer


def test_tunnels_of_a_site_are_taken_in_their_order_and_the_next_when_one_goes(
    pair: Pair, second: Second, workers: int
) -> None:
    with ScriptedUpstream(serving(saying(b"one"))) as one, ScriptedUpstream(serving(saying(b"two"))) as two:
        pair.client.set_route(RouteKind.HTTP, HOST, Site(upstream=one.upstream()))
        publish(pair.client)
        second.engine.set_route(RouteKind.HTTP, HOST, Site(upstream=two.upstream()))
        publish(second.engine)
        pair.server.set_route(RouteKind.HTTP, HOST, Site(tunnels=(second.tunnel, pair.server_tunnel)))
        publish(pair.server)
        assert ask(pair).body == b"one"  # the first of them has no link yet
        second.join()
        for _ in range(10):
            # With several workers a tunnel goes first that has a link where the visitor is.
            assert ask(pair).body in ((b"two",) if workers == 1 else (b"one", b"two"))
        pair.server.abort_link(second.link)
        eventually(lambda: ask(pair).body == b"one")
        assert {ask(pair).body for _ in range(10)} == {b"one"}


def test_visitor_whose_kept_stream_serves_another_tunnel_of_the_site_keeps_it(pair: Pair, second: Second) -> None:
    with ScriptedUpstream(serving(saying(b"one"))) as one, ScriptedUpstream(serving(saying(b"two"))) as two:
        pair.client.set_route(RouteKind.HTTP, HOST, Site(upstream=one.upstream()))
        publish(pair.client)
        second.engine.set_route(RouteKind.HTTP, HOST, Site(upstream=two.upstream()))
        publish(second.engine)
        pair.server.set_route(RouteKind.HTTP, HOST, Site(tunnels=(second.tunnel, pair.server_tunnel)))
        publish(pair.server)
        wire = Wire(socket.create_connection(("127.0.0.1", pair.ports["http"])))
        wire.send(request("/", host=HOST))
        assert wire.read_response().body == b"one"
        second.join()
        wire.send(request("/", host=HOST))
        assert wire.read_response().body == b"one"
        wire.close()


def test_tunnel_that_closes_leaves_the_others_of_its_site(pair: Pair, second: Second) -> None:
    with ScriptedUpstream(serving(saying(b"one"))) as one:
        pair.client.set_route(RouteKind.HTTP, HOST, Site(upstream=one.upstream()))
        publish(pair.client)
        pair.server.set_route(RouteKind.HTTP, HOST, Site(tunnels=(second.tunnel, pair.server_tunnel)))
        publish(pair.server)
        pair.server.close_tunnel(second.tunnel)
        publish(pair.server)
        assert ask(pair).body == b"one"
        pair.server.drop_route(RouteKind.HTTP, HOST)
        publish(pair.server)
        assert ask(pair).status == 404


def test_raw_visitors_go_to_the_tunnel_that_is_there(pair: Pair, second: Second) -> None:
    def greet(conn: socket.socket) -> None:
        conn.sendall(b"hello")

    with tcp_upstream(greet) as upstream:
        port = pair.listen("raw", ListenerKind.TCP)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(second.tunnel, pair.server_tunnel)))
        pair.client.set_route(RouteKind.TCP, port, Site(upstream=upstream.upstream))
        publish(pair.client)
        publish(pair.server)
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            assert visitor.recv(5) == b"hello"


@pytest.mark.parametrize("site", [
    Site(),
    Site(page="SPK-WELCOME", tunnels=(0,)),
    Site(tunnels=(999,)),
    Site(tunnels=(0,) * 33),
    Site(page="SPK-NO-SUCH-PAGE"),
    Site(upstream=Upstream(), directory=Directory("/")),
    Site(page="SPK-WELCOME", policy=Policy(https_port=70000)),
])
def test_site_that_leads_nowhere_or_to_several_kinds_is_refused(pair: Pair, site: Site) -> None:
    before = live_sites()
    with pytest.raises(EngineError):
        pair.server.set_route(RouteKind.HTTP, HOST, site)
    assert live_sites() == before


def test_site_is_freed_with_the_last_table_that_leads_to_it(pair: Pair) -> None:
    before = live_sites()[0]
    for number in range(100):
        pair.server.set_route(RouteKind.HTTP, f"n{number}.tun.test", Site(page="SPK-WELCOME"))
    publish(pair.server)
    assert live_sites()[0] == before + 100
    for number in range(100):
        pair.server.drop_route(RouteKind.HTTP, f"n{number}.tun.test")
    publish(pair.server)
    eventually(lambda: live_sites()[0] == before)
