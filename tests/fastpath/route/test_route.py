"""Routes and tunnel slots through the engine's own words: what is set is found, what is dropped is gone."""

from __future__ import annotations

import random

import pytest
from spokes._fastpath.hooks.route_hooks import DraftedRoutes

from spokes._fastpath.bindings import slots
from spokes._fastpath.engine import Engine, RouteKind, Site, Upstream
from spokes.errors import EngineError
from tests.support.engines import engine_pair, eventually, publish
from tests.support.upstreams import echo, exchange_bytes, is_refused, tcp_upstream


def test_route_table_of_thousands_of_names_still_finds_a_port():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        for number in range(5000):
            pair.server.set_route(RouteKind.HTTP, f"n{number}.example", Site(tunnels=(pair.server_tunnel,)))
            pair.client.set_route(RouteKind.TCP, 1 + number, Site(upstream=upstream.upstream))
        pair.client.set_route(RouteKind.TCP, port, Site(upstream=upstream.upstream))
        pair.publish()
        assert exchange_bytes(port, b"found") == b"found"
        pair.server.drop_route(RouteKind.TCP, port)
        publish(pair.server)
        eventually(lambda: is_refused(port))
        pair.assert_idle()


def test_route_published_again_and_again_under_traffic_stays_right():
    with engine_pair(workers=2) as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        for number in range(200):
            there = Upstream(addresses=[("127.0.0.1", upstream.port)])
            pair.client.set_route(RouteKind.TCP, port, Site(upstream=there))
            pair.publish()
            if number % 10 == 0:
                assert exchange_bytes(port, b"x") == b"x"
        pair.assert_idle()


@pytest.mark.parametrize("seed", range(5))
def test_route_tables_every_published_one_stays_what_it_was(seed):
    """Against dicts: puts, replacements and drops, with three tables in use at a time."""
    chance = random.Random(seed)
    drafted, expected, published = DraftedRoutes(), {}, []
    for _ in range(60):
        for _ in range(chance.choice((0, 1, 40))):
            key = (chance.choice((1, 3)), b"n%d" % chance.randrange(600))
            if chance.random() < 0.7:
                expected[key] = chance.randrange(256)
                drafted.put(*key, expected[key])
            else:
                assert drafted.drop(*key) == (expected.pop(key, None) is not None)
        drafted.publish()
        published.append(dict(expected))
        if len(published) > 3:
            drafted.release_oldest()
            published.pop(0)
        for table, routes in enumerate(published):
            assert drafted.count(table) == len(routes)
            for kind in (1, 3):
                for number in range(0, 600, 7):
                    name = b"n%d" % number
                    assert drafted.find(table, kind, name) == routes.get((kind, name))


def test_route_change_in_a_table_of_thousands_makes_one_page():
    drafted = DraftedRoutes()
    for number in range(20_000):
        drafted.put(1, b"n%d.example" % number, 1)
    assert drafted.publish() > 1000
    drafted.put(1, b"n7.example", 2)
    assert drafted.publish() == 1
    drafted.drop(1, b"n7.example")
    assert drafted.publish() <= 1
    assert [drafted.find(table, 1, b"n7.example") for table in range(3)] == [1, 2, None]
    assert drafted.publish() == 0


def test_route_to_a_tunnel_that_closes_goes_with_it():
    with engine_pair() as pair, tcp_upstream(echo) as upstream:
        port = pair.serve_tcp("echo", upstream.upstream)
        other = pair.server.open_tunnel()
        pair.server.set_route(RouteKind.HTTP, "other.example", Site(tunnels=(other,)))
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(other,)))  # taken from the first tunnel
        publish(pair.server)
        assert is_refused(port)
        pair.server.set_route(RouteKind.TCP, port, Site(tunnels=(pair.server_tunnel,)))
        pair.server.close_tunnel(other)
        publish(pair.server)    # in force at every worker
        assert exchange_bytes(port, b"mine") == b"mine"
        pair.assert_idle()


def test_tunnel_slot_just_closed_is_not_given_to_the_next():
    engine = Engine(workers=1, memory_limit_bytes=8 << 20, accepting=False)
    first = engine.open_tunnel()
    engine.close_tunnel(first)
    assert engine.open_tunnel() != first
    with pytest.raises(EngineError):
        engine.bind_link(1, first)
    with pytest.raises(EngineError):
        engine.tunnel_counters(first)
    engine.stop()


def test_tunnel_slot_that_stays_in_use_does_not_hold_up_those_behind_it(monkeypatch):
    with engine_pair() as pair:
        held, idle = pair.server_tunnel, pair.server.open_tunnel()
        pair.server.close_tunnel(held)      # its link is still bound
        pair.server.close_tunnel(idle)
        monkeypatch.setattr(slots, "QUARANTINE_S", 0.0)
        assert pair.server.open_tunnel() == idle
        assert pair.server.open_tunnel() not in (held, idle)
        pair.server.abort_link(pair.server_link)
        eventually(lambda: pair.server.open_tunnel() == held)


@pytest.mark.parametrize("key", [0, 65536, -1, True, "22"])
def test_route_key_that_is_no_port_is_refused(key):
    engine = Engine(workers=1, memory_limit_bytes=8 << 20, accepting=False)
    with pytest.raises(EngineError):
        engine.set_route(RouteKind.TCP, key, Site(upstream=Upstream()))
    engine.stop()
