"""Links between nodes: visitors who came to one node reach a tunnel whose links are at another."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes._fastpath.engine import Engine, EngineError, EventKind, ListenerKind, RouteKind, Site, Upstream
from tests.support.engines import DOMAIN, PIN, eventually, listening, publish, wait_events
from tests.support.frames import FrameType, Service, accept_peer, frame, listening_peer, open_payload
from tests.support.http_wire import Message, ScriptedUpstream, Wire, request, response, serving
from tests.support.nodes import Nodes, two_nodes, worker_of
from tests.support.upstreams import connect, echo, exchange_bytes, is_refused, pattern, tcp_upstream

HOST = "a.tun.test"


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    with two_nodes(workers=request.param) as joined:
        yield joined
        joined.assert_idle()


def echoing(port: int) -> socket.socket | None:
    """A conn with an echo service behind it; None: refused."""
    try:
        sock = connect(port)
        sock.sendall(b"x")
        if sock.recv(1) == b"x":
            return sock
    except ConnectionError:
        return None
    sock.close()
    return None


def serves(port: int) -> bool:
    sock = echoing(port)
    if sock is not None:
        sock.close()
    return sock is not None


def http(port: int) -> Wire:
    return Wire(socket.create_connection(("127.0.0.1", port), timeout=20))


# --- what is carried -----------------------------------------------------------------------------------------------


def test_requests_reach_the_client_of_the_other_node_and_share_a_stream(nodes: Nodes) -> None:
    seen: list[Message] = []

    def answer(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(asked.body[::-1]))

    with ScriptedUpstream(serving(answer)) as upstream:
        nodes.serve_http(HOST, upstream.upstream())
        wire = http(nodes.ports["http"])
        opened = nodes.front.stats()["streams_total"]
        for body in (b"first", os.urandom(3_000_000), b""):
            wire.send(request("/", "X-Forwarded-For: 6.6.6.6", method="POST", body=body, host=HOST))
            assert wire.read_response().body == body[::-1]
        assert nodes.front.stats()["streams_total"] == opened + 1
        wire.close()
    assert {asked.one("X-Forwarded-For") for asked in seen} == {"127.0.0.1"}
    assert {asked.one("X-Forwarded-Proto") for asked in seen} == {"http"}
    assert {asked.one("Via") for asked in seen} == {"1.1 front"}        # once: the other node passes it on as it is


def test_requests_of_one_visitor_for_tunnels_at_both_nodes_are_told_apart(nodes: Nodes) -> None:
    other = nodes.front.open_tunnel()               # at neither
    with ScriptedUpstream(serving(lambda wire, asked: wire.send(response(b"there")))) as upstream:
        nodes.serve_http(HOST, upstream.upstream())
        nodes.front.set_route(RouteKind.HTTP, f"b.{DOMAIN}", Site(tunnels=(other,)))
        publish(nodes.front)
        wire = http(nodes.ports["http"])
        for host, status in ((HOST, 200), (f"b.{DOMAIN}", 503), (HOST, 200)):
            wire.send(request("/", host=host))
            assert wire.read_response().status == status
        wire.close()


def test_visitors_over_tls_are_told_of_as_such(nodes: Nodes) -> None:
    seen: list[Message] = []

    def answer(wire: Wire, asked: Message) -> None:
        seen.append(asked)
        wire.send(response(b"ok"))

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ScriptedUpstream(serving(answer)) as upstream:
        nodes.serve_http(HOST, upstream.upstream())
        wire = Wire(context.wrap_socket(connect(nodes.ports["tls"]), server_hostname=HOST))
        wire.send(request("/", host=HOST))
        assert wire.read_response().body == b"ok"
        wire.close()
    assert seen[0].one("X-Forwarded-Proto") == "https"


def test_raw_bytes_go_both_ways_with_half_close(nodes: Nodes) -> None:
    def digest(conn: socket.socket) -> None:
        found = hashlib.sha256()
        while part := conn.recv(65536):
            found.update(part)
            conn.sendall(part)
        conn.sendall(found.digest())

    sent = os.urandom(5_000_000)
    with tcp_upstream(digest) as upstream, ThreadPoolExecutor(1) as pool:
        port = nodes.serve_tcp(upstream.upstream)
        with connect(port) as visitor:
            def send() -> None:
                visitor.sendall(sent)
                visitor.shutdown(socket.SHUT_WR)

            sending = pool.submit(send)
            got = bytearray()
            while part := visitor.recv(1 << 20):
                got += part
            sending.result()
    assert got == sent + hashlib.sha256(sent).digest()


def test_visitors_of_every_worker_reach_every_worker(nodes: Nodes) -> None:
    with tcp_upstream(echo) as upstream, ThreadPoolExecutor(16) as pool:
        port = nodes.serve_tcp(upstream.upstream)
        sent = [pattern(1000 + 100 * number, seed=number) for number in range(100)]
        assert list(pool.map(lambda data: exchange_bytes(port, data), sent)) == sent


def test_tls_that_ends_at_the_client_is_passed_on_untouched(nodes: Nodes) -> None:
    seen: list[bytes] = []

    def greet(conn: socket.socket) -> None:
        seen.append(conn.recv(65536))
        conn.sendall(b"\x15\x03\x03\x00\x02\x02\x28")           # an alert: handshake failure

    with tcp_upstream(greet) as upstream:
        for engine, site in ((nodes.front, Site(tunnels=(nodes.tunnel,))),
                             (nodes.back, Site(tunnels=(nodes.pair.server_tunnel,))),
                             (nodes.pair.client, Site(upstream=upstream.upstream))):
            engine.set_route(RouteKind.TLS, "passed.test", site)
            publish(engine)
        context = ssl.create_default_context()
        with connect(nodes.ports["tls"]) as sock, pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            context.wrap_socket(sock, server_hostname="passed.test")
    assert b"passed.test" in seen[0]


def test_datagrams_go_both_ways(nodes: Nodes) -> None:
    service = listening(socket.SOCK_DGRAM)
    service.setblocking(True)
    service.settimeout(20)
    port = nodes.serve_tcp(Upstream(addresses=[service.getsockname()]), ListenerKind.UDP)
    with service, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
        visitor.settimeout(20)
        for payload in (b"one", os.urandom(1400), b""):
            visitor.sendto(payload, ("127.0.0.1", port))
            got, peer = service.recvfrom(65536)
            assert got == payload
            service.sendto(got[::-1], peer)
            assert visitor.recv(65536) == payload[::-1]
        eventually(lambda: nodes.front.stats()["streams_open"] == 1)
        nodes.front.set_via(nodes.tunnel)
        for link, _ in nodes.links:
            nodes.front.close_link(link)


# --- which way ------------------------------------------------------------------------------------------------------


def test_a_tunnels_own_links_go_before_those_of_a_node() -> None:
    with two_nodes(workers=2) as nodes, ScriptedUpstream(serving(
        lambda wire, asked: wire.send(response(b"there"))
    )) as upstream, ScriptedUpstream(serving(lambda wire, asked: wire.send(response(b"here")))) as own:
        nodes.serve_http(HOST, upstream.upstream())
        client = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=False)
        client.start()
        try:
            client.set_route(RouteKind.HTTP, HOST, Site(upstream=own.upstream()))
            publish(client)
            tunnel = client.open_tunnel()
            dialled = client.connect_link("127.0.0.1", nodes.ports["tls"], server_name=DOMAIN, pin_sha256=PIN)
            link = wait_events(nodes.front, lambda event: event.kind == EventKind.LINK_UP).link
            wait_events(client, lambda event: event.kind == EventKind.LINK_UP)
            kept = http(nodes.ports["http"])
            kept.send(request("/", host=HOST))
            assert kept.read_response().body == b"there"
            client.bind_link(dialled, tunnel)
            nodes.front.bind_link(link, nodes.tunnel)
            eventually(lambda: nodes.front.tunnel_counters(nodes.tunnel)[3] > 0)
            for _ in range(20):
                wire = http(nodes.ports["http"])
                wire.send(request("/", host=HOST))
                assert wire.read_response().body == b"here"
                wire.close()
            kept.send(request("/", host=HOST))      # and a visitor who went there before goes there no more
            assert kept.read_response().body == b"here"
            kept.close()
        finally:
            client.stop()


def test_a_link_between_nodes_comes_to_the_worker_that_it_asks_for() -> None:
    with two_nodes(workers=3, linked=False) as nodes:
        nodes.link_all()                            # each link asserts where it has come to
        assert len(nodes.links) == 9


def test_a_worker_that_is_not_there_is_any() -> None:
    with two_nodes(linked=False) as nodes:
        nodes.front.connect_link("127.0.0.1", nodes.pair.ports["tls"], server_name=DOMAIN,
                                 pin_sha256=PIN, peer_worker=7)
        accepted = wait_events(nodes.back, lambda event: event.kind == EventKind.LINK_UP).link
        assert worker_of(accepted) == 0


def test_nobodys_visitor_goes_through_a_third_node() -> None:
    """A stream from a node for a tunnel that is elsewhere still is refused, whatever hops it claims."""
    with two_nodes() as nodes, listening_peer() as listener:
        nodes.back.set_via(nodes.pair.server_tunnel, nodes.at_back, 1)
        nodes.pair.client.close_link(nodes.pair.client_link)
        wait_events(nodes.back, lambda event: event.kind == EventKind.LINK_DOWN)
        link = nodes.back.connect_link("127.0.0.1", listener.getsockname()[1], server_name=DOMAIN, pin_sha256=PIN)
        peer = accept_peer(listener)
        wait_events(nodes.back, lambda event: event.kind == EventKind.LINK_UP and event.link == link)
        third = nodes.back.open_node()
        nodes.back.bind_link(link, nodes.back.node_worker(third, 0))
        nodes.back.set_route(RouteKind.TCP, 7, Site(tunnels=(nodes.pair.server_tunnel,)))
        nodes.back.set_route(RouteKind.HTTP, HOST, Site(tunnels=(nodes.pair.server_tunnel,)))
        publish(nodes.back)
        peer.send(frame(FrameType.OPEN, 2, open_payload(Service.TCP, 7)))
        assert peer.read(FrameType.RESET).stream == 2
        peer.send(frame(FrameType.OPEN, 4, open_payload(Service.HTTP, 80)),
                  frame(FrameType.DATA, 4, request("/", "Connection: close", host=HOST)))
        assert peer.read(FrameType.DATA).payload.startswith(b"HTTP/1.1 503 ")
        peer.close()


def test_visitors_of_a_tunnel_that_is_nowhere_are_told_so(nodes: Nodes) -> None:
    nodes.front.set_via(nodes.tunnel)
    nodes.front.set_route(RouteKind.HTTP, HOST, Site(tunnels=(nodes.tunnel,)))
    port = nodes.listen("raw", ListenerKind.TCP)
    nodes.front.set_route(RouteKind.TCP, port, Site(tunnels=(nodes.tunnel,)))
    publish(nodes.front)
    wire = http(nodes.ports["http"])
    wire.send(request("/", host=HOST))
    assert wire.read_response().status == 503
    wire.close()
    assert is_refused(port)


def test_streams_end_with_the_link_between_nodes_and_new_ones_take_another() -> None:
    with two_nodes(workers=2) as nodes, tcp_upstream(echo) as upstream:
        port = nodes.serve_tcp(upstream.upstream)
        asked = worker_of(nodes.pair.server_link)
        with connect(port) as visitor:
            visitor.sendall(b"x")
            assert visitor.recv(1) == b"x"
            lost = [link for link, accepted in nodes.links if worker_of(accepted) == asked]
            nodes.front.abort_link(lost[0])
            nodes.front.abort_link(lost[1])
            visitor.settimeout(20)
            with pytest.raises(ConnectionResetError):
                visitor.recv(1)
        wait_events(nodes.back, lambda event: event.kind == EventKind.LINK_DOWN)
        nodes.link(0, asked)
        data = pattern(100_000)
        eventually(lambda: serves(port))            # until the other worker knows of the new link
        for _ in range(10):                         # the one link that is left there serves visitors of both workers
            assert exchange_bytes(port, data) == data
        nodes.assert_idle()


# --- what it is counted for -----------------------------------------------------------------------------------------


def test_traffic_counts_for_the_service_where_the_visitor_came_in() -> None:
    with two_nodes() as nodes, ScriptedUpstream(serving(
        lambda wire, asked: wire.send(response(bytes(100_000)))
    )) as upstream:
        here = nodes.front.open_service(nodes.tunnel)
        there = nodes.back.open_service(nodes.pair.server_tunnel)
        nodes.serve_http(HOST, upstream.upstream(), service=here)
        nodes.back.set_route(RouteKind.HTTP, HOST, Site(tunnels=(nodes.pair.server_tunnel,), service=there))
        publish(nodes.back)
        wire = http(nodes.ports["http"])
        wire.send(request("/", host=HOST))
        assert len(wire.read_response().body) == 100_000
        wire.close()
        eventually(lambda: nodes.front.service_counters(here)[4] == 0)
        assert nodes.front.service_counters(here)[1] > 100_000
        assert nodes.front.service_counters(here)[3] == 1
        assert nodes.back.service_counters(there) == (0, 0, 0, 0, 0)


def test_a_tunnels_limit_holds_for_streams_through_a_node() -> None:
    with two_nodes(tunnel_stream_count_max=4) as nodes, tcp_upstream(echo) as upstream:
        port = nodes.serve_tcp(upstream.upstream)
        held = [sock for sock in [echoing(port) for _ in range(8)] if sock is not None]
        assert 0 < len(held) < 4        # of the last quarter one address gets what stays free for others
        for sock in held:
            sock.close()
        nodes.assert_idle()


# --- what is refused -------------------------------------------------------------------------------------------------


def test_calls_that_name_nothing_are_refused() -> None:
    with two_nodes(linked=False) as nodes:
        front = nodes.front
        with pytest.raises(EngineError):
            front.node_worker(99, 0)
        with pytest.raises(EngineError):
            front.node_worker(nodes.at_front, 56)
        with pytest.raises(EngineError):
            front.set_via(nodes.tunnel, 99, 1)
        with pytest.raises(EngineError):
            front.set_via(nodes.tunnel, nodes.at_front, 0)
        with pytest.raises(EngineError):
            front.set_via(nodes.tunnel, nodes.at_front, 1 << 56)
        with pytest.raises(EngineError):
            front.connect_link("127.0.0.1", 1, server_name=DOMAIN, worker=9)
        with pytest.raises(EngineError):
            nodes.pair.client.open_node()
        front.close_node(nodes.at_front)
        with pytest.raises(EngineError):
            front.close_node(nodes.at_front)
        assert [front.open_node() for _ in range(255)] == list(range(1, 256))
        with pytest.raises(EngineError):
            front.open_node()
