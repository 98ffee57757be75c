from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.app import create_app
from spokes.config_values import PortRange
from spokes.model.ports import AllocatePort
from spokes.model.users import CreateUser
from tests.admin.tunnel_cases import new_tunnel
from tests.support import admin_shapes as shapes
from tests.support.admin import Api
from tests.support.admin_shapes import check_shape
from tests.support.operations import do

TCP = "tunnel/traffic/tcp"
PORTMAP = "tunnel/traffic/portmap"


@pytest.fixture
def tunnel(store):
    return new_tunnel(store)


@pytest.fixture
def api(admin, caller):
    """A server with two ports to give."""
    return Api(create_app(dataclasses.replace(admin, tcp_ports=PortRange(22001, 22002)), authenticate=caller))


@pytest.fixture
def rules(api, tunnel):
    return lambda: api.get(f"tunnel/config/{tunnel.uid}").json["config"].get("ports", [])


def test_range(api):
    answer = api.get("port/range").json
    check_shape(answer, {**shapes.ENVELOPE, "range": {"begin": shapes.u16, "end": shapes.u16}})
    assert answer["range"] == {"begin": 22001, "end": 22002}


def test_list_without_ports_is_an_empty_list(api):
    assert api.get("port/list").json["ports"] == []


def test_allocate_lowest_free_port_shown_at_once_until_none_is_left(api, tunnel, control, rules):
    for number in (22001, 22002):
        answer = api.get(f"{TCP}/allocate/{tunnel.uid}").json
        check_shape(answer, {**shapes.ENVELOPE, "ports": [shapes.PORT_TUN]})
        assert answer["ports"] == [{"port": number, "tunID": tunnel.uid}]
    assert rules() == [{"port": 22001}, {"port": 22002}]
    assert api.get("port/list").json["ports"] == [{"port": n, "tunID": tunnel.uid} for n in (22001, 22002)]
    full = api.get(f"{TCP}/allocate/{tunnel.uid}")
    assert (full.status_code, full.json["code"]) == (429, "SPK-LIMIT")
    assert len(control.called("changed")) == 2


def test_allocate_passes_over_ports_that_other_programs_hold(api, tunnel, control):
    control.answers["changed"] = {"refused_ports": [22000, 22001]}
    assert api.get(f"{TCP}/allocate/{tunnel.uid}").json["ports"] == [{"port": 22002, "tunID": tunnel.uid}]
    assert [port["port"] for port in api.get("port/list").json["ports"]] == [22002]


def test_allocate_with_every_port_held_is_503_and_keeps_none(api, tunnel, control):
    control.answers["changed"] = {"refused_ports": list(range(22000, 23000))}
    refused = api.get(f"{TCP}/allocate/{tunnel.uid}")
    assert (refused.status_code, refused.json["code"]) in ((503, "SPK-ADDRESS-IN-USE"), (429, "SPK-LIMIT"))
    assert api.get("port/list").json["ports"] == []


def test_allocate_limit_of_the_owner_is_403(api, store):
    mara = do(store, CreateUser(fullname="Mara", check_ports=True, max_ports=1))
    first, second = (new_tunnel(store, user_uid=mara.uid) for _ in range(2))
    assert api.get(f"{TCP}/allocate/{first.uid}").status_code == 200
    assert api.get(f"{TCP}/allocate/{second.uid}").status_code == 403


def test_release_takes_the_forwarding_along(api, tunnel, store, rules):
    api.get(f"{TCP}/allocate/{tunnel.uid}")
    api.post(f"{TCP}/update/{tunnel.uid}", {"ports": [{"port": 22001, "dstPort": 22}]})
    assert api.post(f"{TCP}/release/{tunnel.uid}", {"port": 22001}).status_code == 200
    assert rules() == []
    assert api.get("port/list").json["ports"] == []
    other = new_tunnel(store)
    do(store, AllocatePort(other.uid, 22001, 22001))
    for body, status in (({"port": 22001}, 404), ({"port": 0}, 400), ({}, 400), (None, 400)):
        assert api.post(f"{TCP}/release/{tunnel.uid}", body).status_code == status
    assert store.ports.select(other.uid)


def test_update_and_reset_whole_or_not_at_all(api, tunnel, store, rules, control):
    for _ in range(2):
        api.get(f"{TCP}/allocate/{tunnel.uid}")
    firewall = [{"sequence": 0, "action": "allow", "network": "203.0.113.0/24"}]
    whole = {"port": 22002, "destination": "10.0.0.5", "dstPort": 22, "firewall": firewall}
    answer = api.post(f"{TCP}/update/{tunnel.uid}", {"ports": [whole]}).json
    assert answer["message"] == "1 port updated"
    assert answer["warning"] == "kept, but not in force in this version: firewall"
    assert rules() == [{"port": 22001}, whole]
    before = store.changes.position()
    for bad, status in (
        ({"port": 22003, "dstPort": 1}, 404), ({"port": 0, "dstPort": 1}, 400), ({"dstPort": 1}, 400),
        ({"port": 22002, "destination": "host"}, 400), ({"port": 22002, "destination": "a b", "dstPort": 1}, 400),
        ({"port": "22002"}, 400), ({"port": True}, 400), ({"port": -1}, 400),
        ({"port": 22002, "firewall": [{"sequence": 1, "action": "allow", "network": "x"}]}, 400),
    ):
        body = {"ports": [{"port": 22001, "dstPort": 80}, bad]}
        assert api.post(f"{TCP}/update/{tunnel.uid}", body).status_code == status, bad
    assert api.post(f"{TCP}/reset/{tunnel.uid}", {"ports": [22002, 22003]}).status_code == 404
    assert store.changes.position() == before
    assert api.post(f"{TCP}/update/{tunnel.uid}", {"ports": [{"port": 22002, "dstPort": 23}]}).status_code == 200
    assert rules() == [{"port": 22001}, {"port": 22002, "dstPort": 23}]
    assert api.post(f"{TCP}/reset/{tunnel.uid}", {"ports": [22002]}).json["message"] == "1 port reset"
    assert rules() == [{"port": 22001}, {"port": 22002}]


@pytest.mark.parametrize(("path", "key"), [
    (f"{TCP}/update", "ports"), (f"{TCP}/reset", "ports"), (f"{PORTMAP}/update", "portmaps"),
    (f"{PORTMAP}/remove", "listenPorts"),
])  # fmt: skip
def test_empty_lists_are_done(api, tunnel, control, path, key):
    for body in ({key: []}, {key: None}, {key: [None]}, {}, None):
        assert api.post(f"{path}/{tunnel.uid}", body).status_code == 200
    assert control.calls == []
    for wrong in ({key: 5}, {key: ["5"]}, {key: [True]}, [], "x"):
        assert api.post(f"{path}/{tunnel.uid}", wrong).status_code == 400


def test_portmaps_added_replaced_and_removed_for_both_transports(api, tunnel, control):
    def stored():
        return api.get(f"tunnel/config/{tunnel.uid}").json["config"].get("portmaps", [])

    tcp = {"listenPort": 53, "dstPort": 22001, "destination": "", "transport": "", "label": "dns"}
    udp = {**tcp, "transport": "UDP", "destination": "calm-otter-1.tun.example.net"}
    answer = api.post(f"{PORTMAP}/update/{tunnel.uid}", {"portmaps": [tcp, udp]}).json
    assert answer["message"] == "2 port maps updated"
    assert answer["warning"] == "kept, but not served in this version"
    assert [(one["transport"], one["destination"]) for one in stored()] == [("tcp", ""), ("udp", udp["destination"])]
    again = {"listenPort": 53, "dstPort": 22002, "destination": "", "transport": "tcp", "http": True}
    assert api.post(f"{PORTMAP}/update/{tunnel.uid}", {"portmaps": [again]}).status_code == 200
    assert stored()[0] == {**again, "label": ""}
    for bad in ({**tcp, "listenPort": 0}, {**tcp, "dstPort": 0}, {**tcp, "transport": "sctp"}, {**tcp, "http": 1},
                {**tcp, "destination": "a b"}):  # fmt: skip
        body = {"portmaps": [{**again, "label": "x"}, bad]}
        assert api.post(f"{PORTMAP}/update/{tunnel.uid}", body).status_code == 400
    assert stored()[0]["label"] == ""
    assert api.post(f"{PORTMAP}/remove/{tunnel.uid}", {"listenPorts": [53, 54]}).status_code == 404
    assert api.post(f"{PORTMAP}/remove/{tunnel.uid}", {"listenPorts": [53]}).status_code == 200
    assert stored() == []
    assert len(control.called("changed")) == 3
