"""Every endpoint against a tenant who names somebody else's objects: nothing is seen, nothing is changed.

The table of routes is walked, so that an endpoint made tomorrow is attacked too.
"""

from __future__ import annotations

from typing import Any

import pytest

from spokes.admin.app import create_app
from spokes.admin.context import Admin
from spokes.admin.passwords import hash_password
from spokes.admin.routes import ROUTES
from spokes.admin.routing import Route
from spokes.ids import new_uid
from spokes.model.api_keys import CreateApiKey
from spokes.model.domains import AllowDomains
from spokes.model.passwords import SetPassword
from spokes.model.portmaps import PutPortMaps
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import Store
from spokes.store.deliveries import NewDelivery
from tests.support.admin import Api, FakeControl
from tests.support.operations import do

DOMAIN = "tun.example.net"
PASSWORD = "correct horse battery"
SITE = "victim-shop.example.org"
MARK = "victim"                          # stands in everything that the victim chose

# What makes a call well formed, so that whose object it names is what decides.
BODIES: dict[str, dict[str, Any]] = {
    "token/registration/create": {"description": "x", "active": True},
    "token/registration/edit": {"description": "x", "active": False},
    "tunnel/search": {"term": "", "os": "", "arch": "", "version": ""},
    "tunnel/traffic/http/update/{tunnel_uid}": {"sites": [{"domain": "x.example.org", "port": 80}]},
    "tunnel/traffic/http/remove/{tunnel_uid}": {"domains": [SITE]},
    "tunnel/traffic/tcp/release/{tunnel_uid}": {"port": 22000},
    "tunnel/traffic/tcp/update/{tunnel_uid}": {"ports": [{"port": 22000, "destination": "x", "dstPort": 1}]},
    "tunnel/traffic/tcp/reset/{tunnel_uid}": {"ports": [22000]},
    "tunnel/traffic/portmap/update/{tunnel_uid}": {
        "portmaps": [{"listenPort": 1, "dstPort": 22000, "destination": "", "transport": "tcp"}]
    },
    "tunnel/traffic/portmap/remove/{tunnel_uid}": {"listenPorts": [5432]},
    "user/tunnel/create": {"name": "x", "hostname": ""},
    "user/create": {"Active": True}, "user/import": {"Active": True}, "user/edit": {"Active": False},
    "user/activate": {"Active": False},
    "user/bandwidth/cap": {"max": 1},
    "user/domain/allow": {"domains": ["x.example.org"]}, "user/domain/remove": {"domains": [SITE]},
    "person/create": {"role": "admin"}, "person/edit": {"role": "admin"},
    "person/password": {"password": "another password", "current": PASSWORD},
    "person/totp/confirm": {"password": PASSWORD, "secret": "A" * 32, "code": "000000"},
    "person/totp/remove": {"password": PASSWORD},
    "key/create": {"description": "x"}, "key/edit": {"active": False},
    "webhook/create": {"url": "https://hooks.example.org/"}, "webhook/edit": {"url": "https://evil.example.org/"},
}  # fmt: skip

ROUTES_WITH_SESSION = [route for route in ROUTES if not route.public and not route.path.endswith("/logout")]


class Victim:
    """A user with one of everything."""

    def __init__(self, store: Store, password_hash: str) -> None:
        user = do(store, CreateUser(email="victim@example.org", fullname="victim", phone="victim"))
        do(store, SetPassword(user.uid, password_hash))
        do(store, AllowDomains(user.uid, [SITE]))
        tunnel, token = do(store, CreateTunnel(name="victim's desk", hostname=None, domain=DOMAIN, user_uid=user.uid))
        do(store, PutSites(tunnel.uid, [{"domain": SITE, "port": 80}], domain=DOMAIN))
        do(store, AllocatePort(tunnel.uid, 22000, 22009))
        portmap = {"listenPort": 5432, "dstPort": 22000, "destination": "", "transport": "tcp", "label": MARK}
        do(store, PutPortMaps(tunnel.uid, [portmap]))
        key, key_value = do(store, CreateApiKey("victim's key", user_uid=user.uid))
        registration = do(store, CreateToken("victim's token"))
        login, cookie = store.logins.create(user_uid=user.uid, address="192.0.2.99", agent="victim's browser")
        webhook = do(store, CreateWebhook("https://victim.example.org/", user_uid=user.uid))
        store.deliveries.queue([NewDelivery(webhook_uid=webhook.uid, kind="tunnel.up", body='"victim"')])
        delivery, = store.deliveries.select(webhook.uid)
        page, = store.result_snapshots.take([tunnel.uid])
        self.ids = {
            "userID": user.uid, "tunID": tunnel.uid, "tokenID": registration.uid, "keyID": key.uid,
            "loginID": login.uid, "webhookID": webhook.uid, "deliveryID": delivery.uid, "alertID": new_uid(),
            "user_uid": user.uid, "tunnel_uid": tunnel.uid, "webhook_uid": webhook.uid, "page_uid": page.uid,
        }
        self.secrets = (*self.ids.values(), tunnel.hostname, token.value, key_value, cookie, webhook.secret)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path / 'spokes.db'}") as opened:
        yield opened


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hash_password(PASSWORD)


@pytest.fixture
def victim(store, password_hash) -> Victim:
    return Victim(store, password_hash)


@pytest.fixture
def tenant(store, password_hash) -> Api:
    """Signed in as a basic user with a tunnel of their own, whose session is real."""
    user = do(store, CreateUser(email="tenant@example.org"))
    do(store, SetPassword(user.uid, password_hash))
    _, cookie = store.logins.create(user_uid=user.uid)
    api = Api(create_app(Admin(store=store, control=FakeControl(metrics={}), domain=DOMAIN)))
    api.headers["Cookie"] = f"spokes={cookie}"
    return api


def call(api: Api, route: Route, ids: dict[str, str]):
    path = route.path.format(**ids)
    accept = {"Accept": route.media_types[0]}
    if route.method == "GET":
        return api.get(path, headers=accept, query="everyone=false&details=true")
    return api.post(path, {**ids, **BODIES.get(short(route), {})}, headers=accept)


def short(route: Route) -> str:
    return route.path.removeprefix("/api/admin/").partition("/")[2]


@pytest.mark.parametrize("route", ROUTES_WITH_SESSION, ids=lambda route: f"{route.method} {short(route)}")
def test_tenant_sees_and_changes_nothing_of_another(store, victim, tenant, route):
    before = belongings(store, victim)
    result = call(tenant, route, victim.ids)
    assert result.status_code in (200, 400, 403, 404), result.text
    names_an_object = bool(route.path_params) or names_ids(route)
    if result.status_code == 200 and route.path_params and route.path_params != ("page_uid",):
        pytest.fail(f"somebody else's object is there: {result.text}")
    if names_an_object and result.status_code not in (200, 403):
        unknown = call(tenant, route, {name: new_uid() for name in victim.ids})
        assert unknown.status_code == result.status_code
        if route.path_params != ("page_uid",):
            assert unknown.text == result.text       # nobody learns that the id is in use
    assert not [secret for secret in victim.secrets if secret in result.text]
    assert MARK not in result.text
    assert belongings(store, victim) == before


def names_ids(route: Route) -> bool:
    return route.request is not None and any(name.endswith("_uid") for name in route.request.__struct_fields__)


def belongings(store: Store, victim: Victim) -> list[Any]:
    """Everything that a call could have changed."""
    ids = victim.ids
    logins = [(login.uid, login.expires) for login in store.logins.select(ids["userID"])]
    return [
        store.users.get(ids["userID"]), store.tunnels.get(ids["tunID"]), store.tunnels.auth_token(ids["tunID"]),
        store.sites.select([ids["tunID"]]), store.ports.select([ids["tunID"]]), store.rules.read(ids["tunID"]),
        store.api_keys.get(ids["keyID"]), store.webhooks.get(ids["webhookID"]), store.deliveries.get(ids["deliveryID"]),
        store.tokens.select(), store.users.select(), logins,
    ]


def test_stranger_gets_401_and_changes_nothing(store, victim):
    before = belongings(store, victim)
    api = Api(create_app(Admin(store=store, control=FakeControl(), domain=DOMAIN)))
    usual = dict(api.headers)
    for headers in ({}, {"Cookie": f"spokes={'0' * 64}"}, {"Authorization": f"Bearer {'0' * 64}"}):
        api.headers = usual | headers
        answers = {short(route): call(api, route, victim.ids).status_code for route in ROUTES_WITH_SESSION}
        assert set(answers.values()) <= {401, 429}, answers
    assert belongings(store, victim) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-site"},                               # a tenant's page under the same domain
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": f"https://shop.{DOMAIN}"},
        {"Origin": "null"},
        {"Content-Type": "text/plain"},                                # what a form can send without asking
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
def test_page_of_another_site_makes_no_call_with_the_victims_cookie(store, victim, headers):
    _, cookie = store.logins.create(user_uid=victim.ids["userID"])
    before = belongings(store, victim)
    api = Api(create_app(Admin(store=store, control=FakeControl(), domain=DOMAIN)))
    api.headers |= {"Cookie": f"spokes={cookie}", **headers}
    answers = {short(route): call(api, route, victim.ids).status_code for route in ROUTES_WITH_SESSION}
    assert set(answers.values()) <= {403, 415}, answers
    assert belongings(store, victim) == before


def test_bodies_name_routes_that_exist():
    assert BODIES.keys() <= {short(route) for route in ROUTES}
