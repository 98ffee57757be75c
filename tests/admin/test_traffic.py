from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from spokes.admin.context import Role
from spokes.ids import ZERO_UID, new_uid
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.store import TrafficDelta, Visit
from tests.support.admin import ADMINISTRATOR, OWN
from tests.support.operations import do

DAY = 1_800_057_600                      # 2027-01-16T00:00:00Z
DOMAIN = "tun.example.net"


@pytest.fixture
def fleet(store):
    """Two users with a tunnel each; the first one's has two services with traffic in two hours."""
    users = [do(store, CreateUser(email=f"{name}@example.org")) for name in ("mara", "noor")]
    tunnels = [do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=user.uid))[0] for user in users]
    services = [new_uid(), new_uid(), tunnels[1].uid]

    def delta(service, tunnel, count):
        return TrafficDelta(
            service_uid=services[service], tunnel_uid=tunnels[tunnel].uid, bytes_in=count, bytes_out=2 * count, conns=1
        )

    store.traffic.add(DAY, [delta(0, 0, 10), delta(1, 0, 100), delta(2, 1, 1000)])
    store.traffic.add(DAY + 3600, [delta(0, 0, 1)])
    store.access_records.add(
        Visit(
            uid=new_uid(), tunnel_uid=tunnels[tunnel].uid, service_uid=services[service], service=1 + tunnel,
            address=f"198.51.100.{number}", bytes_in=number, bytes_out=2, established=DAY + 0.5,
            closed=DAY + number + 0.125,
        )
        for number, (service, tunnel) in enumerate([(0, 0), (1, 0), (2, 1)] * 3)
    )
    return users, tunnels, services


def rows(result, name):
    assert result.status_code == 200, result.text
    return result.json[name]


def table(api, path, query=""):
    result = api.client.simulate_get(
        f"{OWN}/{path}", headers={**api.headers, "Accept": "text/csv"}, query_string=query
    )
    assert (result.status_code, result.headers["content-type"]) == (200, "text/csv")
    return list(csv.DictReader(io.StringIO(result.text)))


@pytest.mark.parametrize(
    ("by", "period", "sums"),
    [
        ("service", "day", {11, 100, 1000}), ("service", "hour", {10, 100, 1000, 1}), ("tunnel", "day", {111, 1000}),
        ("user", "month", {111, 1000}), ("tunnel", "hour", {110, 1000, 1}),
    ],
)
def test_traffic_is_summed_by_service_tunnel_and_user(api, fleet, by, period, sums):
    listed = rows(api.get(f"{OWN}/traffic/list", query=f"by={by}&period={period}"), "traffic")
    assert {row["bytesIn"] for row in listed} == sums
    assert len(listed) == len(sums)
    assert all(row["bytesOut"] == 2 * row["bytesIn"] for row in listed)
    assert all((row["serviceID"] == ZERO_UID) is (by != "service") for row in listed)
    assert all((row["tunnelID"] == ZERO_UID) is (by == "user") for row in listed)


@pytest.mark.parametrize("by", ["service", "tunnel", "user"])
def test_traffic_pages_put_together_are_the_export(api, fleet, by):
    cursor, listed = "", []
    while True:
        answer = api.get(
            f"{OWN}/traffic/list", query=f"by={by}&period=hour&limit=1" + (f"&after={cursor}" if cursor else "")
        ).json
        listed += answer["traffic"]
        cursor = answer["next"]
        if not cursor:
            break
    exported = table(api, "traffic/export/csv", f"by={by}&period=hour&limit=1")
    assert [(row["start"], row["serviceID"], row["bytesIn"]) for row in listed] == [
        (row["start"], row["service_uid"], int(row["bytes_in"])) for row in exported
    ]
    assert len(exported) == len({tuple(row.values()) for row in exported}) >= 3


def test_traffic_filters(api, fleet):
    users, tunnels, services = fleet

    def listed(query):
        return sorted(row["bytesIn"] for row in rows(api.get(f"{OWN}/traffic/list", query=query), "traffic"))

    assert listed(f"tunnel={tunnels[0].uid}") == [11, 100]
    assert listed(f"service={services[0].upper()}&period=hour") == [1, 10]
    assert listed(f"user={users[1].uid}") == [1000]
    assert listed(f"period=hour&begin={DAY + 1}") == [1]
    assert listed(f"period=hour&end={DAY + 1}") == [10, 100, 1000]
    assert listed(f"tunnel={'b' * 32}") == []


@pytest.mark.parametrize(
    "query", ["by=x", "period=x", "begin=-1", "begin=x", "limit=0", "limit=1001", "after=1", "after=1-" + "g" * 96]
)
def test_traffic_bad_query_is_400(api, query):
    assert api.get(f"{OWN}/traffic/list", query=query).status_code == 400


@pytest.mark.parametrize("query", ["before=1", "before=1.5-x", "begin=-1", f"address={'a' * 256}", "user=1"])
def test_visits_bad_query_is_400(api, query):
    assert api.get(f"{OWN}/visit/list", query=query).status_code == 400


def test_visits_pages_put_together_are_the_export(api, fleet):
    cursor, listed = "", []
    while True:
        answer = api.get(f"{OWN}/visit/list", query="limit=2" + (f"&before={cursor}" if cursor else "")).json
        listed += answer["visits"]
        cursor = answer["next"]
        if not cursor:
            break
    exported = table(api, "visit/export/csv")
    assert [row["id"] for row in listed] == [row["uid"] for row in exported]
    assert [row["address"] for row in listed] == [f"198.51.100.{number}" for number in reversed(range(9))]
    assert listed[0]["established"] == "2027-01-16T00:00:00Z"


def test_visits_filters(api, fleet):
    _, tunnels, services = fleet
    assert len(rows(api.get(f"{OWN}/visit/list", query=f"tunnel={tunnels[0].uid}"), "visits")) == 6
    assert len(rows(api.get(f"{OWN}/visit/list", query=f"service={services[0]}"), "visits")) == 3
    assert len(rows(api.get(f"{OWN}/visit/list", query="address=198.51.100.3"), "visits")) == 1
    assert len(rows(api.get(f"{OWN}/visit/list", query=f"begin={DAY + 4}&end={DAY + 6}"), "visits")) == 2


def test_traffic_and_visits_of_others_do_not_exist_for_a_basic_caller(api, caller, fleet):
    users, tunnels, services = fleet
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=users[1].uid)
    for query in ("", f"user={users[1].uid}"):
        assert [row["bytesIn"] for row in rows(api.get(f"{OWN}/traffic/list", query=query), "traffic")] == [1000]
        assert len(rows(api.get(f"{OWN}/visit/list", query=query), "visits")) == 3
        assert len(table(api, "traffic/export/csv", query)) == 1
        assert len(table(api, "visit/export/csv", query)) == 3
    for query in (f"user={users[0].uid}", f"tunnel={tunnels[0].uid}", f"service={services[0]}", f"user={ZERO_UID}"):
        assert rows(api.get(f"{OWN}/traffic/list", query=query), "traffic") == []
        assert rows(api.get(f"{OWN}/visit/list", query=query), "visits") == []
        assert table(api, "traffic/export/csv", query) == table(api, "visit/export/csv", query) == []
    caller.caller = dataclasses.replace(caller.caller, user_uid=ZERO_UID)      # nobody's caller owns nothing
    assert rows(api.get(f"{OWN}/traffic/list"), "traffic") == rows(api.get(f"{OWN}/visit/list"), "visits") == []
