"""Proof of allowed domains over the API, with a real name server."""

from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.app import create_app
from spokes.admin.context import EVERY_SCOPE, Caller, CallerKind, Role
from spokes.config_values import Address
from spokes.model.domains import AllowDomains, NoteDomainCheck
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from tests.support.admin import OWN, V1, Api
from tests.support.name_server import name_server
from tests.support.operations import do

ZONE = "example.org"
ZERO_TIME = "0001-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def names():
    with name_server(ZONE) as server:
        yield server


@pytest.fixture
def user(store):
    store.settings.verified_domains_only = True
    user = do(store, CreateUser(check_domains=True))
    return do(store, AllowDomains(user.uid, [f"*.{ZONE}", ZONE]))


@pytest.fixture
def api(admin, caller, names):
    return Api(create_app(dataclasses.replace(admin, resolvers=(names.address,)), authenticate=caller))


def person(uid):
    return Caller(kind=CallerKind.PERSON, uid=uid, role=Role.BASIC, scopes=EVERY_SCOPE, user_uid=uid)


def prove(api, user, domain=ZONE):
    return api.post(f"{OWN}/domain/prove", {"userID": user.uid, "domain": domain})


def test_user_proves_a_domain_and_its_rules_are_taken(api, store, caller, user, names):
    names.put_txt("_spokes-proof")
    tunnel, _ = do(store, CreateTunnel(name="desk", domain="tun.example.net", user_uid=user.uid))
    caller.caller = person(user.uid)
    path = f"{V1}/tunnel/traffic/http/update/{tunnel.uid}"
    sites = {"sites": [{"domain": f"shop.{ZONE}", "destination": "127.0.0.1", "port": 80}]}
    refused = api.post(path, sites)
    assert (refused.status_code, refused.json["code"]) == (403, "SPK-DOMAIN-PROOF")
    (shown,) = (listed := api.get(f"{OWN}/domain/proofs/{user.uid}").json)["proofs"]
    assert listed["needed"]
    assert (shown["record"], shown["proved"]) == (f"_spokes-proof.{ZONE}", ZERO_TIME)
    assert shown["value"] in refused.json["error"]
    assert prove(api, user).json["proof"]["proved"] == ZERO_TIME
    names.put_txt("_spokes-proof", shown["value"])
    assert prove(api, user, f"*.{ZONE}").json["proof"]["proved"] != ZERO_TIME
    assert api.post(path, sites).json["status"]
    assert [event.action for event in store.audit.select()][1:3] == ["domain.prove", "domain.prove"]


def test_prove_domain_of_somebody_else_or_not_allowed_is_404(api, store, caller, user):
    assert prove(api, user, "example.com").status_code == 404
    other = do(store, CreateUser())
    caller.caller = person(other.uid)
    assert prove(api, user).status_code == 404
    assert api.get(f"{OWN}/domain/proofs/{user.uid}").status_code == 404


def test_prove_without_an_answer_of_a_name_server_is_503_and_changes_nothing(admin, caller, store, user):
    do(store, NoteDomainCheck(user.uid, ZONE, seen=True))
    before = store.domain_verifications.select()
    api = Api(create_app(dataclasses.replace(admin, resolvers=(Address("127.0.0.1", 9),)), authenticate=caller))
    refused = prove(api, user)
    assert (refused.status_code, refused.json["code"]) == (503, "SPK-DNS")
    assert store.domain_verifications.select() == before


def test_slow_look_ups_of_one_user_hold_one_thread(api, admin, store, caller, user):
    with admin.lookups.slot(user.uid):
        refused = prove(api, user)
        assert (refused.status_code, refused.json["status"]) == (503, False)
        with admin.lookups.slot("another"), admin.lookups.slot("a third"):
            pass
    assert prove(api, user).status_code == 200
