from __future__ import annotations

import pytest

from spokes.errors import ControlError, InactiveError, TokenError
from spokes.ids import ZERO_UID
from spokes.model.sites import PutSites
from spokes.model.tunnels import DeleteTunnel, SetTunnelState
from spokes.model.users import CreateUser, EditUser
from spokes.store import TunnelState
from tests.admin.tunnel_cases import DOMAIN, UNKNOWN, basic, new_tunnel, put_online
from tests.support import admin_shapes as shapes
from tests.support.admin import OWN
from tests.support.admin_shapes import check_shape
from tests.support.operations import do

CHOSEN = "61d2b7a4c8f94e0d9b3a5c6d7e8f9012"


@pytest.fixture
def mara(store):
    return do(store, CreateUser(fullname="Mara"))


def create(api, **members):
    return api.post("user/tunnel/create", {"userID": ZERO_UID, "tunID": ZERO_UID, "name": "desk", "hostname": "",
                                           **members})  # fmt: skip


def test_create_as_the_contract_shows(api, store, mara):
    """Example 37."""
    answer = create(api, userID=mara.uid).json
    check_shape(answer, {**shapes.ENVELOPE, "tunnel": shapes.TUNNEL, "token": shapes.TOKEN})
    tunnel, token = answer["tunnel"], answer["token"]
    drawn = ("id", "created", "hostname")
    assert {key: tunnel[key] for key in tunnel.keys() - drawn} == {
        "userID": mara.uid, "lastActive": "0001-01-01T00:00:00Z", "state": 1, "uptime": 0,
        "bandwidth": {"daily": 0, "monthly": 0}, "name": "desk", "address": "", "version": "", "os": "", "arch": "",
    }
    assert tunnel["hostname"].endswith(f".{DOMAIN}")
    assert token["created"] == token["modified"] == tunnel["created"]
    assert (token["active"], token["description"]) == (True, "desk")
    assert store.tunnels.find_by_key(token["value"]).uid == tunnel["id"]


def test_create_id_of_ones_own_and_then_linked_to_a_user(api, store, mara):
    assert create(api, tunID=CHOSEN.upper()).json["tunnel"]["id"] == CHOSEN
    linked = create(api, tunID=CHOSEN, userID=mara.uid, name="mara's").json
    assert (linked["tunnel"]["userID"], linked["tunnel"]["name"]) == (mara.uid, "mara's")
    (listed,) = api.get(f"user/tunnel/list/{mara.uid}").json["tunnels"]
    assert listed == linked["tunnel"]
    do(store, DeleteTunnel(CHOSEN))
    assert create(api, tunID=CHOSEN).status_code == 404


def test_create_absent_or_null_tunid_is_a_new_one(api):
    """Older clients send none."""
    for body in ({"userID": ZERO_UID}, {"userID": None, "tunID": None, "name": None}, {}):
        assert api.post("user/tunnel/create", body).status_code == 200


def test_create_hostname_chosen_taken_or_not_ours(api):
    name = f"desk.{DOMAIN}"
    assert create(api, hostname=f"Desk.{DOMAIN}").json["tunnel"]["hostname"] == name
    assert create(api, hostname=name).status_code == 409
    for refused in ("desk.example.org", f"admin.{DOMAIN}", DOMAIN, "a..b"):
        assert create(api, hostname=refused).status_code == 400


def test_create_unknown_user_is_404(api):
    assert create(api, userID=UNKNOWN).status_code == 404


def test_create_limit_of_the_user_is_403(api, store, mara):
    do(store, EditUser(mara.uid, max_tunnels=1))
    assert create(api, userID=mara.uid).status_code == 200
    assert create(api, userID=mara.uid).status_code == 403


def test_create_basic_caller_only_for_themselves(api, store, caller, mara):
    theirs = new_tunnel(store, "theirs")
    caller.caller = basic(mara.uid)
    assert create(api, userID=mara.uid).status_code == 200
    assert create(api).status_code == 404
    assert create(api, userID=mara.uid, tunID=theirs.uid).status_code == 409
    assert store.tunnels.get(theirs.uid) == theirs


def test_create_does_not_let_a_basic_caller_undo_a_shutdown(api, store, caller, mara):
    tunnel = new_tunnel(store, user_uid=mara.uid)
    do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    again = {"userID": mara.uid, "tunID": tunnel.uid, "name": "desk", "hostname": ""}
    administrator, caller.caller = caller.caller, basic(mara.uid)
    result = api.post("user/tunnel/create", again)
    assert (result.status_code, result.json["code"]) == (403, "SPK-FORBIDDEN")
    assert store.tunnels.get(tunnel.uid).state is TunnelState.SHUTDOWN
    caller.caller = administrator
    assert api.post("user/tunnel/create", again).json["tunnel"]["state"] == TunnelState.INIT


def test_stop_ends_the_session_and_keeps_the_token(api, store, control):
    tunnel = new_tunnel(store)
    put_online(store, control, tunnel)
    key = store.tunnels.auth_token(tunnel.uid).value
    assert api.get(f"user/tunnel/stop/{tunnel.uid}").json["message"] == "tunnel stopped"
    assert control.called("stop_tunnel") == [{"id": tunnel.uid}]
    assert store.tunnels.find_by_key(key).uid == tunnel.uid
    assert store.audit.select(object_uid=tunnel.uid)[0].action == "tunnel.stop"
    del control.answers["live"]["tunnels"][tunnel.uid]
    assert api.get(f"tunnel/info/{tunnel.uid}").json["tunnel"]["state"] == 3


def test_stop_offline_tunnel_is_done(api, store, control, monkeypatch):
    tunnel = new_tunnel(store)
    control.gone = True
    assert api.get(f"user/tunnel/stop/{tunnel.uid}").status_code == 200

    def refusing(op, **args):
        raise ControlError("this tunnel is not on-line here", code="SPK-NOT-FOUND")

    monkeypatch.setattr(control, "call", refusing)
    assert api.get(f"user/tunnel/stop/{tunnel.uid}").status_code == 200


def test_list_of_user_unknown_one_is_404_and_the_systems_are_zeros(api, store, mara):
    new_tunnel(store, "mara's", user_uid=mara.uid)
    system = new_tunnel(store, "system's")
    assert api.get(f"user/tunnel/list/{UNKNOWN}").status_code == 404
    answer = api.get(f"user/tunnel/list/{ZERO_UID}").json
    check_shape(answer, {**shapes.ENVELOPE, "tunnels": [shapes.TUNNEL]})
    assert [tunnel["id"] for tunnel in answer["tunnels"]] == [system.uid]


def test_tunnel_delete_takes_its_rules_along_and_only_the_owners(api, caller, store, control):
    owner, other = do(store, CreateUser()), do(store, CreateUser())
    tunnel = new_tunnel(store, user_uid=owner.uid)
    do(store, PutSites(tunnel.uid, [{"domain": "a.example.org"}]))
    path = "/api/admin/v1.1/tunnel/delete"
    caller.caller = basic(other.uid)
    assert api.post(path, {"tunID": tunnel.uid}).status_code == 404
    caller.caller = basic(owner.uid)
    assert api.post(path, {"tunID": tunnel.uid}).json["message"] == "tunnel deleted"
    assert store.tunnels.get(tunnel.uid).state == TunnelState.DELETED and store.sites.select() == []
    assert control.called("changed")
    assert api.post(path, {"tunID": tunnel.uid}).status_code == 404
    assert api.post(path, {}).status_code == 400


def test_create_basic_user_without_a_maximum_has_the_servers(api, store, mara):
    store.settings.tunnels_per_user_max = 2
    assert [create(api, userID=mara.uid).status_code for _ in range(3)] == [200, 200, 403]
    assert api.post("user/edit", {"userID": mara.uid, "Active": True, "maxTunnels": 3}).status_code == 200
    assert [create(api, userID=mara.uid).status_code for _ in range(2)] == [200, 403]
    boss = do(store, CreateUser(role="admin"))
    for owner in (boss.uid, ZERO_UID):
        assert [create(api, userID=owner).status_code for _ in range(3)] == [200, 200, 200]
    store.settings.tunnels_per_user_max = 0
    other = do(store, CreateUser())
    assert [create(api, userID=other.uid).status_code for _ in range(3)] == [200, 200, 200]


def test_tunnel_key_is_switched_off_by_administrators_and_renewed_by_owners_too(api, caller, store, control, mara):
    tunnel = new_tunnel(store, user_uid=mara.uid)
    before = store.tunnels.auth_token(tunnel.uid)
    administrator, caller.caller = caller.caller, basic(mara.uid)
    off = {"tunID": tunnel.uid, "active": False}
    assert api.post(f"{OWN}/tunnel/key/edit", off).status_code == 403
    answer = api.post(f"{OWN}/tunnel/key/renew", {"tunID": tunnel.uid}).json
    check_shape(answer, {**shapes.ENVELOPE, "token": shapes.TOKEN})
    renewed = answer["token"]["value"]
    assert renewed != before.value and store.tunnels.find_by_key(renewed).uid == tunnel.uid
    with pytest.raises(TokenError):
        store.tunnels.find_by_key(before.value)
    assert control.called("changed")

    caller.caller = administrator
    answer = api.post(f"{OWN}/tunnel/key/edit", off).json
    check_shape(answer, {**shapes.ENVELOPE, "token": shapes.TOKEN})
    assert answer["token"]["active"] is False
    with pytest.raises(InactiveError, match="key is switched off"):
        store.tunnels.find_by_key(renewed)
    caller.caller = basic(mara.uid)
    for path in ("tunnel/key/renew", "user/tunnel/create"):       # neither is a way around it
        api.post(f"{OWN}/{path}" if "key" in path else path, {"userID": mara.uid, "tunID": tunnel.uid})
        assert not store.tunnels.auth_token(tunnel.uid).active
    caller.caller = administrator
    assert api.post(f"{OWN}/tunnel/key/edit", {**off, "active": True}).json["token"]["active"] is True
    assert renewed not in "".join(store.audit.export())
    for body in ({"tunID": UNKNOWN, "active": True}, {"tunID": UNKNOWN}):
        assert api.post(f"{OWN}/tunnel/key/edit", body).status_code in (400, 404)
