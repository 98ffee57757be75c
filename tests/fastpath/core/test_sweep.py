"""What was removed does not stay open: services and upstreams that are ended, at once or later, and what goes on."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from spokes._fastpath.engine import ListenerKind, RouteKind, Site, Upstream
from spokes.errors import EngineError
from tests.fastpath.flow.test_exchange_upgrade import ASK, echo_after_switch
from tests.fastpath.flow.test_udp import udp_echo, udp_socket
from tests.support.engines import Pair, engine_pair, eventually, publish
from tests.support.http_wire import ScriptedUpstream, Wire, answering, request, response
from tests.support.upstreams import echo, tcp_upstream

Visit = Callable[[], Wire]
FAR_S = 3600.0


def serve_http(pair: Pair, host: str, upstream: Upstream) -> int:
    service = pair.server.open_service(pair.server_tunnel)
    pair.server.set_route(RouteKind.HTTP, host, Site(tunnels=(pair.server_tunnel,), service=service))
    pair.client.set_route(RouteKind.HTTP, host, Site(upstream=upstream))
    pair.publish()
    return service


def serve_port(pair: Pair, upstream: Upstream, kind: ListenerKind = ListenerKind.TCP) -> tuple[int, int]:
    """(port, service)"""
    route = RouteKind.UDP if kind is ListenerKind.UDP else RouteKind.TCP
    port = pair.serve_tcp("port", upstream, kind)
    service = pair.server.open_service(pair.server_tunnel)
    pair.server.set_route(route, port, Site(tunnels=(pair.server_tunnel,), service=service))
    pair.publish()
    return port, service


def remove(pair: Pair, kind: RouteKind, key: str | int, service: int, **more: float) -> None:
    pair.server.drop_route(kind, key)
    publish(pair.server)
    pair.server.end_service(service, **more)


def stop_serving(pair: Pair, kind: RouteKind, key: str | int, upstream: Upstream, **more: float) -> None:
    pair.client.drop_route(kind, key)
    publish(pair.client)
    pair.client.end_upstream(upstream, **more)


def assert_cut(sock: socket.socket) -> None:
    sock.settimeout(5)
    with contextlib.suppress(ConnectionResetError):
        assert sock.recv(100) == b""


def say(sock: socket.socket, data: bytes) -> None:
    sock.settimeout(5)
    sock.sendall(data)
    assert sock.recv(100) == data


def open_websocket(visitor: Wire) -> None:
    visitor.send(ASK)
    assert visitor.read_response().status == 101
    say(visitor.sock, b"hello")


@contextmanager
def cutting_one_of(port: int, other_port: int) -> Iterator[None]:
    """Ends the flow through the first port, and leaves the one through the other alone."""
    with (
        socket.create_connection(("127.0.0.1", port)) as visitor,
        socket.create_connection(("127.0.0.1", other_port)) as other,
    ):
        say(visitor, b"one")
        say(other, b"two")
        yield
        assert_cut(visitor)
        say(other, b"three")


# --- at the server ----------------------------------------------------------------------------------------------------


def test_end_service_cuts_its_tcp_conns_and_no_others():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port, service = serve_port(pair, upstream.upstream)
        other_port, _ = serve_port(pair, upstream.upstream)
        with cutting_one_of(port, other_port):
            remove(pair, RouteKind.TCP, port, service)
        pair.assert_idle()


def test_end_service_cuts_a_websocket(pair: Pair, visit: Visit):
    with ScriptedUpstream(echo_after_switch) as upstream:
        service = serve_http(pair, "a.tun.test", upstream.upstream())
        visitor = visit()
        open_websocket(visitor)
        remove(pair, RouteKind.HTTP, "a.tun.test", service)
        assert_cut(visitor.sock)
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


def test_end_service_request_that_waits_for_its_answer_gets_the_page(pair: Pair, visit: Visit):
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        service = serve_http(pair, "a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        eventually(lambda: pair.client.stats()["upstreams_open"] == 1)
        remove(pair, RouteKind.HTTP, "a.tun.test", service)
        answer = visitor.read_response()
        assert (answer.status, answer.code) == (404, "SPK-UNKNOWN-HOST")
        visitor.send(request())             # the conn goes on, and so does its next request's route
        assert visitor.read_response().code == "SPK-UNKNOWN-HOST"


def test_end_service_response_under_way_is_cut(pair: Pair, visit: Visit):
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin")
        wire.read_to_end()

    with ScriptedUpstream(script) as upstream:
        service = serve_http(pair, "a.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request())
        visitor.read_until(b"begin")
        remove(pair, RouteKind.HTTP, "a.tun.test", service)
        assert_cut(visitor.sock)


def test_end_service_idle_conn_of_its_visitor_goes_on_to_other_sites(pair: Pair, visit: Visit):
    with ScriptedUpstream(answering(response())) as upstream:
        service = serve_http(pair, "a.tun.test", upstream.upstream())
        serve_http(pair, "b.tun.test", upstream.upstream())
        visitor = visit()
        visitor.send(request(host="a.tun.test"))
        assert visitor.read_response().status == 200
        remove(pair, RouteKind.HTTP, "a.tun.test", service)
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        visitor.send(request(host="b.tun.test"))
        assert visitor.read_response().status == 200


def test_end_service_of_datagrams_ends_their_peers():
    with engine_pair() as pair, udp_echo() as upstream, udp_socket() as visitor:
        port, service = serve_port(pair, Upstream(addresses=[upstream.getsockname()]), ListenerKind.UDP)
        visitor.connect(("127.0.0.1", port))
        visitor.send(b"x")
        assert visitor.recv(10) == b"x"
        remove(pair, RouteKind.UDP, port, service)
        pair.assert_idle()


def test_end_service_later_lets_it_go_on_till_then():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port, service = serve_port(pair, upstream.upstream)
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            say(visitor, b"one")
            remove(pair, RouteKind.TCP, port, service, after_s=FAR_S)
            say(visitor, b"two")
            pair.server.end_service(service, after_s=0.2)   # said again, the last word counts
            say(visitor, b"three")
            assert_cut(visitor)
        pair.assert_idle()


def test_end_service_of_many_conns_ends_them_all():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port, service = serve_port(pair, upstream.upstream)
        visitors = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        eventually(lambda: pair.server.service_counters(service)[4] == 300)
        remove(pair, RouteKind.TCP, port, service)
        for visitor in visitors:
            assert_cut(visitor)
            visitor.close()
        pair.assert_idle()


@pytest.mark.parametrize("after_s", [-1.0, 86_401.0, float("nan")])
def test_end_service_time_that_is_none_is_refused(after_s):
    with engine_pair() as pair:
        service = pair.server.open_service(pair.server_tunnel)
        with pytest.raises(EngineError):
            pair.server.end_service(service, after_s=after_s)


# --- at the client ----------------------------------------------------------------------------------------------------


def test_end_upstream_cuts_its_tcp_conns_and_no_others():
    with engine_pair() as pair, tcp_upstream(echo) as running:
        where = ("127.0.0.1", running.port)
        upstream, other_upstream = Upstream(addresses=[where]), Upstream(addresses=[where])
        port, _ = serve_port(pair, upstream)
        other_port, _ = serve_port(pair, other_upstream)
        with cutting_one_of(port, other_port):
            stop_serving(pair, RouteKind.TCP, port, upstream)
        pair.assert_idle()


def test_end_upstream_cuts_a_websocket(pair: Pair, visit: Visit):
    with ScriptedUpstream(echo_after_switch) as scripted:
        upstream = scripted.upstream()
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()
        open_websocket(visitor)
        stop_serving(pair, RouteKind.HTTP, "a.tun.test", upstream)
        assert_cut(visitor.sock)


def test_end_upstream_response_of_which_more_waits_is_cut(pair: Pair, visit: Visit):
    is_full = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        wire.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                wire.sock.send(bytes(65536))
        is_full.set()
        wire.sock.settimeout(5)
        wire.read_to_end()

    with ScriptedUpstream(script) as scripted:
        upstream = scripted.upstream()
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()                   # reads nothing
        visitor.send(request())
        assert is_full.wait(10)
        stop_serving(pair, RouteKind.HTTP, "a.tun.test", upstream)
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


def test_end_upstream_request_on_a_reused_conn_is_not_sent_again(pair: Pair, visit: Visit):
    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(response())
        wire.read_request()
        wire.read_to_end()

    with ScriptedUpstream(script) as scripted:
        upstream = scripted.upstream()
        pair.serve_http("a.tun.test", upstream)
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().status == 200
        visitor.send(request())
        eventually(lambda: pair.client.stats()["upstreams_idle"] == 0)
        stop_serving(pair, RouteKind.HTTP, "a.tun.test", upstream)
        assert visitor.read_response().status in (404, 502)
        assert len(scripted.conns) == 1
        eventually(lambda: pair.client.stats()["upstreams_open"] == 0)


def test_retire_upstream_closes_idle_conns_and_lets_a_websocket_go_on(pair: Pair, visit: Visit):
    with ScriptedUpstream(answering(response())) as plain, ScriptedUpstream(echo_after_switch) as switching:
        first, second = plain.upstream(), switching.upstream()
        pair.serve_http("a.tun.test", first)
        pair.serve_http("b.tun.test", second)
        visitor = visit()
        visitor.send(request())
        assert visitor.read_response().status == 200
        talker = visit()
        talker.send(ASK.replace(b"a.tun.test", b"b.tun.test"))
        assert talker.read_response().status == 101
        assert pair.client.stats()["upstreams_idle"] == 1
        pair.client.retire_upstream(first)
        pair.client.retire_upstream(second)
        eventually(lambda: pair.client.stats()["upstreams_idle"] == 0)
        say(talker.sock, b"still here")
        visitor.send(request())             # the route was left in place: served, and its conn not kept
        assert visitor.read_response().status == 200
        eventually(lambda: pair.client.stats()["upstreams_open"] == 1)


def test_retire_upstream_flow_of_datagrams_begins_anew_at_the_new_place():
    with engine_pair() as pair, udp_echo() as old, udp_socket() as new, udp_socket() as visitor:
        upstream = Upstream(addresses=[old.getsockname()])
        port = pair.serve_tcp("udp", upstream, ListenerKind.UDP)
        visitor.connect(("127.0.0.1", port))
        visitor.send(b"x")
        assert visitor.recv(10) == b"x"
        pair.client.set_route(RouteKind.UDP, port, Site(upstream=Upstream(addresses=[new.getsockname()])))
        publish(pair.client)
        pair.client.retire_upstream(upstream)
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        visitor.send(b"y")
        assert new.recv(10) == b"y"
        pair.server.abort_link(pair.server_link)
        pair.assert_idle()


def test_sweeps_in_quick_succession_all_take_effect():
    """A look that has just been made is followed by another one."""
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        ports = [serve_port(pair, upstream.upstream) for _ in range(8)]
        visitors = [socket.create_connection(("127.0.0.1", port)) for port, _ in ports]
        for visitor in visitors:
            say(visitor, b"x")
        for port, service in ports:
            remove(pair, RouteKind.TCP, port, service)
        for visitor in visitors:
            assert_cut(visitor)
            visitor.close()
        pair.assert_idle()
