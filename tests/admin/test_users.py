from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.context import Role
from spokes.clock import wall_s
from spokes.ids import ZERO_UID, is_uid
from spokes.model.tunnels import CreateTunnel
from spokes.store import TrafficDelta
from tests.support.admin import ADMINISTRATOR
from tests.support.operations import do

UNKNOWN = "f" * 32
OWN = "90aa1f6e2c4b4d7cb8e5f60718293a4b"


def create(api, **properties):
    result = api.post("user/create", {"userID": ZERO_UID, "Active": True, **properties})
    assert result.status_code == 200, result.text
    return result.json["user"]


def test_user_create_as_the_contract_shows(api):
    user = create(api, email="mara@example.org", fullname="Mara Lind", bandwidth=2000)
    assert is_uid(user["id"]) and user["id"] != ZERO_UID
    assert user["created"] == user["modified"]
    assert {key: user[key] for key in user.keys() - {"id", "created", "modified"}} == {
        "active": True, "fullname": "Mara Lind", "email": "mara@example.org", "phone": "", "bandwidth": 2000,
        "maxBandwidth": False, "checkDomains": False, "maxPorts": 0, "checkPorts": False,
    }
    assert api.get(f"user/get/{user['id']}").json["user"] == user
    assert api.get("user/list").json["users"] == [user]


@pytest.mark.parametrize(("flag", "active"), [({}, True), ({"Active": False}, False), ({"active": False}, False)])
def test_user_create_active_is_obeyed_and_true_when_absent(api, flag, active):
    assert api.post("user/create", {"userID": ZERO_UID, **flag}).json["user"]["active"] is active


def test_user_import_keeps_the_id_once(api):
    for call in ("import", "create"):
        uid = {"import": OWN, "create": "1" * 32}[call]
        assert api.post(f"user/{call}", {"userID": uid.upper()}).json["user"]["id"] == uid
        assert api.post(f"user/{call}", {"userID": uid}).status_code == 409
    assert api.post("user/import", {"userID": ZERO_UID}).status_code == 403


def test_user_create_email_of_another_is_409(api):
    create(api, email="mara@example.org")
    assert api.post("user/create", {"email": "MARA@example.org"}).status_code == 409
    create(api)
    create(api)


def test_user_edit_changes_what_is_named(api):
    user = create(api, email="mara@example.org", bandwidth=10, maxPorts=3, checkPorts=True)
    body = {"userID": user["id"], "Active": False, "phone": "+49 1", "maxBandwidth": True, "maxPorts": None}
    assert api.post("user/edit", body).json["status"] is True
    edited = api.get(f"user/get/{user['id']}").json["user"]
    assert edited == {**user, "active": False, "phone": "+49 1", "modified": edited["modified"]}
    api.post("user/edit", {"userID": user["id"], "email": "", "bandwidth": 0, "checkPorts": False})
    edited = api.get(f"user/get/{user['id']}").json["user"]
    assert (edited["email"], edited["bandwidth"], edited["checkPorts"], edited["active"]) == ("", 0, False, False)


def test_user_activate_changes_nothing_else(api, control):
    user = create(api, email="mara@example.org")
    body = {"userID": user["id"], "Active": False, "email": "other@example.org"}
    assert api.post("user/activate", body).json["tunnels"] == []
    off = api.get(f"user/get/{user['id']}").json["user"]
    assert off == {**user, "active": False, "modified": off["modified"]}
    assert control.called("changed")


def test_user_delete_takes_the_tunnels_along(api, store):
    user = create(api)
    tunnel, _ = do(store, CreateTunnel(name="desk", domain="tun.example.net", user_uid=user["id"]))
    assert api.get(f"user/delete/{user['id']}").json["message"] == "user deleted, with 1 tunnel"
    assert store.tunnels.get(tunnel.uid).deleted_at is not None
    assert api.get(f"user/delete/{user['id']}").status_code == 404


def test_bandwidth_cap_sets_the_limit_and_the_flag_follows_the_usage(api, store):
    user = create(api)
    tunnel, _ = do(store, CreateTunnel(name="desk", domain="tun.example.net", user_uid=user["id"]))
    store.traffic.add(wall_s(), [TrafficDelta(
        service_uid=tunnel.uid, tunnel_uid=tunnel.uid, bytes_in=1_000_000, bytes_out=1_000_000, conns=1
    )])
    for max_mb, used_up in ((2, True), (3, False), (1, True), (0, False)):
        assert api.post("user/bandwidth/cap", {"userID": user["id"], "max": max_mb}).json["status"] is True
        shown = api.get(f"user/get/{user['id']}").json["user"]
        assert (shown["bandwidth"], shown["maxBandwidth"]) == (max_mb, used_up)
        assert api.get("user/list").json["users"] == [shown]


def test_domains_are_a_set_in_lower_case(api):
    user = create(api)
    for _ in range(2):
        body = {"userID": user["id"], "domains": ["Shop.Example.ORG", "*.example.net", None, "shop.example.org."]}
        assert api.post("user/domain/allow", body).json["status"] is True
    path = f"user/domain/list/{user['id']}"
    assert api.get(path).json["domains"] == ["*.example.net", "shop.example.org"]
    assert api.post("user/domain/remove", {"userID": user["id"], "domains": ["shop.example.org", "x.y"]}).json["status"]
    assert api.get(path).json["domains"] == ["*.example.net"]
    assert api.post("user/domain/allow", {"userID": user["id"], "domains": None}).json["status"] is True
    assert api.get(f"user/domain/reset/{user['id']}").json["status"] is True
    assert api.get(path).json["domains"] == []
    assert api.get(f"user/get/{user['id']}").json["user"]["checkDomains"] is False


@pytest.mark.parametrize("domain", ["", "*", "*.*.x", "a b", "-x.org", "1.2.3.4", "x" * 300, "a\u0000b", "%s"])
def test_domain_malformed_is_400(api, domain):
    user = create(api)
    assert api.post("user/domain/allow", {"userID": user["id"], "domains": [domain]}).status_code == 400


@pytest.mark.parametrize("call", ["edit", "activate", "bandwidth/cap", "domain/allow", "domain/remove"])
def test_user_unknown_is_404(api, call):
    assert api.post(f"user/{call}", {"userID": UNKNOWN, "Active": True, "max": 1}).status_code == 404


@pytest.mark.parametrize("call", ["get", "delete", "domain/list", "domain/reset"])
def test_user_unknown_in_the_path_is_404(api, call):
    assert api.get(f"user/{call}/{UNKNOWN}").status_code == 404
    assert api.get(f"user/{call}/{UNKNOWN[:-1]}").status_code == 400


def test_user_system_is_refused(api):
    assert api.get(f"user/delete/{ZERO_UID}").status_code == 403
    for call in ("edit", "activate", "bandwidth/cap"):
        assert api.post(f"user/{call}", {"userID": ZERO_UID, "Active": True, "max": 1}).status_code == 403
    assert api.get(f"user/get/{ZERO_UID}").status_code == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bandwidth", -1), ("bandwidth", 10**13), ("bandwidth", 2.0), ("maxPorts", 2**31), ("maxPorts", "3"),
        ("checkPorts", 1), ("email", "no address"), ("email", "a b@c"), ("fullname", "x\ny"), ("phone", "x" * 256),
        ("Active", "yes"), ("userID", 1),
    ],
)
def test_user_create_bad_field_is_400(api, field, value):
    assert api.post("user/create", {field: value}).status_code == 400


def test_basic_caller_sees_only_themself(api, caller):
    own, other = create(api), create(api)
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=own["id"])
    assert api.get("user/list").json["users"] == [own]
    assert api.get(f"user/get/{own['id']}").json["user"] == own
    assert api.get(f"user/get/{other['id']}").status_code == 404
    assert api.get(f"user/domain/list/{other['id']}").status_code == 404
    assert api.get(f"user/delete/{own['id']}").status_code == 403
    assert api.post("user/bandwidth/cap", {"userID": own["id"], "max": 0}).status_code == 403


def test_mutation_stands_when_the_server_is_gone(api, control):
    control.gone = True
    assert create(api)["id"] == api.get("user/list").json["users"][0]["id"]
