"""Routes: who owns a name, what moves, and how often tables are published."""

import asyncio

import pytest

from spokes._fastpath.engine import Limits, RouteKind
from spokes.server.routing.routes import RouteTable, port_limits, site_limits
from tests.support.fake_engine import FakeEngine

DOMAIN = "tun.example.net"


@pytest.fixture
async def engine():
    engine = FakeEngine()
    engine.set_page("SPK-WELCOME", status=200, content_type="", body=b"")
    yield engine
    engine.stop()


@pytest.fixture
async def routes(engine):
    return RouteTable(engine, DOMAIN)


async def test_routes_many_changes_of_one_turn_are_one_publication(engine, routes):
    await asyncio.sleep(0)
    before = engine.publish_count
    for number in range(50):
        routes.put_tunnel(f"t{number}", f"h{number}.{DOMAIN}")
    assert engine.publish_count == before
    await asyncio.sleep(0)
    assert engine.publish_count == before + 1
    routes.put_tunnel("t1", f"h1.{DOMAIN}")
    await asyncio.sleep(0)
    assert engine.publish_count == before + 1


async def test_routes_own_domain_is_a_page_that_no_site_takes(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", DOMAIN, pass_through=False)
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, DOMAIN)] == "SPK-WELCOME"


@pytest.mark.parametrize(
    ("domain", "pass_through", "tls"),
    [
        (f"h.{DOMAIN}", False, False),
        (f"h.{DOMAIN}", True, True),
        (f"a.b.{DOMAIN}", False, False),
        ("shop.example.org", False, False),
        ("shop.example.org", True, True),
    ],
)
async def test_routes_site_passes_tls_through_where_it_wants_to(engine, routes, domain, pass_through, tls):
    routes.put_tunnel("t", f"other.{DOMAIN}")
    routes.put_site("s", "t", domain, pass_through=pass_through)
    routes.publish()
    assert ((RouteKind.TLS, domain) in engine.routes) is tls
    assert engine.routes[(RouteKind.HTTP, domain)] == routes.slot("t")


async def test_routes_own_domain_is_passed_through_to_nobody(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", DOMAIN, pass_through=True, plain=False)
    routes.https_port = 443
    routes.publish()
    assert (RouteKind.TLS, DOMAIN) not in engine.routes
    assert engine.routes[(RouteKind.HTTP, DOMAIN)] == "SPK-WELCOME"


async def test_routes_limits_of_a_rule_are_their_routes_and_a_change_leads_again(engine, routes):
    site, port = (RouteKind.HTTP, "shop.example.org"), (RouteKind.UDP, 22001)
    routes.put_tunnel("t", f"h.{DOMAIN}")
    for rule, expected in (
        ({"responseTimeout": 5, "maxBody": 1000, "maxHeaderLine": 9000}, Limits(5, 1000, 9000)),
        ({"maxBody": 2000}, Limits(body_bytes_max=2000)),
        ({"maxBody": -1, "maxHeaderLine": "x"}, Limits()),      # of another version
    ):
        routes.put_site("s", "t", "shop.example.org", pass_through=False, limits=site_limits(rule))
        assert engine.limits_of[site] == expected
        routes.publish()
    routes.put_port("p", "t", 22001, limits=port_limits({"udpTimeout": 600}))
    assert engine.limits_of[port] == Limits(udp_idle_s=600)
    routes.publish()
    routes.put_port("p", "t", 22001, limits=port_limits({}))
    assert engine.limits_of[port] == Limits()
    routes.publish()
    published = engine.publish_count
    routes.put_port("p", "t", 22001, limits=port_limits({}))
    routes.publish()
    assert engine.publish_count == published


async def test_routes_limits_go_with_their_object(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", "a.example.org", pass_through=False, limits=Limits(body_bytes_max=5))
    routes.drop("s")
    routes.put_site("s", "t", "b.example.org", pass_through=False)
    assert engine.limits_of[(RouteKind.HTTP, "b.example.org")] == Limits()


async def test_routes_site_of_tls_alone_sends_plain_http_to_https(engine, routes):
    site = (RouteKind.HTTP, "shop.example.org")
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", "shop.example.org", pass_through=True, plain=False)
    routes.publish()
    assert engine.routes[site] == routes.slot("t")  # nobody serves https
    routes.https_port = 8443
    routes.publish()
    assert engine.routes[site] == "https:8443"
    engine.set_page("SPK-BANDWIDTH", status=503, content_type="", body=b"")
    routes.close_to_visitors("t", closed=True)
    routes.https_port = 443
    routes.publish()
    assert engine.routes[site] == "SPK-BANDWIDTH"
    routes.close_to_visitors("t", closed=False)
    routes.publish()
    assert engine.routes[site] == "https:443"
    routes.put_site("s", "t", "shop.example.org", pass_through=True, plain=True)
    routes.publish()
    assert engine.routes[site] == routes.slot("t")
    routes.put_site("s", "t", "shop.example.org", pass_through=True, plain=False)
    routes.publish()
    assert engine.routes[site] == "https:443"
    routes.drop("s")
    routes.put_site("s", "t", "shop.example.org", pass_through=False)
    routes.publish()
    assert engine.routes[site] == routes.slot("t")


async def test_routes_own_hostname_of_tls_alone_leads_to_its_tunnel_when_the_site_goes(engine, routes):
    routes.https_port = 443
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", f"h.{DOMAIN}", pass_through=True, plain=False)
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, f"h.{DOMAIN}")] == "https:443"
    routes.drop("s")
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, f"h.{DOMAIN}")] == routes.slot("t")


async def test_routes_site_on_own_hostname_dropped_leaves_the_hostname(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", f"h.{DOMAIN}", pass_through=True)
    routes.drop("s")
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, f"h.{DOMAIN}")] == routes.slot("t")
    assert (RouteKind.TLS, f"h.{DOMAIN}") not in engine.routes


@pytest.mark.parametrize("drop_first", [True, False])
async def test_routes_name_that_moves_leads_to_its_new_tunnel_in_either_order(engine, routes, drop_first):
    routes.put_tunnel("a", f"a.{DOMAIN}")
    routes.put_tunnel("b", f"b.{DOMAIN}")
    routes.put_site("old", "a", "x.org", pass_through=False)
    if drop_first:
        routes.drop("old")
    routes.put_site("new", "b", "x.org", pass_through=False)
    if not drop_first:
        routes.drop("old")
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, "x.org")] == routes.slot("b")


async def test_routes_port_leads_tcp_and_udp_and_goes_with_its_tunnel(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_port("p", "t", 22001)
    assert routes.ports() == {22001}
    assert routes.tunnel_of("p") == "t"
    routes.drop_tunnel("t")
    routes.publish()
    assert set(engine.routes) == {(RouteKind.HTTP, DOMAIN)}
    assert routes.ports() == frozenset()
    assert not engine.tunnels


async def test_routes_object_of_an_unknown_tunnel_is_left_out(engine, routes):
    routes.put_site("s", "nobody", "x.org", pass_through=False)
    routes.drop("s")
    routes.drop_tunnel("nobody")
    routes.publish()
    assert set(engine.routes) == {(RouteKind.HTTP, DOMAIN)}


@pytest.fixture
async def closed(engine, routes):
    """A tunnel with a host name, a site that passes TLS through and a port, closed to visitors."""
    engine.set_page("SPK-BANDWIDTH", status=503, content_type="", body=b"")
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", "shop.example.org", pass_through=True)
    routes.put_port("p", "t", 22001)
    routes.publish()
    before = dict(engine.routes)
    routes.close_to_visitors("t", closed=True)
    routes.publish()
    return before


async def test_routes_closed_tunnel_answers_a_page_and_nothing_on_ports(engine, routes, closed):
    assert engine.routes == {
        (RouteKind.HTTP, DOMAIN): "SPK-WELCOME",
        (RouteKind.HTTP, f"h.{DOMAIN}"): "SPK-BANDWIDTH",
        (RouteKind.HTTP, "shop.example.org"): "SPK-BANDWIDTH",
    }
    assert routes.ports() == {22001}


async def test_routes_opened_again_are_what_they_were(engine, routes, closed):
    routes.close_to_visitors("t", closed=False)
    routes.publish()
    assert engine.routes == closed


async def test_routes_new_ones_of_a_closed_tunnel_are_closed_and_can_go(engine, routes, closed):
    routes.put_site("s2", "t", "late.example.org", pass_through=True)
    routes.put_port("p2", "t", 22002)
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, "late.example.org")] == "SPK-BANDWIDTH"
    assert (RouteKind.TCP, 22002) not in engine.routes
    assert routes.ports() == {22001, 22002}
    routes.drop_tunnel("t")
    routes.publish()
    assert set(engine.routes) == {(RouteKind.HTTP, DOMAIN)}
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.publish()
    assert engine.routes[(RouteKind.HTTP, f"h.{DOMAIN}")] == routes.slot("t")


async def test_routes_removed_object_ends_what_it_has_open_once_nothing_leads_there(engine, routes):
    routes.removed_drain_s = 9.0
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", "shop.example.org", pass_through=False)
    routes.put_port("p", "t", 22001)
    site, port, own = (routes.service(uid) for uid in ("s", "p", "t"))
    routes.publish()
    routes.put_site("s", "t", "shop.example.org", pass_through=False)
    routes.publish()
    assert engine.services_ended == {}
    routes.drop("s")
    assert engine.services_ended == {}
    routes.publish()
    assert engine.services_ended == {site: 9.0}
    routes.drop_tunnel("t")
    routes.publish()
    assert engine.services_ended == {site: 9.0, port: 9.0, own: 9.0}


async def test_routes_object_with_another_name_ends_what_it_has_open_under_the_old(engine, routes):
    routes.put_tunnel("t", f"old.{DOMAIN}")
    routes.put_site("s", "t", "old.example.org", pass_through=False)
    before = [routes.service(uid) for uid in ("t", "s")]
    routes.publish()
    routes.put_tunnel("t", f"new.{DOMAIN}")
    routes.put_site("s", "t", "new.example.org", pass_through=False)
    routes.publish()
    assert set(engine.services_ended) == set(before) == set(routes.retired_services())
    assert engine.routes[(RouteKind.HTTP, f"new.{DOMAIN}")] == engine.routes[(RouteKind.HTTP, "new.example.org")]
    assert (RouteKind.HTTP, "old.example.org") not in engine.routes


async def test_routes_site_that_only_passes_tls_on_ends_nothing(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_site("s", "t", f"a.{DOMAIN}", pass_through=False)
    routes.publish()
    routes.put_site("s", "t", f"a.{DOMAIN}", pass_through=True)
    routes.publish()
    assert engine.services_ended == {}


async def test_routes_name_that_moves_to_another_tunnel_ends_what_the_first_has_open(engine, routes):
    routes.put_tunnel("t", f"h.{DOMAIN}")
    routes.put_tunnel("u", f"i.{DOMAIN}")
    routes.put_site("s", "t", "shop.example.org", pass_through=False)
    service = routes.service("s")
    routes.publish()
    routes.put_site("s", "u", "shop.example.org", pass_through=False)
    routes.publish()
    assert set(engine.services_ended) == {service}
