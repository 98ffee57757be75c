"""Rules are checked by the operation that stores them, whoever asks for it."""

import pytest

from spokes.errors import RuleError
from spokes.model.operation import SYSTEM, client_of, perform
from spokes.model.portmaps import PutPortMaps
from spokes.model.ports import AllocatePort, PutPortRules
from spokes.model.rule_lists import ReplaceRules
from spokes.model.rules import sealed_site
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel
from spokes.wire.rules import Site
from tests.support.operations import password_hash

DOMAIN = "tun.example.net"
BAD_SITES = {
    "plain password": {"password": "visible"},
    "plain basicHttpAuth": {"basicHttpAuth": "mara:visible"},
    "hash with other parameters": {"password": "$argon2id$v=19$m=4096,t=1,p=1$" + "x" * 22 + "$" + "y" * 43},
    "half a pair": {"ca": "eA=="},
    "pair that is none": {"ca": "eA==", "privateKey": "eA=="},
    "files of a client": {"ca": "/etc/ssl/a.pem", "privateKey": "/etc/ssl/a.key"},
    "port out of range": {"port": 70000},
    "port of another type": {"port": "80"},
    "upstream with a path": {"upstreamURL": "http://10.0.0.1/x"},
    "destination that is none": {"destination": "no host"},
    "time-out out of bounds": {"responseTimeout": 10**9},
}


@pytest.fixture
def uid(store):
    return perform(store, SYSTEM, CreateTunnel(name="t", domain=DOMAIN))[0].uid


@pytest.mark.parametrize("what", BAD_SITES)
def test_site_that_must_not_be_stored_is_refused(store, uid, what):
    before = store.changes.position()
    with pytest.raises(RuleError):
        perform(store, SYSTEM, PutSites(uid, [{"domain": "a.example.org", **BAD_SITES[what]}]))
    assert store.changes.position() == before


@pytest.mark.parametrize("what", BAD_SITES)
def test_site_of_a_list_that_must_not_be_stored_is_refused_alone(store, uid, what):
    bad = {"domain": "a.example.org", **BAD_SITES[what]}
    replaced = perform(store, SYSTEM, ReplaceRules(uid, [bad, {"domain": "b.example.org", "port": 80}], {}))
    assert [type(result.error) for result in replaced.sites] == [RuleError, type(None)]
    assert [rule["domain"] for rule in store.rules.read(uid).sites] == ["b.example.org"]


def test_client_may_name_files_of_its_own(store, uid):
    rule = {"domain": "a.example.org", **BAD_SITES["files of a client"]}
    replaced = perform(store, client_of(uid), ReplaceRules(uid, [rule], {}))
    assert [result.error for result in replaced.sites] == [None]


def test_hashed_password_is_stored_as_it_is(store, uid):
    rule = {"domain": "a.example.org", "password": password_hash("one")}
    (stored,) = perform(store, SYSTEM, PutSites(uid, [rule]))
    assert stored.rule == rule


BAD_PORTS = {
    "destination without a port": {"destination": "localhost"},
    "destination that is none": {"destination": "no host", "dstPort": 22},
    "port out of range": {"dstPort": 70000},
    "time-out out of bounds": {"udpTimeout": 10**9},
}


@pytest.mark.parametrize("what", BAD_PORTS)
def test_forwarding_that_must_not_be_stored_is_refused(store, uid, what):
    port = perform(store, SYSTEM, AllocatePort(uid, 22000, 22999))
    with pytest.raises(RuleError):
        perform(store, SYSTEM, PutPortRules(uid, {port: BAD_PORTS[what]}))
    replaced = perform(store, SYSTEM, ReplaceRules(uid, [], {port: BAD_PORTS[what]}))
    assert [type(error) for error in replaced.port_errors.values()] == [RuleError]
    assert list(store.rules.read(uid).ports) == [{"port": port}]


@pytest.mark.parametrize("more", [{}, {"dstPort": 0}, {"dstPort": 80, "destination": "no host"}])
def test_port_map_that_must_not_be_stored_is_refused(store, uid, more):
    with pytest.raises(RuleError):
        perform(store, SYSTEM, PutPortMaps(uid, [{"listenPort": 53, "transport": "udp", **more}]))
    assert store.portmaps.select(uid) == []


def test_rule_that_is_refused_anyhow_costs_no_hash():
    def seal(text):
        raise AssertionError("hashed")

    with pytest.raises(RuleError):
        sealed_site(Site(domain="a.example.org", password="x", upstream_url="http://10.0.0.1/x"), seal)
    assert sealed_site(Site(domain="a.example.org"), seal) == Site(domain="a.example.org")
    sealed = sealed_site(Site(domain="a.example.org", password="x", basic_http_auth="u:x"), str.upper)
    assert (sealed.password, sealed.basic_http_auth) == ("X", "U:X")
