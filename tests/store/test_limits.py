"""An owner's limits, held in the transaction of what would exceed them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes.errors import NotFoundError, PolicyError, SpokesError
from spokes.ids import ZERO_UID, new_uid
from spokes.store import SiteResult

DOMAIN = "tun.example.net"


@pytest.fixture
def owned(store):
    """(user, tunnel) with every check on and nothing allowed."""
    user = store.create_user(check_domains=True, check_ports=True)
    return user, store.create_tunnel("a", domain=DOMAIN, user_uid=user.uid)[0]


def test_put_sites_domain_not_allowed_refuses_all(store, owned):
    user, tunnel = owned
    store.allow_domains(user.uid, ["shop.example.org"])
    with pytest.raises(PolicyError, match=r"other\.example\.org") as refusal:
        store.put_sites(tunnel.uid, [{"domain": "shop.example.org"}, {"domain": "other.example.org"}])
    assert (refusal.value.code, refusal.value.http_status) == ("SPK-NOT-ALLOWED", 403)
    assert store.list_sites() == []


def test_replace_rules_domain_not_allowed_refused_alone(store, owned):
    user, tunnel = owned
    store.allow_domains(user.uid, ["shop.example.org"])
    sites = [{"domain": "shop.example.org"}, {"domain": "other.example.org"}]
    good, bad = store.replace_rules(tunnel.uid, sites, {}).sites
    assert good == SiteResult("shop.example.org")
    assert bad.error.code == "SPK-NOT-ALLOWED"
    assert [site.domain for site in store.list_sites()] == ["shop.example.org"]


@pytest.mark.parametrize(("host", "allowed"), [
    ("shop.example.org", True), ("a.b.example.org", True), ("example.org", False), ("badexample.org", False),
    ("shop.example.com", True), ("a.shop.example.com", False), ("SHOP.Example.com.", True),
])
def test_put_sites_wildcard_stands_for_names_below(store, owned, host, allowed):
    user, tunnel = owned
    store.allow_domains(user.uid, ["*.example.org", "shop.example.com"])
    if allowed:
        assert store.put_sites(tunnel.uid, [{"domain": host}])
    else:
        with pytest.raises(PolicyError):
            store.put_sites(tunnel.uid, [{"domain": host}])


def test_put_sites_own_hostname_always_allowed(store, owned):
    _, tunnel = owned
    assert store.put_sites(tunnel.uid, [{"domain": tunnel.hostname}], domain=DOMAIN)
    other, _ = store.create_tunnel("b", domain=DOMAIN, user_uid=tunnel.user_uid)
    with pytest.raises(SpokesError):
        store.put_sites(other.uid, [{"domain": tunnel.hostname}], domain=DOMAIN)


def test_put_sites_without_the_check_or_an_owner_free(store, owned):
    user, tunnel = owned
    store.edit_user(user.uid, check_domains=False)
    assert store.put_sites(tunnel.uid, [{"domain": "a.example.org"}])
    system, _ = store.create_tunnel("s", domain=DOMAIN)
    assert store.put_sites(system.uid, [{"domain": "b.example.org"}])


def test_allocate_port_counts_over_all_tunnels_of_the_user(store, owned):
    user, tunnel = owned
    second, _ = store.create_tunnel("b", domain=DOMAIN, user_uid=user.uid)
    with pytest.raises(PolicyError):
        store.allocate_port(tunnel.uid, 22000, 22999)
    store.edit_user(user.uid, max_ports=2)
    store.allocate_port(tunnel.uid, 22000, 22999)
    port = store.allocate_port(second.uid, 22000, 22999)
    with pytest.raises(PolicyError):
        store.allocate_port(tunnel.uid, 22000, 22999)
    store.release_port(second.uid, port)
    assert store.allocate_port(tunnel.uid, 22000, 22999) == port
    store.edit_user(user.uid, check_ports=False)
    assert store.allocate_port(tunnel.uid, 22000, 22999)


def test_create_tunnel_over_the_limit_refused_until_one_is_deleted(store):
    user = store.create_user(max_tunnels=2)
    first, _ = store.create_tunnel("a", domain=DOMAIN, user_uid=user.uid)
    store.create_tunnel("b", domain=DOMAIN, user_uid=user.uid)
    before = store.position()
    with pytest.raises(PolicyError):
        store.create_tunnel("c", domain=DOMAIN, user_uid=user.uid)
    assert store.position() == before
    store.delete_tunnel(first.uid)
    store.create_tunnel("c", domain=DOMAIN, user_uid=user.uid)


def test_assign_tunnel_counts_only_what_is_new_to_the_user(store):
    user = store.create_user(max_tunnels=1)
    own, _ = store.create_tunnel("a", domain=DOMAIN, user_uid=user.uid)
    foreign, _ = store.create_tunnel("b", domain=DOMAIN)
    assert store.assign_tunnel(own.uid, user.uid, name="renamed", domain=DOMAIN)[0].name == "renamed"
    with pytest.raises(PolicyError):
        store.assign_tunnel(foreign.uid, user.uid, name="b", domain=DOMAIN)
    with pytest.raises(NotFoundError):
        store.assign_tunnel(foreign.uid, new_uid(), name="b", domain=DOMAIN)
    assert store.get_tunnel(foreign.uid).user_uid == ZERO_UID


def test_last_free_port_of_a_user_wanted_by_all_goes_to_one(store):
    user = store.create_user(check_ports=True, max_ports=1)
    tunnels = [store.create_tunnel(f"t{n}", domain=DOMAIN, user_uid=user.uid)[0] for n in range(6)]
    ready = threading.Barrier(len(tunnels))

    def allocate(tunnel):
        ready.wait()
        try:
            return store.allocate_port(tunnel.uid, 22000, 22999)
        except PolicyError as error:
            return error.code

    with ThreadPoolExecutor(len(tunnels)) as pool:
        results = list(pool.map(allocate, tunnels))
    assert sorted(map(str, results)) == ["22000"] + ["SPK-NOT-ALLOWED"] * 5
