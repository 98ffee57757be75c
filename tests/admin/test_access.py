from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.app import create_app
from spokes.admin.context import Role, Scope
from spokes.model.api_keys import CreateApiKey
from spokes.model.users import CreateUser
from tests.support.admin import ADMINISTRATOR, OWN, Api
from tests.support.operations import do

UNKNOWN = "f" * 32


def bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def test_key_life(api, admin, store):
    made = api.post(f"{OWN}/key/create", {"description": "monitoring", "scopes": ["read"]}).json
    key, value = made["key"], made["value"]
    assert (key["prefix"], key["scopes"], key["active"]) == (value[:8], ["read"], True)
    real = Api(create_app(admin))
    assert real.get("ping", headers=bearer(value)).status_code == 200
    listed, = api.get(f"{OWN}/key/list").json["keys"]
    assert {**listed, "lastUsed": "", "lastAddress": ""} == {**key, "lastUsed": "", "lastAddress": ""}
    assert listed["lastUsed"] > key["lastUsed"]
    assert value not in api.get(f"{OWN}/key/list").text
    edited = api.post(f"{OWN}/key/edit", {"keyID": key["id"], "active": False}).json["key"]
    assert (edited["active"], edited["description"]) == (False, "monitoring")
    assert real.get("ping", headers=bearer(value)).status_code == 401
    assert api.post(f"{OWN}/key/delete", {"keyID": key["id"]}).status_code == 200
    assert api.post(f"{OWN}/key/delete", {"keyID": key["id"]}).status_code == 404
    assert value not in "".join(store.audit.export())


def test_key_never_may_more_than_its_maker(api, caller):
    caller.caller = dataclasses.replace(ADMINISTRATOR, scopes=frozenset((Scope.WRITE,)))
    assert api.post(f"{OWN}/key/create", {"scopes": ["read"]}).status_code == 403
    assert api.post(f"{OWN}/key/create", {"scopes": ["write", "replication"]}).status_code == 403
    assert api.post(f"{OWN}/key/create", {"scopes": ["write"]}).status_code == 200


@pytest.mark.parametrize("scopes", [[], ["all"], "read", [1]])
def test_key_scopes_unknown_are_400(api, scopes):
    assert api.post(f"{OWN}/key/create", {"scopes": scopes}).status_code == 400


def test_key_basic_caller_has_only_their_own(api, caller, store):
    own, other = do(store, CreateUser()), do(store, CreateUser())
    theirs, _ = do(store, CreateApiKey("another's", user_uid=other.uid))
    system, _ = do(store, CreateApiKey("system's"))
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=own.uid)
    made = api.post(f"{OWN}/key/create", {"description": "mine"}).json["key"]
    assert made["userID"] == own.uid
    assert [key["id"] for key in api.get(f"{OWN}/key/list").json["keys"]] == [made["id"]]
    assert api.post(f"{OWN}/key/create", {"userID": other.uid}).status_code == 404
    for uid in (theirs.uid, system.uid, UNKNOWN):
        assert api.post(f"{OWN}/key/edit", {"keyID": uid, "active": False}).status_code == 404
        assert api.post(f"{OWN}/key/delete", {"keyID": uid}).status_code == 404


def test_login_list_shows_own_and_ends_them(admin, store):
    _, first = do(store, CreateApiKey("first"))
    user = do(store, CreateUser())
    _, second = do(store, CreateApiKey("second", user_uid=user.uid))
    api = Api(create_app(admin))
    cookies = [
        {"Cookie": api.post("auth", {"key": key}).headers["set-cookie"].partition(";")[0]} for key in (first, second)
    ]
    listed = [api.get(f"{OWN}/login/list", headers=cookie).json["logins"] for cookie in cookies]
    assert [[login["current"] for login in logins] for logins in listed] == [[True], [True]]
    assert len(api.get(f"{OWN}/login/list", query="everyone=true", headers=cookies[0]).json["logins"]) == 2
    assert api.get(f"{OWN}/login/list", query="everyone=true", headers=cookies[1]).status_code == 403
    body = {"loginID": listed[0][0]["id"]}
    assert api.post(f"{OWN}/login/end", body, headers=cookies[1]).status_code == 404
    body = {"loginID": listed[1][0]["id"]}
    assert api.post(f"{OWN}/login/end", body, headers=cookies[0]).status_code == 200
    assert api.get("ping", headers=cookies[1]).status_code == 401
