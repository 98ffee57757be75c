"""An owner's limits, held in the transaction of what would exceed them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes.errors import NotFoundError, PolicyError, SpokesError
from spokes.ids import ZERO_UID, new_uid
from spokes.model.domains import AllowDomains
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites
from spokes.model.tunnels import AssignTunnel, CreateTunnel, DeleteTunnel
from spokes.model.users import CreateUser, EditUser
from spokes.store import SiteResult
from tests.support.operations import do

DOMAIN = "tun.example.net"


@pytest.fixture
def owned(store):
    """(user, tunnel) with every check on and nothing allowed."""
    user = do(store, CreateUser(check_domains=True, check_ports=True))
    return user, do(store, CreateTunnel(name="a", domain=DOMAIN, user_uid=user.uid))[0]


def test_put_sites_domain_not_allowed_refuses_all(store, owned):
    user, tunnel = owned
    do(store, AllowDomains(user.uid, ["shop.example.org"]))
    with pytest.raises(PolicyError, match=r"other\.example\.org") as refusal:
        do(store, PutSites(tunnel.uid, [{"domain": "shop.example.org"}, {"domain": "other.example.org"}]))
    assert (refusal.value.code, refusal.value.http_status) == ("SPK-NOT-ALLOWED", 403)
    assert store.sites.select() == []


def test_replace_rules_domain_not_allowed_refused_alone(store, owned):
    user, tunnel = owned
    do(store, AllowDomains(user.uid, ["shop.example.org"]))
    sites = [{"domain": "shop.example.org"}, {"domain": "other.example.org"}]
    good, bad = do(store, ReplaceRules(tunnel.uid, sites, {})).sites
    assert good == SiteResult("shop.example.org")
    assert bad.error.code == "SPK-NOT-ALLOWED"
    assert [site.domain for site in store.sites.select()] == ["shop.example.org"]


@pytest.mark.parametrize(("host", "allowed"), [
    ("shop.example.org", True), ("a.b.example.org", True), ("example.org", False), ("badexample.org", False),
    ("shop.example.com", True), ("a.shop.example.com", False), ("SHOP.Example.com.", True),
])
def test_put_sites_wildcard_stands_for_names_below(store, owned, host, allowed):
    user, tunnel = owned
    do(store, AllowDomains(user.uid, ["*.example.org", "shop.example.com"]))
    if allowed:
        assert do(store, PutSites(tunnel.uid, [{"domain": host}]))
    else:
        with pytest.raises(PolicyError):
            do(store, PutSites(tunnel.uid, [{"domain": host}]))


def test_put_sites_own_hostname_always_allowed(store, owned):
    _, tunnel = owned
    assert do(store, PutSites(tunnel.uid, [{"domain": tunnel.hostname}], domain=DOMAIN))
    other, _ = do(store, CreateTunnel(name="b", domain=DOMAIN, user_uid=tunnel.user_uid))
    with pytest.raises(SpokesError):
        do(store, PutSites(other.uid, [{"domain": tunnel.hostname}], domain=DOMAIN))


def test_put_sites_without_the_check_or_an_owner_free(store, owned):
    user, tunnel = owned
    do(store, EditUser(user.uid, check_domains=False))
    assert do(store, PutSites(tunnel.uid, [{"domain": "a.example.org"}]))
    system, _ = do(store, CreateTunnel(name="s", domain=DOMAIN))
    assert do(store, PutSites(system.uid, [{"domain": "b.example.org"}]))


def test_allocate_port_counts_over_all_tunnels_of_the_user(store, owned):
    user, tunnel = owned
    second, _ = do(store, CreateTunnel(name="b", domain=DOMAIN, user_uid=user.uid))
    with pytest.raises(PolicyError):
        do(store, AllocatePort(tunnel.uid, 22000, 22999))
    do(store, EditUser(user.uid, max_ports=2))
    do(store, AllocatePort(tunnel.uid, 22000, 22999))
    port = do(store, AllocatePort(second.uid, 22000, 22999))
    with pytest.raises(PolicyError):
        do(store, AllocatePort(tunnel.uid, 22000, 22999))
    do(store, ReleasePort(second.uid, port))
    assert do(store, AllocatePort(tunnel.uid, 22000, 22999)) == port
    do(store, EditUser(user.uid, check_ports=False))
    assert do(store, AllocatePort(tunnel.uid, 22000, 22999))


def test_create_tunnel_over_the_limit_refused_until_one_is_deleted(store):
    user = do(store, CreateUser(max_tunnels=2))
    first, _ = do(store, CreateTunnel(name="a", domain=DOMAIN, user_uid=user.uid))
    do(store, CreateTunnel(name="b", domain=DOMAIN, user_uid=user.uid))
    before = store.changes.position()
    with pytest.raises(PolicyError):
        do(store, CreateTunnel(name="c", domain=DOMAIN, user_uid=user.uid))
    assert store.changes.position() == before
    do(store, DeleteTunnel(first.uid))
    do(store, CreateTunnel(name="c", domain=DOMAIN, user_uid=user.uid))


def test_assign_tunnel_counts_only_what_is_new_to_the_user(store):
    user = do(store, CreateUser(max_tunnels=1))
    own, _ = do(store, CreateTunnel(name="a", domain=DOMAIN, user_uid=user.uid))
    foreign, _ = do(store, CreateTunnel(name="b", domain=DOMAIN))
    assert do(store, AssignTunnel(uid=own.uid, user_uid=user.uid, name="renamed", domain=DOMAIN))[0].name == "renamed"
    with pytest.raises(PolicyError):
        do(store, AssignTunnel(uid=foreign.uid, user_uid=user.uid, name="b", domain=DOMAIN))
    with pytest.raises(NotFoundError):
        do(store, AssignTunnel(uid=foreign.uid, user_uid=new_uid(), name="b", domain=DOMAIN))
    assert store.tunnels.get(foreign.uid).user_uid == ZERO_UID


def test_last_free_port_of_a_user_wanted_by_all_goes_to_one(store):
    user = do(store, CreateUser(check_ports=True, max_ports=1))
    tunnels = [do(store, CreateTunnel(name=f"t{n}", domain=DOMAIN, user_uid=user.uid))[0] for n in range(6)]
    ready = threading.Barrier(len(tunnels))

    def allocate(tunnel):
        ready.wait()
        try:
            return do(store, AllocatePort(tunnel.uid, 22000, 22999))
        except PolicyError as error:
            return error.code

    with ThreadPoolExecutor(len(tunnels)) as pool:
        results = list(pool.map(allocate, tunnels))
    assert sorted(map(str, results)) == ["22000"] + ["SPK-NOT-ALLOWED"] * 5
