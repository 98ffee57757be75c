"""Traffic and records, from the engine's counters to the store's rows."""

import pytest

from spokes import clock
from spokes.errors import StoreError
from spokes.ids import new_uid
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.routes import RouteTable
from spokes.server.usage.access_records import AccessRecordWriter
from spokes.server.usage.traffic import TrafficMeter
from spokes.store import Period
from tests.support.fake_engine import FakeEngine

DOMAIN = "tun.example.net"
TUNNEL, SITE, PORT = new_uid(), new_uid(), new_uid()


@pytest.fixture
async def engine():
    engine = FakeEngine()
    engine.set_page("SPK-WELCOME", status=200, content_type="", body=b"")
    yield engine
    engine.stop()


@pytest.fixture
async def routes(engine):
    routes = RouteTable(engine, DOMAIN)
    routes.put_tunnel(TUNNEL, f"own.{DOMAIN}")
    routes.put_site(SITE, TUNNEL, f"shop.{DOMAIN}", pass_through=False)
    routes.put_port(PORT, TUNNEL, 22001)
    routes.publish()
    return routes


@pytest.fixture
async def store(tmp_path):
    store = StoreThread()
    await store.open(f"sqlite:///{tmp_path / 'spokes.db'}")
    yield store
    await store.close()


@pytest.fixture
def records(engine, routes, store):
    return AccessRecordWriter(engine, routes.counted, store, kept_s=3600.0, row_count_max=1000)


@pytest.fixture
def meter(engine, routes, store, records):
    return TrafficMeter(engine, routes, store, records)


async def stored(store: StoreThread) -> dict[str, tuple[int, int, int]]:
    now = clock.wall_s()
    rows = await store.run(
        lambda: store.store.traffic.select(period=Period.HOUR, begin=now - 7200, end=now + 3600)
    )
    assert {row.tunnel_uid for row in rows} <= {TUNNEL}
    sums: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        before = sums.get(row.service_uid, (0, 0, 0))
        sums[row.service_uid] = (before[0] + row.bytes_in, before[1] + row.bytes_out, before[2] + row.conns)
    return sums


async def test_meter_services_of_one_tunnel_are_rows_of_their_own(engine, routes, store, meter):
    site, port, own_name = (routes.service(uid) for uid in (SITE, PORT, TUNNEL))
    engine.traffic = {site: (10, 20, 1), port: (1, 2, 3), own_name: (5, 0, 0)}
    meter.read()
    assert list(meter.pending()) == [(TUNNEL, 38)]
    await meter.flush()
    assert list(meter.pending()) == []
    engine.traffic = {routes.service(SITE): (100, 200, 1)}
    await meter.flush()
    assert await stored(store) == {SITE: (110, 220, 2), PORT: (1, 2, 3), TUNNEL: (5, 0, 0)}


async def test_meter_object_that_is_deleted_is_counted_until_its_last_stream_has_ended(engine, routes, store, meter):
    service = routes.service(SITE)
    engine.service_streams[service] = 1
    engine.traffic = {service: (1, 1, 1)}
    routes.drop(SITE)
    routes.publish()
    await meter.flush()
    engine.traffic = {service: (10, 10, 0)}
    await meter.flush()
    assert service in engine.services
    engine.traffic = {service: (100, 100, 0)}
    engine.service_streams.clear()
    await meter.flush()
    await meter.flush()
    assert service not in engine.services
    assert service not in routes.services()
    assert (await stored(store))[SITE] == (111, 111, 1)


async def test_meter_tunnel_that_is_deleted_lets_go_of_all_its_services(engine, routes, store, meter):
    engine.traffic = {routes.service(PORT): (7, 7, 1)}
    routes.drop_tunnel(TUNNEL)
    routes.publish()
    assert engine.tunnels == set()
    for _ in range(2):
        await meter.flush()
    assert engine.services == {}
    assert (await stored(store))[PORT] == (7, 7, 1)


async def test_meter_store_that_fails_keeps_the_sums_for_the_next_interval(engine, routes, store, meter, monkeypatch):
    def fail(*_):
        raise StoreError("disk full")

    engine.traffic = {routes.service(SITE): (10, 20, 1)}
    with monkeypatch.context() as patch:
        patch.setattr(store.store.traffic, "add", fail)
        await meter.flush()
    assert list(meter.pending()) == [(TUNNEL, 30)]
    engine.traffic = {routes.service(SITE): (1, 2, 0)}
    await meter.flush()
    assert await stored(store) == {SITE: (11, 22, 1)}
    assert list(meter.pending()) == []


async def test_meter_name_that_passes_from_a_site_back_to_its_tunnel_is_counted_there(engine, routes, meter):
    site = new_uid()
    routes.put_site(site, TUNNEL, f"own.{DOMAIN}", pass_through=False)
    routes.publish()
    (of_site,) = {service for route, service in engine.service_of.items() if route[1] == f"own.{DOMAIN}"}
    assert of_site == routes.service(site)
    routes.drop(site)
    routes.publish()
    (of_tunnel,) = {service for route, service in engine.service_of.items() if route[1] == f"own.{DOMAIN}"}
    assert of_tunnel == routes.service(TUNNEL)
    for _ in range(2):
        meter.read()        # the engine refuses to close a service that a route leads to


async def test_visits_are_rows_with_the_object_they_came_to(engine, routes, store, meter):
    engine.visits = [
        (routes.service(SITE), "198.51.100.7", 10, 20, 1000.0, 1001.5),
        (routes.service(PORT), "2001:db8::1", 1, 2, 1000.0, 1000.0),
        (999_999, "198.51.100.8", 1, 1, 1000.0, 1000.0),        # of an object that nobody knows
    ]
    await meter.flush()
    rows = await store.run(store.store.access_records.select)
    assert [(row.service_uid, row.tunnel_uid, row.service, row.address, row.bytes_in, row.bytes_out) for row in rows] \
        == [(SITE, TUNNEL, 1, "198.51.100.7", 10, 20), (PORT, TUNNEL, 2, "2001:db8::1", 1, 2)]
    assert (rows[0].established, rows[0].closed) == (1000.0, 1001.5)


async def test_visits_beyond_the_bound_of_rows_are_removed_while_the_server_runs(engine, routes, store, meter, records):
    records.row_count_max = 50
    now = clock.wall_s()
    for batch in range(20):
        engine.visits = [
            (routes.service(SITE), "198.51.100.7", 1, 1, now, now + batch + number / 100) for number in range(10)
        ]
        await meter.flush()
    rows = await store.run(store.store.access_records.select)
    assert len(rows) <= 60
    assert rows[0].closed == pytest.approx(now + 19.09)
