from datetime import UTC, datetime

import pytest

from spokes.ids import ZERO_UID, new_uid
from spokes.model.tunnels import CreateTunnel, DeleteTunnel
from spokes.model.users import CreateUser
from spokes.store import Period, TrafficDelta, Usage
from spokes.store.traffic import DAYS_KEPT_S, HOURS_KEPT_S, period_start
from tests.support.operations import do

DOMAIN = "tun.example.net"
SITE, PORT = "51" * 16, "52" * 16


def at(*moment):
    return datetime(*moment, tzinfo=UTC).timestamp()


NOW = at(2026, 11, 22, 10, 30)


def delta(tunnel_uid, service_uid=SITE, bytes_in=1, bytes_out=10, conns=1):
    return TrafficDelta(
        tunnel_uid=tunnel_uid, service_uid=service_uid, bytes_in=bytes_in, bytes_out=bytes_out, conns=conns
    )


@pytest.fixture
def tunnels(store):
    return [do(store, CreateTunnel(name=f"t{n}", domain=DOMAIN))[0].uid for n in range(2)]


@pytest.mark.parametrize(("period", "moment", "start"), [
    (Period.HOUR, (2026, 11, 22, 10, 59, 59), (2026, 11, 22, 10)),
    (Period.HOUR, (2026, 11, 22, 11), (2026, 11, 22, 11)),
    (Period.DAY, (2026, 11, 22, 23, 59, 59), (2026, 11, 22)), (Period.MONTH, (2026, 11, 30, 23, 59, 59), (2026, 11, 1)),
    (Period.MONTH, (2026, 12, 1), (2026, 12, 1)), (Period.MONTH, (2028, 2, 29, 12), (2028, 2, 1)),
])
def test_period_start_by_the_calendar_in_utc(period, moment, start):
    assert period_start(period, at(*moment)) == at(*start)


def test_add_traffic_sums_up_in_every_period(store, tunnels):
    store.traffic.add(NOW, [delta(tunnels[0]), delta(tunnels[0]), delta(tunnels[0], PORT)])
    store.traffic.add(NOW + 3600, [delta(tunnels[0], conns=5)])
    for period, expected in ((Period.HOUR, [2, 1]), (Period.DAY, [3]), (Period.MONTH, [3])):
        rows = store.traffic.select(period=period, begin=0, end=NOW * 2, service_uid=SITE)
        assert [row.bytes_in for row in rows] == expected
        assert [row.bytes_out for row in rows] == [10 * n for n in expected]
    assert sum(row.conns for row in store.traffic.select(period="h", begin=0, end=NOW * 2)) == 8


def test_add_traffic_is_one_statement(store, tunnels):
    store.changes.position()
    before = store.statement_count
    store.traffic.add(NOW, [delta(tunnel, f"{n:032x}") for tunnel in tunnels for n in range(500)])
    assert store.statement_count - before <= 3               # with its BEGIN and COMMIT
    store.traffic.add(NOW, [])
    store.traffic.add(NOW, [delta("\x00"), delta(tunnels[0], "")])
    assert len(store.traffic.select(period="d", begin=0, end=NOW * 2)) == 1000


def test_add_traffic_counts_beyond_32_bits(store, tunnels):
    for _ in range(2):
        store.traffic.add(NOW, [delta(tunnels[0], bytes_in=2**40, bytes_out=2**61)])
    assert store.traffic.usage_of_tunnels(tunnels, NOW)[tunnels[0]] == Usage(2**41 + 2**62, 2**41 + 2**62)


def test_usage_is_of_this_day_and_month(store, tunnels):
    for moment in (at(2026, 10, 31, 23, 59), at(2026, 11, 1), at(2026, 11, 21, 23, 59), NOW):
        store.traffic.add(moment, [delta(tunnels[0], bytes_in=1, bytes_out=0)])
    assert store.traffic.usage_of_tunnels(tunnels, NOW) == {tunnels[0]: Usage(1, 3)}
    assert store.traffic.usage_of_tunnels(None, NOW) == {tunnels[0]: Usage(1, 3)}
    assert store.traffic.usage_of_tunnels(tunnels, at(2026, 11, 23)) == {tunnels[0]: Usage(0, 3)}
    assert store.traffic.usage_of_tunnels(tunnels, at(2026, 11, 1, 5)) == {tunnels[0]: Usage(1, 3)}
    assert store.traffic.usage_of_tunnels(tunnels, at(2026, 12, 1)) == {}
    assert store.traffic.usage_of_tunnels([], NOW) == store.traffic.usage_of_tunnels(["\x00"], NOW) == {}


def test_usage_of_services(store, tunnels):
    store.traffic.add(NOW, [delta(tunnels[0], SITE), delta(tunnels[0], PORT, 5, 5), delta(tunnels[1], "53" * 16)])
    assert store.traffic.usage_of_services(tunnels[:1], NOW) == {SITE: Usage(11, 11), PORT: Usage(10, 10)}


def test_usage_of_users_with_deleted_tunnels(store, tunnels):
    user = do(store, CreateUser())
    own = [do(store, CreateTunnel(name="o", domain=DOMAIN, user_uid=user.uid))[0].uid for _ in range(2)]
    store.traffic.add(NOW, [delta(own[0]), delta(own[1]), delta(tunnels[0])])
    do(store, DeleteTunnel(own[1]))
    assert store.traffic.usage_of_user(user.uid, NOW) == Usage(22, 22)
    assert store.traffic.month_of_users(NOW) == {user.uid: 22, ZERO_UID: 11}
    assert store.traffic.usage_of_user(new_uid(), NOW) == store.traffic.usage_of_user("\x00", NOW) == Usage(0, 0)


def test_list_traffic_filters(store, tunnels):
    for hours in range(4):
        store.traffic.add(NOW + hours * 3600, [delta(tunnels[0]), delta(tunnels[1], PORT)])
    whole = store.traffic.select(period="h", begin=0, end=NOW * 2)
    assert [(row.start, row.tunnel_uid) for row in whole] == sorted((row.start, row.tunnel_uid) for row in whole)
    assert len(whole) == 8
    begin = period_start(Period.HOUR, NOW)
    assert {row.start for row in store.traffic.select(period="h", begin=begin + 3600, end=begin + 10800)} == {
        begin + 3600, begin + 7200
    }
    hours = store.traffic.select(period="h", begin=0, end=NOW * 2, tunnel_uid=tunnels[0])
    assert {row.tunnel_uid for row in hours} == {
        tunnels[0]
    }
    assert len(store.traffic.select(period="h", begin=0, end=NOW * 2, tunnel_uids=tunnels, limit=3)) == 3
    assert store.traffic.select(period="h", begin=0, end=NOW * 2, service_uid="\x00") == []
    with pytest.raises(ValueError, match="'y'"):
        store.traffic.select(period="y", begin=0, end=1)


def test_purge_traffic_keeps_months(store, tunnels):
    old, older = NOW - HOURS_KEPT_S - 7200, NOW - DAYS_KEPT_S - 2 * 86_400
    for moment in (NOW, old, older):
        store.traffic.add(moment, [delta(tunnels[0])])
    assert [store.traffic.purge(NOW) for _ in range(3)] == [2, 1, 0]  # in slices, the oldest first
    kept = {period: len(store.traffic.select(period=period, begin=0, end=NOW * 2)) for period in Period}
    assert kept == {Period.HOUR: 1, Period.DAY: 2, Period.MONTH: 3}
