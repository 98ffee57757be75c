from __future__ import annotations

import pytest

from spokes import clock
from spokes.errors import ControlError, InactiveError
from spokes.ids import ZERO_UID
from spokes.model.ports import AllocatePort, PutPortRules
from spokes.model.sites import PutSites
from spokes.model.tunnels import DeleteTunnel, EditTunnel, SetTunnelState
from spokes.model.users import CreateUser
from spokes.store import PresenceUpdate, TrafficDelta, TunnelState
from tests.admin.tunnel_cases import DOMAIN, UNKNOWN, basic, new_tunnel, put_online
from tests.support import admin_shapes as shapes
from tests.support.admin import V1
from tests.support.admin_shapes import check_shape
from tests.support.operations import do


@pytest.fixture
def tunnel(store):
    return new_tunnel(store)


def walk(api, links):
    """As programs fetch a long list."""
    found = []
    for link in links:
        assert link["url"] == f"{V1}/tunnel/page/{link['uid']}"
        page = api.get(f"tunnel/page/{link['uid']}").json
        check_shape(page, {**shapes.ENVELOPE, "tunnels": [shapes.TUNNEL]})
        assert len(page["tunnels"]) == link["count"]
        found += [one["id"] for one in page["tunnels"]]
    return found


def test_search_as_the_contract_shows(api, store, control, tunnel):
    """Example 14 of the contract, but for what is drawn: ids, the hostname and times."""
    put_online(store, control, tunnel)
    now = clock.wall_s()
    store.traffic.add(now, [TrafficDelta(service_uid="1" * 32, tunnel_uid=tunnel.uid, bytes_in=48576,
                                         bytes_out=1_000_000)])  # fmt: skip
    answer = api.post("tunnel/search", {"term": "shop", "os": "linux", "arch": "", "version": ""}).json
    check_shape(answer, {**shapes.ENVELOPE, "total": shapes.number, "tunnels": [shapes.TUNNEL], "links": [shapes.LINK]})
    assert (answer["status"], answer["error"], answer["total"]) == (True, "", 1)
    (found,) = answer["tunnels"]
    drawn = ("id", "created", "lastActive", "hostname")
    assert {key: found[key] for key in found.keys() - drawn} == {
        "userID": ZERO_UID, "state": 2, "uptime": 5025, "bandwidth": {"daily": 1048576, "monthly": 1048576},
        "name": "shop till 4", "address": "198.51.100.7", "version": "1.2.0", "os": "linux", "arch": "amd64",
    }
    assert found["hostname"].endswith(f".{DOMAIN}")
    (link,) = answer["links"]
    assert link == {"uid": link["uid"], "order": 1, "count": 1, "url": f"{V1}/tunnel/page/{link['uid']}"}


def test_search_null_body_finds_everything_in_pages(api, store):
    uids = [new_tunnel(store, f"t{n}").uid for n in range(203)]
    answer = api.post("tunnel/search", b"null\n").json
    assert (answer["total"], len(answer["tunnels"])) == (203, 100)
    assert [(link["order"], link["count"]) for link in answer["links"]] == [(1, 100), (2, 100), (3, 3)]
    found = walk(api, answer["links"])
    assert [one["id"] for one in answer["tunnels"]] == found[:100]
    assert sorted(found) == sorted(uids)
    assert api.get("tunnel/list").json["links"] == answer["links"]


@pytest.mark.parametrize(("condition", "hit"), [
    ({"term": "SHOP"}, True), ({"term": "till%"}, False), ({"term": "t_ll"}, False), ({"term": "198.51"}, True),
    ({"term": "Cafe.Example"}, True), ({"os": "LINUX"}, True), ({"os": "lin"}, False), ({"version": "1.2"}, True),
    ({"version": "2"}, False), ({"arch": "amd64", "os": "linux", "term": "shop"}, True),
    ({"arch": "arm64", "os": "linux", "term": "shop"}, False), ({"term": "' OR 1=1 --"}, False),
])  # fmt: skip
def test_search_conditions_are_joined(api, store, control, tunnel, condition, hit):
    put_online(store, control, tunnel)
    do(store, PutSites(tunnel.uid, [{"domain": "cafe.example.org", "port": 1}]))
    answer = api.post("tunnel/search", condition).json
    assert [one["id"] for one in answer["tunnels"]] == [tunnel.uid] * hit
    assert (answer["total"], len(answer["links"])) == (hit, hit)


def test_list_without_tunnels_has_no_links_and_no_tunnels(api):
    answer = api.get("tunnel/list").json
    check_shape(answer, {**shapes.ENVELOPE, "total": shapes.number, "links": [shapes.LINK]})
    assert (answer["total"], answer["links"]) == (0, [])


def test_page_frozen_ids_filled_with_present_data(api, store, tunnel):
    other = new_tunnel(store, "other")
    (link,) = api.get("tunnel/list").json["links"]
    new_tunnel(store, "later")
    do(store, EditTunnel(other.uid, name="renamed"))
    do(store, DeleteTunnel(tunnel.uid))
    (shown,) = api.get(f"tunnel/page/{link['uid']}").json["tunnels"]
    assert (shown["id"], shown["name"]) == (other.uid, "renamed")
    for unknown in (UNKNOWN, link["uid"][:-1] + "9"):
        assert api.get(f"tunnel/page/{unknown}").status_code == 404


def test_lists_by_state(api, store, control):
    init, online, offline, shut, deleted = (new_tunnel(store, f"t{n}") for n in range(5))
    for tunnel in (online, offline):
        put_online(store, control, tunnel)
    del control.answers["live"]["tunnels"][offline.uid]          # gone this moment; the store has not heard of it
    do(store, SetTunnelState(shut.uid, TunnelState.SHUTDOWN))
    do(store, DeleteTunnel(deleted.uid))
    for path, expected in (("active", {init.uid: 1, online.uid: 2, offline.uid: 3}), ("online", {online.uid: 2})):
        answer = api.get(f"tunnel/list/{path}").json
        check_shape(answer, {**shapes.ENVELOPE, "total": shapes.number, "tunnels": [shapes.TUNNEL]})
        assert {tunnel["id"]: tunnel["state"] for tunnel in answer["tunnels"]} == expected
        assert answer["total"] == len(expected)
    assert api.get("tunnel/list").json["total"] == 4


def test_list_online_is_what_the_server_knows_newest_first(api, caller, store, control):
    owner = do(store, CreateUser())
    time = clock.ManualClock()
    with clock.replaced(time):
        tunnels = []
        for n in range(4):
            time.advance(1)
            tunnels.append(new_tunnel(store, f"t{n}", user_uid=owner.uid if n == 1 else ZERO_UID))
        for tunnel in tunnels:
            put_online(store, control, tunnel)
    first, second, shut, unseen = tunnels
    do(store, SetTunnelState(shut.uid, TunnelState.SHUTDOWN))       # its session is about to end
    store.presence.write([PresenceUpdate(tunnel_uid=unseen.uid, state=TunnelState.OFFLINE, last_active=1.0)])
    control.answers["live"]["tunnels"][UNKNOWN] = control.answers["live"]["tunnels"][first.uid]
    answer = api.get("tunnel/list/online").json
    assert [one["id"] for one in answer["tunnels"]] == [unseen.uid, second.uid, first.uid]
    assert {one["state"] for one in answer["tunnels"]} == {int(TunnelState.ONLINE)} and answer["total"] == 3
    caller.caller = basic(owner.uid)
    assert [one["id"] for one in api.get("tunnel/list/online").json["tunnels"]] == [second.uid]


@pytest.mark.parametrize(("query", "detailed"), [("details=true", True), ("details=1", False), ("", False)])
def test_lists_details_only_by_the_literal_true(api, store, control, tunnel, query, detailed):
    put_online(store, control, tunnel)
    for path in ("tunnel/list/active", "tunnel/list/online", f"user/tunnel/list/{ZERO_UID}"):
        (shown,) = api.get(path, query=query).json["tunnels"]
        check_shape(shown, shapes.DETAILED_TUNNEL if detailed else shapes.TUNNEL)
        assert ("https" in shown, "ports" in shown) == (detailed, detailed)


def test_info_services_with_their_traffic_and_what_answers_now(api, store, control, tunnel):
    served, broken = do(store, PutSites(tunnel.uid, [
        {"domain": "a.example.org", "secure": True}, {"domain": "b.example.org"}
    ]))  # fmt: skip
    port, bare = (do(store, AllocatePort(tunnel.uid, 22000, 22999)) for _ in range(2))
    do(store, PutPortRules(tunnel.uid, {port: {"dstPort": 22}}))
    put_online(store, control, tunnel, sites=("a.example.org",), ports=(port,))
    store.traffic.add(clock.wall_s(), [
        TrafficDelta(service_uid=served.uid, tunnel_uid=tunnel.uid, bytes_in=2, bytes_out=3)
    ])  # fmt: skip
    answer = api.get(f"tunnel/info/{tunnel.uid.upper()}").json
    check_shape(answer, {**shapes.ENVELOPE, "tunnel": shapes.DETAILED_TUNNEL})
    shown = answer["tunnel"]
    assert shown["bandwidth"] == {"daily": 5, "monthly": 5}
    assert [(one["id"], one["available"], one["secure"], one["bandwidth"]["daily"]) for one in shown["https"]] == [
        (served.uid, True, True, 5), (broken.uid, False, False, 0)
    ]  # fmt: skip
    assert [(one["port"], one["active"], one["available"], one["protocol"]) for one in shown["ports"]] == [
        (port, True, True, 1), (bare, False, False, 1)
    ]  # fmt: skip
    assert {one["tunID"] for one in shown["https"] + shown["ports"]} == {tunnel.uid}


def test_info_server_that_cannot_tell_shows_what_the_store_saw(api, store, control, tunnel, monkeypatch):
    put_online(store, control, tunnel)

    def failing(op, **args):
        raise ControlError("the server did not answer")

    monkeypatch.setattr(control, "call", failing)
    shown = api.get(f"tunnel/info/{tunnel.uid}").json["tunnel"]
    assert (shown["state"], shown["uptime"]) == (2, 0)


def test_info_no_server_nobody_is_online(api, store, control, tunnel):
    put_online(store, control, tunnel)
    control.gone = True
    shown = api.get(f"tunnel/info/{tunnel.uid}").json["tunnel"]
    assert (shown["state"], shown["uptime"]) == (3, 0)


def test_auth_token_is_the_one_the_client_logs_in_with(api, store, tunnel):
    answer = api.get(f"tunnel/auth/{tunnel.uid}").json
    check_shape(answer, {**shapes.ENVELOPE, "token": shapes.TOKEN})
    assert store.tunnels.find_by_key(answer["token"]["value"]).uid == tunnel.uid
    assert answer["token"]["description"] == "shop till 4"


def test_config_as_the_contract_shows(api, store, control, tunnel):
    """Example 18: every member that it shows, in its very form."""
    put_online(store, control, tunnel)
    first, second = (do(store, AllocatePort(tunnel.uid, 22001, 22999)) for _ in range(2))
    api.post(f"tunnel/traffic/http/update/{tunnel.uid}", {"sites": [
        {"domain": "shop.example.org", "secure": True, "destination": "127.0.0.1", "port": 8080, "redirect": True}
    ]})  # fmt: skip
    api.post(f"tunnel/traffic/tcp/update/{tunnel.uid}",
             {"ports": [{"port": second, "destination": "10.0.0.5", "dstPort": 22}]})  # fmt: skip
    api.post(f"tunnel/traffic/portmap/update/{tunnel.uid}", {"portmaps": [
        {"listenPort": 5432, "dstPort": 22002, "destination": "", "transport": "tcp", "label": "db"}
    ]})  # fmt: skip
    answer = api.get(f"tunnel/config/{tunnel.uid}").json
    check_shape(answer, {**shapes.ENVELOPE, "config": shapes.CONFIG})
    config = answer["config"]
    key = config.pop("key")
    assert store.tunnels.find_by_key(key).uid == tunnel.uid
    portmap, = config["portmaps"]
    assert portmap.pop("http", False) is False
    assert config == {
        "hostname": tunnel.hostname, "serverHost": DOMAIN, "version": "1.2.0", "os": "linux", "arch": "amd64",
        "https": [{"domain": "shop.example.org", "secure": True, "destination": "127.0.0.1", "port": 8080,
                   "redirect": True}],
        "ports": [{"port": first}, {"port": second, "destination": "10.0.0.5", "dstPort": 22}],
        "portmaps": [{"listenPort": 5432, "dstPort": 22002, "destination": "", "transport": "tcp", "label": "db"}],
    }  # fmt: skip


def test_shutdown_refuses_logins_until_it_is_named_again(api, store, control, tunnel):
    key = api.get(f"tunnel/auth/{tunnel.uid}").json["token"]["value"]
    for _ in range(2):                                           # a second call is fine
        assert api.get(f"tunnel/shutdown/{tunnel.uid}").status_code == 200
    assert len(control.called("changed")) == 2
    assert api.get(f"tunnel/info/{tunnel.uid}").json["tunnel"]["state"] == 4
    with pytest.raises(InactiveError):
        store.tunnels.find_by_key(key)
    again = api.post("user/tunnel/create", {"userID": ZERO_UID, "tunID": tunnel.uid, "name": "", "hostname": ""}).json
    assert (again["tunnel"]["state"], again["tunnel"]["name"]) == (1, "shop till 4")
    assert store.tunnels.find_by_key(key).uid == tunnel.uid


def test_shutdown_control_socket_gone_the_decision_stands(api, store, control, tunnel):
    control.gone = True
    assert api.get(f"tunnel/shutdown/{tunnel.uid}").json["status"] is True
    assert store.tunnels.get(tunnel.uid).state == TunnelState.SHUTDOWN


def test_shutdown_is_written_down_with_who_did_it(api, store, tunnel):
    api.get(f"tunnel/shutdown/{tunnel.uid}")
    event = store.audit.select(object_uid=tunnel.uid)[0]
    assert (event.action, event.actor_name) == ("tunnel.shutdown", "test key")


PATHS = ("tunnel/info", "tunnel/auth", "tunnel/config", "tunnel/shutdown", "tunnel/traffic/tcp/allocate",
         "user/tunnel/stop")  # fmt: skip
POSTS = (
    ("tunnel/traffic/http/update", {"sites": []}), ("tunnel/traffic/http/remove", {}),
    ("tunnel/traffic/tcp/release", {"port": 22000}), ("tunnel/traffic/tcp/update", {"ports": []}),
    ("tunnel/traffic/tcp/reset", {"ports": []}), ("tunnel/traffic/portmap/update", {}),
    ("tunnel/traffic/portmap/remove", {"listenPorts": None}),
)  # fmt: skip


def test_unknown_deleted_and_somebody_elses_tunnel_is_404_everywhere(api, store, caller, control):
    mara = do(store, CreateUser(fullname="Mara"))
    deleted, theirs = new_tunnel(store, user_uid=mara.uid), new_tunnel(store)
    do(store, DeleteTunnel(deleted.uid))
    caller.caller = basic(mara.uid)
    before = store.changes.position()
    for uid in (UNKNOWN, ZERO_UID, deleted.uid, theirs.uid):
        for path in PATHS:
            assert api.get(f"{path}/{uid}").status_code == 404, path
        for path, body in POSTS:
            assert api.post(f"{path}/{uid}", body).status_code == 404, path
    for junk in ("1", "x" * 32, "3b1f0c5d-7e9a-4286-8fd0-c1b2a3948576"):
        assert api.get(f"tunnel/info/{junk}").status_code == 400
    assert store.changes.position() == before
    assert control.calls == []


@pytest.mark.parametrize("term", ["\u00e4\u00f6", "\u00c4\u00d6", "b\u00fcro", "kasse \u00c4"])
def test_search_non_ascii_term_shows_a_basic_caller_only_their_own(api, store, caller, term):
    """Compared here and not in the database: the owner is a condition there all the same."""
    mara = do(store, CreateUser(fullname="Mara"))
    own, theirs = (new_tunnel(store, "Ladenkasse \u00c4\u00d6", user_uid=uid) for uid in (mara.uid, ZERO_UID))
    do(store, PutSites(own.uid, [{"domain": "b\u00fcro.example.org"}]))
    do(store, PutSites(theirs.uid, [{"domain": "b\u00fcro.example.net"}]))

    def found():
        answer = api.post("tunnel/search", {"term": term}).json
        return answer["total"], {tunnel["id"] for tunnel in answer["tunnels"]}

    assert found() == (2, {own.uid, theirs.uid})
    caller.caller = basic(mara.uid)
    assert found() == (1, {own.uid})


def test_basic_caller_sees_only_their_own_in_every_list(api, store, caller, control):
    mara = do(store, CreateUser(fullname="Mara"))
    own, theirs = new_tunnel(store, "own", user_uid=mara.uid), new_tunnel(store, "theirs")
    for tunnel in (own, theirs):
        put_online(store, control, tunnel)
        do(store, AllocatePort(tunnel.uid, 22000, 22999))
    (everybodys,) = api.get("tunnel/list").json["links"]
    caller.caller = basic(mara.uid)
    assert walk(api, api.get("tunnel/list").json["links"]) == [own.uid]
    for answer in (
        api.get("tunnel/list/active"), api.get("tunnel/list/online"), api.post("tunnel/search", {}),
        api.get(f"tunnel/page/{everybodys['uid']}"), api.get(f"user/tunnel/list/{mara.uid}"),
    ):
        assert [tunnel["id"] for tunnel in answer.json["tunnels"]] == [own.uid]
    assert {port["tunID"] for port in api.get("port/list").json["ports"]} == {own.uid}
    assert api.get(f"user/tunnel/list/{ZERO_UID}").status_code == 404
