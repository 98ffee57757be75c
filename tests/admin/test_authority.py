"""Rights and state are looked at in the transaction that writes: what changes between a call's arrival and its work
counts."""

from __future__ import annotations

import contextvars
import dataclasses
import io
import json
from contextlib import contextmanager

import pytest

from spokes.admin.app import create_app
from spokes.admin.context import Scope
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.portmaps import PutPortMaps
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tunnels import AssignTunnel, SetTunnelState
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.model.webhooks import CreateWebhook, EditWebhook
from spokes.store import TunnelState
from tests.admin.tunnel_cases import DOMAIN, basic, new_tunnel
from tests.support.admin import ADMINISTRATOR, HEADERS, OWN, Api
from tests.support.operations import do

PROMOTION = {"email": "new@example.org", "role": "admin"}


@pytest.fixture
def sessions(admin) -> Api:
    """With real sessions."""
    return Api(create_app(admin))


@pytest.fixture
def boss(store):
    do(store, CreateUser(email="other@example.org", role="admin"))
    return do(store, CreateUser(email="boss@example.org", role="admin"))


@pytest.fixture
def boss_key(store, boss):
    return do(store, CreateApiKey("boss", user_uid=boss.uid))


@contextmanager
def before_the_next_write(store, monkeypatch, happens):
    """Another process commits `happens` when the call has looked at everything, and begins to write."""
    write = store._db.write

    def after_another():
        monkeypatch.setattr(store._db, "write", write)
        contextvars.Context().run(happens)       # which does not act for the caller
        return write()

    monkeypatch.setattr(store._db, "write", after_another)
    yield
    assert store._db.write == write, "the call wrote nothing"


class LateByte(io.BytesIO):
    """A body during whose arrival something happens."""

    def __init__(self, data: bytes, happens) -> None:
        super().__init__(data)
        self._happens = happens

    def read(self, size: int = -1) -> bytes:
        self._happens()
        return super().read(size)


REVOCATIONS = {
    "user deleted": lambda store, key: do(store, DeleteUser(key.user_uid)),
    "user deactivated": lambda store, key: do(store, EditUser(key.user_uid, active=False)),
    "role taken": lambda store, key: do(store, EditUser(key.user_uid, role="basic")),
    "key deleted": lambda store, key: do(store, DeleteApiKey(key.uid)),
    "key switched off": lambda store, key: do(store, EditApiKey(key.uid, active=False)),
}


@pytest.mark.parametrize("revocation", REVOCATIONS)
def test_call_whose_caller_loses_their_rights_while_the_body_comes_is_refused(sessions, store, boss_key, revocation):
    key, value = boss_key
    data = json.dumps(PROMOTION).encode()
    result = sessions.client.simulate_post(
        f"{OWN}/person/create", headers={**HEADERS, "Authorization": f"Bearer {value}"}, body=data,
        extras={"wsgi.input": LateByte(data, lambda: REVOCATIONS[revocation](store, key))},
    )  # fmt: skip
    assert result.status_code == (403 if revocation == "role taken" else 401)
    assert store.users.find_by_email(PROMOTION["email"]) is None


@pytest.mark.parametrize("revocation", REVOCATIONS)
def test_call_whose_caller_loses_their_rights_just_before_it_writes_is_refused(
    sessions, store, boss_key, revocation, monkeypatch
):
    key, value = boss_key
    sessions.get("ping", headers={"Authorization": f"Bearer {value}"})       # its use is noted by now
    with before_the_next_write(store, monkeypatch, lambda: REVOCATIONS[revocation](store, key)):
        result = sessions.post(f"{OWN}/person/create", PROMOTION, headers={"Authorization": f"Bearer {value}"})
    assert result.status_code == (403 if revocation == "role taken" else 401)
    assert store.users.find_by_email(PROMOTION["email"]) is None


def test_call_whose_session_ends_just_before_it_writes_is_refused(sessions, store, boss, monkeypatch):
    login, cookie = store.logins.create(user_uid=boss.uid)
    with before_the_next_write(store, monkeypatch, lambda: store.logins.end(login.uid)):
        result = sessions.post("token/registration/create", {"description": "", "active": True},
                               headers={"Cookie": f"spokes={cookie}"})  # fmt: skip
    assert (result.status_code, result.json["code"]) == (401, "SPK-LOGIN")
    assert store.tokens.select() == []


def test_session_ended_by_its_own_call_is_done(sessions, store, boss):
    login, cookie = store.logins.create(user_uid=boss.uid)
    headers = {"Cookie": f"spokes={cookie}"}
    assert sessions.post(f"{OWN}/login/end", {"loginID": login.uid}, headers=headers).status_code == 200
    assert sessions.get("ping", headers=headers).status_code == 401
    _, cookie = store.logins.create(user_uid=boss.uid)
    assert sessions.get("logout", headers={"Cookie": f"spokes={cookie}"}).status_code == 200


TUNNEL_CALLS = {
    "http/update": lambda api, uid: api.post(f"tunnel/traffic/http/update/{uid}", {"sites": [{"domain": "a.example"}]}),
    "http/remove": lambda api, uid: api.post(f"tunnel/traffic/http/remove/{uid}", {"domains": ["old.example"]}),
    "tcp/allocate": lambda api, uid: api.get(f"tunnel/traffic/tcp/allocate/{uid}"),
    "tcp/release": lambda api, uid: api.post(f"tunnel/traffic/tcp/release/{uid}", {"port": 22000}),
    "tcp/update": lambda api, uid: api.post(
        f"tunnel/traffic/tcp/update/{uid}", {"ports": [{"port": 22000, "destination": "a", "dstPort": 1}]}
    ),
    "tcp/reset": lambda api, uid: api.post(f"tunnel/traffic/tcp/reset/{uid}", {"ports": [22000]}),
    "portmap/update": lambda api, uid: api.post(
        f"tunnel/traffic/portmap/update/{uid}", {"portmaps": [{"listenPort": 1, "dstPort": 2}]}
    ),
    "portmap/remove": lambda api, uid: api.post(f"tunnel/traffic/portmap/remove/{uid}", {"listenPorts": [5]}),
    "shutdown": lambda api, uid: api.get(f"tunnel/shutdown/{uid}"),
    "delete": lambda api, uid: api.post(f"{OWN}/tunnel/delete", {"tunID": uid}),
    "create": lambda api, uid: api.post(
        "user/tunnel/create", {"userID": api.user_uid, "tunID": uid, "name": "mine", "hostname": ""}
    ),
}


@pytest.mark.parametrize("call", TUNNEL_CALLS)
def test_tunnel_handed_over_just_before_its_owner_writes_is_not_touched(api, store, caller, monkeypatch, call):
    before, after = do(store, CreateUser()), do(store, CreateUser())
    tunnel = new_tunnel(store, user_uid=before.uid)
    do(store, PutSites(tunnel.uid, [{"domain": "old.example"}]))
    do(store, AllocatePort(tunnel.uid, 22000, 22010))
    do(store, PutPortMaps(tunnel.uid, [{"listenPort": 5, "dstPort": 6, "transport": "tcp", "destination": ""}]))
    caller.caller, api.user_uid = basic(before.uid), before.uid
    rules = store.rules.read(tunnel.uid)

    def hand_over():
        do(store, AssignTunnel(uid=tunnel.uid, user_uid=after.uid, name="", domain=DOMAIN))

    with before_the_next_write(store, monkeypatch, hand_over):
        result = TUNNEL_CALLS[call](api, tunnel.uid)
    assert result.status_code == (409 if call == "create" else 404)
    now = store.tunnels.get(tunnel.uid)
    assert (now.user_uid, now.name, now.shutdown) == (after.uid, tunnel.name, False)
    assert store.rules.read(tunnel.uid) == rules


def test_tunnel_shut_down_just_before_its_owner_links_it_stays_shut_down(api, store, caller, monkeypatch):
    owner = do(store, CreateUser())
    tunnel = new_tunnel(store, user_uid=owner.uid)
    caller.caller, api.user_uid = basic(owner.uid), owner.uid
    with before_the_next_write(
        store, monkeypatch, lambda: do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    ):
        result = TUNNEL_CALLS["create"](api, tunnel.uid)
    assert (result.status_code, result.json["code"]) == (403, "SPK-FORBIDDEN")
    assert store.tunnels.get(tunnel.uid).state is TunnelState.SHUTDOWN


def test_webhook_let_inside_just_before_its_user_moves_it_stays_where_it_is(api, store, caller, monkeypatch):
    user = do(store, CreateUser())
    webhook = do(store, CreateWebhook("https://hooks.example.org/a", user_uid=user.uid))
    caller.caller = basic(user.uid)
    with before_the_next_write(store, monkeypatch, lambda: do(store, EditWebhook(webhook.uid, allow_private=True))):
        result = api.post(f"{OWN}/webhook/edit", {"webhookID": webhook.uid, "url": "http://10.0.0.1/"})
    assert result.status_code == 403
    assert store.webhooks.get(webhook.uid).url == webhook.url


def test_password_of_somebody_just_made_administrator_is_not_set_by_a_key_that_makes_none(
    api, store, caller, monkeypatch
):
    user = do(store, CreateUser(email="mara@example.org"))
    caller.caller = dataclasses.replace(ADMINISTRATOR, scopes=frozenset({Scope.WRITE}))
    with before_the_next_write(store, monkeypatch, lambda: do(store, EditUser(user.uid, role="admin"))):
        result = api.post(f"{OWN}/person/password", {"userID": user.uid, "password": "correct horse battery"})
    assert result.status_code == 403
    assert store.users.get(user.uid).password_hash == ""


# --- one's own rights ----------------------------------------------------------------------------------------------

OWN_FEET = {
    "user/edit": lambda api, uid, headers: api.post("user/edit", {"userID": uid, "Active": False}, headers=headers),
    "user/activate": lambda api, uid, headers: api.post(
        "user/activate", {"userID": uid, "Active": False}, headers=headers
    ),
    "user/delete": lambda api, uid, headers: api.get(f"user/delete/{uid}", headers=headers),
    "person/edit active": lambda api, uid, headers: api.post(
        f"{OWN}/person/edit", {"userID": uid, "Active": False}, headers=headers
    ),
    "person/edit role": lambda api, uid, headers: api.post(
        f"{OWN}/person/edit", {"userID": uid, "role": "basic"}, headers=headers
    ),
}


@pytest.mark.parametrize("by", ["session", "key"])
@pytest.mark.parametrize("call", OWN_FEET)
def test_administrators_take_no_rights_from_themselves(sessions, store, boss, boss_key, call, by):
    cookie = store.logins.create(user_uid=boss.uid)[1]
    headers = {"Cookie": f"spokes={cookie}"} if by == "session" else {"Authorization": f"Bearer {boss_key[1]}"}
    result = OWN_FEET[call](sessions, boss.uid, headers)
    assert (result.status_code, result.json["code"]) == (403, "SPK-FORBIDDEN")
    now = store.users.get(boss.uid)
    assert (now.active, now.role) == (True, "admin")
    harmless = {"userID": boss.uid, "Active": True, "phone": "1"}
    assert sessions.post("user/edit", harmless, headers=headers).status_code == 200


def test_two_administrators_who_put_each_other_out_leave_one(sessions, store, boss, boss_key, monkeypatch):
    """Both calls were let in; the second one to write has no rights left."""
    other = store.users.find_by_email("other@example.org")
    _, other_value = do(store, CreateApiKey("other", user_uid=other.uid))

    def other_is_quicker():
        headers = {"Authorization": f"Bearer {other_value}"}
        assert sessions.post("user/activate", {"userID": boss.uid, "Active": False}, headers=headers).status_code == 200

    headers = {"Authorization": f"Bearer {boss_key[1]}"}
    sessions.get("ping", headers=headers)
    with before_the_next_write(store, monkeypatch, other_is_quicker):
        result = sessions.get(f"user/delete/{other.uid}", headers=headers)
    assert result.status_code == 401
    assert store.users.get(other.uid).active and not store.users.get(boss.uid).active
