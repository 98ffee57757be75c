"""Services: what each route carried, beside its tunnel's sum, and a record of every visitor's conn that came to it."""

from __future__ import annotations

import socket

import pytest

from spokes._fastpath.bindings import slots
from spokes._fastpath.engine import Engine, ListenerKind, RouteKind, Site, Upstream
from spokes.errors import EngineError
from tests.support.engines import Pair, engine_pair, eventually, publish
from tests.support.http_wire import ScriptedUpstream, Wire, answering, request, response
from tests.support.upstreams import echo, exchange_bytes, tcp_upstream


def serve_http(pair: Pair, host: str, upstream) -> int:
    """As Pair.serve_http, with a service of its own."""
    service = pair.server.open_service(pair.server_tunnel)
    pair.server.set_route(RouteKind.HTTP, host, Site(tunnels=(pair.server_tunnel,), service=service))
    pair.client.set_route(RouteKind.HTTP, host, Site(upstream=upstream))
    pair.publish()
    return service


def bytes_of(pair: Pair, service: int) -> tuple[int, int]:
    return pair.server.service_counters(service)[:2]


def end_visits(pair: Pair) -> list[tuple]:
    eventually(lambda: pair.server.stats()["streams_open"] == 0)
    return pair.server.drain_access_records()


def test_service_two_sites_of_one_visitor_are_counted_apart_and_add_up_to_their_tunnel():
    with (
        engine_pair(access_record_count_max=64) as pair,
        ScriptedUpstream(answering(response(b"a" * 1000))) as first,
        ScriptedUpstream(answering(response(b"b" * 50_000))) as second,
    ):
        one = serve_http(pair, "a.tun.test", first.upstream())
        two = serve_http(pair, "b.tun.test", second.upstream())
        visitor = Wire(socket.create_connection(("127.0.0.1", pair.ports["http"])))
        with visitor:
            for host in ("a.tun.test", "b.tun.test", "b.tun.test", "a.tun.test"):
                visitor.send(request(host=host))
                visitor.read_response()
        visits = end_visits(pair)
        (one_in, one_out, one_streams, one_requests, one_open) = pair.server.service_counters(one)
        (two_in, two_out, two_streams, two_requests, two_open) = pair.server.service_counters(two)
        assert 2000 <= one_out < 4000
        assert 100_000 <= two_out < 103_000
        assert (one_streams, one_requests, one_open) == (2, 2, 0)
        assert (two_streams, two_requests, two_open) == (1, 2, 0)
        assert pair.server.tunnel_counters(pair.server_tunnel)[:2] == (one_in + two_in, one_out + two_out)
        assert [visit[0] for visit in visits] == [one, two, one]
        assert {visit[1] for visit in visits} == {"127.0.0.1"}
        assert sum(visit[3] for visit in visits if visit[0] == one) == one_out
        assert sum(visit[2] for visit in visits if visit[0] == two) == two_in
        assert all(begin <= end for *_, begin, end in visits)
        assert pair.server.drain_access_records() == []


def test_service_traffic_is_taken_once():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        assert pair.server.take_traffic() == []
        taken: list[tuple[int, int, int, int]] = []
        assert exchange_bytes(port, b"x" * 5000) == b"x" * 5000
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        taken += pair.server.take_traffic()
        assert taken == [(service, 5000, 5000, 1)]
        assert pair.server.take_traffic() == []
        assert exchange_bytes(port, b"y") == b"y"
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        assert pair.server.take_traffic() == [(service, 1, 1, 1)]


def test_service_datagrams_are_counted_and_their_peer_is_a_visit():
    with engine_pair(access_record_count_max=64) as pair, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answerer:
        answerer.bind(("127.0.0.1", 0))
        upstream = Upstream(addresses=[answerer.getsockname()])
        port = pair.serve_tcp("udp", upstream, ListenerKind.UDP)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.UDP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        eventually(lambda: pair.server.tunnel_counters(pair.server_tunnel)[3] > 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
            answerer.settimeout(5)
            visitor.settimeout(5)
            visitor.sendto(b"question", ("127.0.0.1", port))
            question, source = answerer.recvfrom(100)
            answerer.sendto(question + b" answered", source)
            assert visitor.recv(100) == b"question answered"
        assert bytes_of(pair, service) == (8, 17)
        pair.server.abort_link(pair.server_link)
        ((visited, address, bytes_in, bytes_out, _, _),) = end_visits(pair)
        assert (visited, address, bytes_in, bytes_out) == (service, "127.0.0.1", 8, 17)


def test_service_just_closed_is_not_given_again_and_its_bytes_stay_in_its_tunnels_sum(monkeypatch):
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        assert exchange_bytes(port, b"x" * 100) == b"x" * 100
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        pair.server.drop_route(RouteKind.TCP, port)
        publish(pair.server)
        pair.server.close_service(service)
        with pytest.raises(EngineError):
            pair.server.service_counters(service)
        assert pair.server.tunnel_counters(pair.server_tunnel)[:2] == (100, 100)
        monkeypatch.setattr(slots, "QUARANTINE_S", 0.0)
        second = pair.server.open_service(pair.server_tunnel)
        assert second != service
        assert second & 0xFFFFFFFF == service & 0xFFFFFFFF      # the slot is used again
        assert pair.server.service_counters(second) == (0, 0, 0, 0, 0)
        assert pair.server.tunnel_counters(pair.server_tunnel)[:2] == (100, 100)


def test_service_of_a_stream_that_still_runs_is_not_used_again(monkeypatch):
    monkeypatch.setattr(slots, "QUARANTINE_S", 0.0)
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"x")
            assert visitor.recv(1) == b"x"
            pair.server.close_service(service)
            assert pair.server.open_service(pair.server_tunnel) & 0xFFFFFFFF != service & 0xFFFFFFFF
        eventually(lambda: pair.server.stats()["streams_open"] == 0)
        assert pair.server.open_service(pair.server_tunnel) & 0xFFFFFFFF == service & 0xFFFFFFFF


def test_tunnel_slot_used_again_does_not_count_the_services_of_its_forerunner(monkeypatch):
    monkeypatch.setattr(slots, "QUARANTINE_S", 0.0)
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        assert exchange_bytes(port, b"x" * 100) == b"x" * 100
        pair.server.close_tunnel(pair.server_tunnel)
        publish(pair.server)
        pair.server.abort_link(pair.server_link)
        tunnels: list[int] = []
        eventually(lambda: tunnels.append(pair.server.open_tunnel()) or tunnels[-1] == pair.server_tunnel)
        assert pair.server.tunnel_counters(pair.server_tunnel)[:2] == (0, 0)
        assert bytes_of(pair, service) == (100, 100)        # not lost for who has not read it yet


def test_visits_more_than_there_is_room_for_are_dropped_and_counted():
    with engine_pair(access_record_count_max=4) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        for _ in range(7):
            exchange_bytes(port, b"x")
        assert len(end_visits(pair)) == 4
        assert pair.server.stats()["access_records_dropped"] == 3
        exchange_bytes(port, b"x")
        assert len(end_visits(pair)) == 1


def test_visits_of_conns_that_the_stop_ends_are_there_after_it():
    with engine_pair(access_record_count_max=16) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"abc")
            assert visitor.recv(3) == b"abc"
            pair.server.stop()
        assert pair.server.take_traffic() == [(service, 3, 3, 1)]
        assert [visit[:4] for visit in pair.server.drain_access_records()] == [(service, "127.0.0.1", 3, 3)]


def test_visits_are_not_kept_where_nobody_asked_for_them():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        service = pair.server.open_service(pair.server_tunnel)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,), service=service))
        pair.publish()
        exchange_bytes(port, b"x")
        assert end_visits(pair) == []
        assert pair.server.stats()["access_records_dropped"] == 0


def test_service_route_to_one_that_is_closed_is_refused():
    engine = Engine(workers=1, memory_limit_bytes=8 << 20, accepting=True)
    tunnel = engine.open_tunnel()
    service = engine.open_service(tunnel)
    engine.close_service(service)
    for call in (
        lambda: engine.set_route(RouteKind.HTTP, "a.example", Site(tunnels=(tunnel,), service=service)),
        lambda: engine.close_service(service),
        lambda: engine.open_service(tunnel + 1),
    ):
        with pytest.raises(EngineError):
            call()
    engine.stop()
