import asyncio

from spokes._fastpath.engine import Directory, RouteKind, Upstream
from spokes.client import routes as routes_module
from spokes.client.routes import PAGE_NO_DIRECTORY, Routes
from spokes.client.service_addresses import ServiceAddresses
from spokes.client.webroots import WebRoots
from spokes.pages import PAGES
from spokes.resolver import Answer
from spokes.wire.rules import Port, Site
from tests.client.fake_engine import FakeUpstream
from tests.support.eventually import eventually

HTTP, TCP, TLS, UDP = (int(kind) for kind in (RouteKind.HTTP, RouteKind.TCP, RouteKind.TLS, RouteKind.UDP))


def make_routes(engine, names=None):
    names = names if names is not None else {}

    async def lookup(host):
        if host not in names:
            raise OSError("unknown")
        return Answer(tuple(names[host]))

    services = ServiceAddresses(lookup)
    return Routes(engine, services, WebRoots(Directory)), services


async def nowhere(host):
    raise OSError("unknown")


async def test_apply_every_kind_of_rule_becomes_its_route(engine):
    routes, _ = make_routes(engine, {"db.internal": ["10.0.0.5"]})
    await routes.apply(
        [
            Site(domain="Shop.Example.", destination="localhost", port=8080, tls=8443, rewrite_host="inner"),
            Site(domain="sock.example", destination="unix:/run/app.sock"),
            Site(domain="url.example", upstream_url="http://127.0.0.1:9000/"),
            Site(domain="v6.example", destination="::1", port=80),
        ],
        [
            Port(port=22001, destination="db.internal", dst_port=5432),
            Port(port=22002),
            Port(port=22003, destination="unix:/run/db.sock", dst_port=1),
        ],
    )
    assert engine.upstreams == {
        (HTTP, "shop.example"): FakeUpstream([("127.0.0.1", 8080), ("::1", 8080)], host="inner", name="localhost:8080"),
        (TLS, "shop.example"): FakeUpstream([("127.0.0.1", 8443), ("::1", 8443)], name="localhost:8443"),
        (HTTP, "sock.example"): FakeUpstream(unix_path="/run/app.sock", name="unix:/run/app.sock"),
        (HTTP, "url.example"): FakeUpstream([("127.0.0.1", 9000)], name="127.0.0.1:9000"),
        (HTTP, "v6.example"): FakeUpstream([("::1", 80)], name="[::1]:80"),
        (TCP, 22001): FakeUpstream([("10.0.0.5", 5432)], name="db.internal:5432"),
        (UDP, 22001): FakeUpstream([("10.0.0.5", 5432)], name="db.internal:5432"),
        (TCP, 22003): FakeUpstream(unix_path="/run/db.sock", name="unix:/run/db.sock"),
    }
    assert engine.publish_count == 1


async def test_apply_rule_that_the_engine_does_not_take_leaves_the_others(engine, monkeypatch, caplog):
    monkeypatch.setattr(routes_module, "Upstream", Upstream)
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="bad", destination="unix:/" + "x" * 150), Site(domain="good", port=80)], [])
    assert engine.upstreams.keys() == {(HTTP, "bad"), (HTTP, "good")}
    assert engine.publish_count == 1
    assert "service cannot be asked" in caplog.messages
    await routes.apply([], [])
    assert engine.upstreams == {}


async def test_apply_untouched_rule_is_not_set_again(engine):
    routes, _ = make_routes(engine)
    kept, dropped = Site(domain="a", port=1), Site(domain="b", port=2)
    await routes.apply([kept, dropped], [])
    engine.route_calls.clear()
    await routes.apply([kept, Site(domain="c", port=3)], [])
    assert engine.route_calls == [("drop", HTTP, "b"), ("upstream", HTTP, "c")]


async def test_apply_other_udp_timeout_leads_to_the_same_upstream_and_ends_no_flow(engine):
    routes, _ = make_routes(engine)
    await routes.apply([], [Port(port=5, destination="127.0.0.1", dst_port=1)])
    before = engine.upstreams[(UDP, 5)]
    engine.route_calls.clear()
    await routes.apply([], [Port(port=5, destination="127.0.0.1", dst_port=1, udp_timeout=600)])
    assert engine.route_calls == [("upstream", UDP, 5)]
    assert engine.upstreams[(UDP, 5)] is before
    assert engine.limits[(UDP, 5)].udp_idle_s == 600
    assert engine.retired == []
    assert engine.ended == []
    assert routes.served()[(UDP, 5)].counter is before
    await routes.apply([], [Port(port=5, destination="127.0.0.1", dst_port=2)])
    assert engine.upstreams[(UDP, 5)] is not before
    assert engine.limits[(UDP, 5)].udp_idle_s == 0
    assert before in engine.retired


async def test_apply_same_rules_publishes_nothing(engine):
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="a", port=1)], [])
    await routes.apply([Site(domain="a", port=1)], [])
    assert engine.publish_count == 1


async def test_apply_unresolved_name_is_an_upstream_without_addresses(engine):
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="a", destination="nowhere", port=1)], [Port(port=5, destination="x", dst_port=1)])
    assert engine.upstreams == {
        (HTTP, "a"): FakeUpstream(name="nowhere:1"),
        (TCP, 5): FakeUpstream(name="x:1"),
        (UDP, 5): FakeUpstream(name="x:1"),
    }
    assert engine.pages == {}


async def test_served_names_every_route_and_who_counts_there(engine, tmp_path):
    routes, _ = make_routes(engine)
    sites = [Site(domain="a", port=1), Site(domain="b", web_root=str(tmp_path / "none"))]
    await routes.apply(sites, [Port(port=5, dst_port=1)])
    served = routes.served()
    assert served.keys() == {(HTTP, "a"), (HTTP, "b"), (TCP, 5), (UDP, 5)}
    assert served[HTTP, "a"].counter is engine.upstreams[HTTP, "a"]
    assert (served[HTTP, "b"].counter, served[HTTP, "b"].code) == (None, PAGE_NO_DIRECTORY)
    await routes.apply(sites[:1], [])
    assert routes.served().keys() == {(HTTP, "a")}


async def test_refresh_changed_address_is_set(engine):
    names = {"db": ["10.0.0.1"]}
    routes, services = make_routes(engine, names)
    await routes.apply([Site(domain="a", destination="db", port=1), Site(domain="b", port=2)], [])
    names["db"] = ["10.0.0.2"]
    engine.route_calls.clear()
    old = engine.upstreams[(HTTP, "a")]
    routes.take_fault(old.id)
    running = asyncio.create_task(services.run())
    await eventually(lambda: engine.route_calls)
    running.cancel()
    assert engine.route_calls == [("upstream", HTTP, "a")]
    assert engine.upstreams[(HTTP, "a")].addresses == [("10.0.0.2", 1)]
    assert (engine.retired, engine.ended) == ([old], [])  # what it has open goes on


async def test_take_fault_of_an_upstream_that_is_gone_is_nobodys(engine):
    routes, _ = make_routes(engine, {"db": ["10.0.0.1"]})
    await routes.apply([Site(domain="a", destination="db", port=1)], [])
    old = engine.upstreams[(HTTP, "a")]
    await routes.apply([], [])
    routes.take_fault(old.id)
    assert engine.upstreams == {}


async def test_apply_removed_rule_ends_what_it_has_open_after_the_drain(engine):
    routes, _ = make_routes(engine)
    routes.removed_drain_s = 7
    await routes.apply([Site(domain="a", port=1), Site(domain="b", port=2)], [Port(port=5, dst_port=1)])
    gone = [engine.upstreams[key] for key in ((HTTP, "a"), (TCP, 5), (UDP, 5))]
    await routes.apply([Site(domain="b", port=2)], [Port(port=5)])
    assert sorted(engine.ended, key=lambda one: one[0].id) == [(upstream, 7) for upstream in gone]
    assert engine.retired == []


async def test_apply_rule_that_leads_elsewhere_keeps_what_it_has_open(engine):
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="a", port=1)], [])
    old = engine.upstreams[(HTTP, "a")]
    await routes.apply([Site(domain="a", port=2)], [])
    assert (engine.retired, engine.ended) == ([old], [])


async def test_apply_web_root_is_a_directory_and_its_port_is_not_used(engine, tmp_path):
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="A.Example", web_root=str(tmp_path), port=80, tls=443)], [])
    assert engine.directories["a.example"].identity[1] == tmp_path.stat().st_ino
    assert list(engine.upstreams) == [(TLS, "a.example")]


async def test_apply_missing_web_root_answers_with_a_page_until_it_is_there(engine, tmp_path):
    web_roots = WebRoots(Directory)
    routes = Routes(engine, ServiceAddresses(nowhere), web_roots)
    site = tmp_path / "site"
    await routes.apply([Site(domain="a", web_root=str(site))], [])
    assert engine.pages == {(HTTP, "a"): PAGE_NO_DIRECTORY}
    assert PAGE_NO_DIRECTORY in PAGES
    site.mkdir()
    assert await web_roots.refresh()
    web_roots.on_change()
    assert engine.directories["a"].identity[1] == site.stat().st_ino
    assert engine.publish_count == 2


async def test_apply_same_web_root_is_not_set_again(engine, tmp_path):
    routes, _ = make_routes(engine)
    await routes.apply([Site(domain="a", web_root=str(tmp_path))], [])
    await routes.apply([Site(domain="a", web_root=str(tmp_path)), Site(domain="b", port=1)], [])
    assert engine.route_calls == [("directory", HTTP, "a"), ("upstream", HTTP, "b")]
