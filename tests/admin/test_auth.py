from __future__ import annotations

import pytest

from spokes import clock
from spokes.admin.app import create_app
from spokes.clock import ManualClock
from spokes.errors import StoreError
from spokes.ids import new_secret
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser, EditUser
from tests.support.admin import Api
from tests.support.operations import do

TLS = {"X-Forwarded-Proto": "https"}


@pytest.fixture
def api(admin) -> Api:
    """With real sessions."""
    return Api(create_app(admin))


@pytest.fixture
def key(store) -> str:
    return do(store, CreateApiKey("operations"))[1]


@pytest.fixture
def wall():
    with clock.replaced(ManualClock()) as _:
        yield clock._current


def sign_in(api: Api, key: str, **headers: str) -> str:
    """The Cookie header of a new session."""
    result = api.post("auth", {"key": key}, headers=headers)
    assert result.status_code == 200, result.text
    return result.headers["set-cookie"].partition(";")[0]


def test_auth_right_key_gives_a_cookie_that_opens_the_rest(api, key):
    assert api.get("ping").status_code == 401
    cookie = sign_in(api, key)
    assert api.get("ping", headers={"Cookie": cookie}).json == {"status": True, "error": "", "message": ""}


def test_auth_cookie_over_tls_is_bound_to_this_host(api, key):
    cookie = api.post("auth", {"key": key}, headers=TLS).headers["set-cookie"]
    name, *attributes = (part.strip() for part in cookie.split(";"))
    assert name.startswith("__Host-spokes=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Strict", "Secure"]


def test_auth_cookie_without_tls_is_not_secure(api, key):
    cookie = api.post("auth", {"key": key}).headers["set-cookie"]
    name, *attributes = (part.strip() for part in cookie.split(";"))
    assert name.startswith("spokes=")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Strict"]


def test_session_plain_cookie_over_tls_is_not_taken(api, key):
    """A neighbour's page under the same domain can set that one, and so choose the session."""
    cookie = sign_in(api, key)
    assert api.get("ping", headers={"Cookie": cookie, **TLS}).status_code == 401


def test_auth_wrong_keys_all_get_the_same_answer(api, store, key):
    inactive, value = do(store, CreateApiKey("old"))
    do(store, EditApiKey(inactive.uid, active=False))
    answers = {
        api.post("auth", {"key": wrong}, headers={"X-Real-IP": f"192.0.2.{number}"}).text
        for number, wrong in enumerate([value, new_secret(), "", "x", key.upper(), "%s%s", "\u0000"])
    }
    assert answers == {'{"error":"wrong key","status":false,"code":"SPK-LOGIN"}'}


def test_auth_failures_slow_their_address_down_but_not_a_right_key(api, key):
    source, other = {"X-Real-IP": "192.0.2.1"}, {"X-Real-IP": "192.0.2.2"}
    statuses = [api.post("auth", {"key": new_secret()}, headers=source).status_code for _ in range(5)]
    assert statuses == [401, 429, 429, 429, 429]
    assert api.post("auth", {"key": new_secret()}, headers=other).status_code == 401
    assert api.post("auth", {"key": key}, headers=source).status_code == 200


def test_auth_delay_rises_and_says_how_long(api, wall):
    waits = []
    for _ in range(8):
        assert api.post("auth", {"key": "x"}).status_code == 401
        result = api.post("auth", {"key": "x"})
        assert result.status_code == 429
        waits.append(int(result.headers["retry-after"]))
        wall.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_auth_right_key_between_failures_takes_nothing_off_the_delay(api, key, wall):
    """Else a tenant would guess at other people's passwords between logins with their own key."""
    waits = []
    for _ in range(4):
        assert api.post("auth", {"key": "x"}).status_code == 401
        assert api.post("auth", {"key": key}).status_code == 200
        result = api.post("auth", {"key": "x"})
        assert result.status_code == 429
        waits.append(int(result.headers["retry-after"]))
        wall.advance(waits[-1])
    assert waits == [1, 2, 4, 8]


def test_session_ends_after_a_day(api, key, wall):
    cookie = sign_in(api, key)
    wall.advance(86_399)
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 200
    wall.advance(1)
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401


def test_keepalive_lets_it_live_another_day_and_ping_does_not(api, key, wall):
    cookie = sign_in(api, key)
    wall.advance(86_000)
    result = api.get("keepalive", headers={"Cookie": cookie})
    assert result.headers["set-cookie"].startswith(cookie + ";")
    assert "Max-Age=86400" in result.headers["set-cookie"]
    wall.advance(86_000)
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 200
    wall.advance(86_000)
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401


def test_logout_ends_it_and_takes_the_cookie_away(api, key):
    cookie = sign_in(api, key)
    result = api.get("logout", headers={"Cookie": cookie})
    assert (result.status_code, "expires=Thu, 01 Jan 1970" in result.headers["set-cookie"]) == (200, True)
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401
    assert api.get("logout", headers={"Cookie": cookie}).status_code == 401


def test_session_survives_a_new_process(admin, api, key):
    cookie = sign_in(api, key)
    assert Api(create_app(admin)).get("ping", headers={"Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("end", ["deactivate", "delete"])
def test_session_ends_with_its_key(api, store, end):
    made, value = do(store, CreateApiKey("short"))
    cookie = sign_in(api, value)
    if end == "delete":
        do(store, DeleteApiKey(made.uid))
    else:
        do(store, EditApiKey(made.uid, active=False))
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401


def test_session_of_a_users_key_ends_with_the_user(api, store):
    user = do(store, CreateUser(email="mara@example.org"))
    _, value = do(store, CreateApiKey("mara's", user_uid=user.uid))
    cookie = sign_in(api, value)
    do(store, EditUser(user.uid, active=False))
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401
    assert api.get("ping", headers={"Authorization": f"Bearer {value}"}).status_code == 401


def test_bearer_key_needs_no_session(api, key):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert api.get("ping", headers={"Authorization": f"{scheme} {key}"}).status_code == 200
    assert api.get("ping", headers={"Authorization": f"Basic {key}"}).status_code == 401
    assert api.get("ping", headers={"Authorization": "Bearer"}).status_code == 401


def test_bearer_use_is_noted_once_a_minute(api, store, key, wall):
    headers = {"Authorization": f"Bearer {key}", "X-Real-IP": "192.0.2.9"}
    before = store.statement_count
    api.get("ping", headers=headers)
    first = store.statement_count - before
    api.get("ping", headers=headers)
    assert store.statement_count - before - first < first
    used, = store.api_keys.select()
    assert (used.last_used, used.last_address) == (wall.wall_s(), "192.0.2.9")
    noted = wall.wall_s()
    for seconds, last_used in ((59.0, noted), (2.0, noted + 61.0), (59.0, noted + 61.0)):
        wall.advance(seconds)
        api.get("ping", headers={**headers, "X-Real-IP": "192.0.2.10"})
        assert store.api_keys.select()[0].last_used == last_used
    assert store.api_keys.select()[0].last_address == "192.0.2.10"


def test_bearer_use_that_cannot_be_noted_refuses_nobody(api, store, key, monkeypatch):
    def full(_uses):
        raise StoreError("the disk is full")

    monkeypatch.setattr(store.api_keys, "touch", full)
    assert api.get("tunnel/list", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_scopes_of_a_key_are_kept(api, store):
    _, reader = do(store, CreateApiKey("reader", scopes=("read",)))
    headers = {"Authorization": f"Bearer {reader}"}
    assert api.get("user/list", headers=headers).status_code == 200
    result = api.post("user/create", {}, headers=headers)
    assert (result.status_code, result.json["error"]) == (403, "this key lacks the scope: write")
    assert api.get("user/domain/reset/" + "a" * 32, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "cookie", ["spokes=", "spokes=x", "spokes=" + "f" * 64, "spokes=" + "f" * 9000, "=;;=", "\u00ff"]
)
def test_cookie_junk_is_no_session(api, cookie):
    assert api.get("ping", headers={"Cookie": cookie}).status_code == 401


def test_login_and_refusal_and_logout_leave_events(api, store, key):
    api.post("auth", {"key": "wrong"}, headers={"X-Real-IP": "192.0.2.1", "User-Agent": "evil\x1b[2J"})
    cookie = sign_in(api, key, **{"X-Real-IP": "192.0.2.2"})
    api.get("logout", headers={"Cookie": cookie, "X-Real-IP": "192.0.2.2"})
    events = [(event.action, event.actor_kind, event.actor_name, event.address) for event in store.audit.select()]
    assert events == [
        ("logout", "key", "operations", "192.0.2.2"),
        ("login", "key", "operations", "192.0.2.2"),
        ("login.refused", "nobody", "", "192.0.2.1"),
    ]


def test_read_key_sees_nothing_that_one_logs_in_with(api, store):
    token = do(store, CreateToken("branch"))
    tunnel, auth = do(store, CreateTunnel(name="desk", domain="tun.example.net"))
    answers = {}
    for scopes in (("read",), ("read", "write")):
        _, value = do(store, CreateApiKey("k", scopes=scopes))
        headers = {"Authorization": f"Bearer {value}"}
        answers[scopes] = [
            api.get(path, headers=headers)
            for path in ("token/registration/list", f"tunnel/auth/{tunnel.uid}", f"tunnel/config/{tunnel.uid}")
        ]
    listed, *refused = answers["read",]
    assert listed.json["tokens"][0]["value"] == "" and listed.json["tokens"][0]["id"] == token.uid
    assert [one.status_code for one in refused] == [403, 403]
    listed, own, config = answers["read", "write"]
    assert listed.json["tokens"][0]["value"] == token.value
    assert own.json["token"]["value"] == config.json["config"]["key"] == auth.value


def test_body_of_a_stranger_is_small(api):
    assert api.post("auth", b'{"key": "' + b"a" * 20_000 + b'"}').status_code == 413
    assert api.post("auth", b'{"key": "' + b"a" * 100 + b'"}').status_code == 401
