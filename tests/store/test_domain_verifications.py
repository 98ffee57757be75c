import pytest

from spokes import clock
from spokes.errors import DomainUnverifiedError, PolicyError
from spokes.model.domains import LOST_AFTER_COUNT, AllowDomains, NoteDomainCheck, ResetDomains
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser, DeleteUser, EditUser
from tests.support.operations import do

DOMAIN = "tun.example.net"


@pytest.fixture
def tunnel(store):
    store.settings.verified_domains_only = True
    user = do(store, CreateUser(check_domains=True))
    do(store, AllowDomains(user.uid, ["*.example.org", "shop.example.com"]))
    tunnel, _ = do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=user.uid))
    return tunnel


def put(store, tunnel, domain):
    do(store, PutSites(tunnel.uid, [{"domain": domain}], domain=DOMAIN))


def test_site_of_an_unproved_domain_is_refused_with_its_challenge(store, tunnel):
    with pytest.raises(DomainUnverifiedError) as refused:
        put(store, tunnel, "a.example.org")
    assert "_spokes-proof.example.org" in refused.value.hint
    assert store.domain_verifications.challenge(tunnel.user_uid, "example.org") in refused.value.hint
    put(store, tunnel, tunnel.hostname)


def test_site_is_taken_once_its_domain_is_proved_and_no_other_with_it(store, tunnel):
    do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=True))
    put(store, tunnel, "a.example.org")
    with pytest.raises(DomainUnverifiedError):
        put(store, tunnel, "shop.example.com")
    with pytest.raises(PolicyError, match="not among the domains"):
        put(store, tunnel, "example.org")  # proved, but only what is below it is allowed


def test_proof_of_another_user_proves_nothing(store, tunnel):
    other = do(store, CreateUser())
    do(store, NoteDomainCheck(other.uid, "example.org", seen=True))
    with pytest.raises(DomainUnverifiedError):
        put(store, tunnel, "a.example.org")
    challenge = store.domain_verifications.challenge
    assert challenge(other.uid, "example.org") != challenge(tunnel.user_uid, "example.org")


def test_proof_is_asked_of_users_whose_domains_are_checked_and_where_it_is_wanted(store, tunnel):
    do(store, EditUser(tunnel.user_uid, check_domains=False))
    put(store, tunnel, "a.example.org")
    do(store, EditUser(tunnel.user_uid, check_domains=True))
    store.settings.verified_domains_only = False
    put(store, tunnel, "b.example.org")


def test_proof_outlives_two_failed_checks_and_is_lost_with_the_third(store, tunnel):
    first = do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=True))
    for _ in range(LOST_AFTER_COUNT - 1):
        assert do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=False)).proved == first.proved
    assert do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=True)).failures == 0
    for _ in range(LOST_AFTER_COUNT):
        last = do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=False))
    assert last.proved == 0
    assert store.domain_verifications.select(tunnel.user_uid) == [last]
    assert last.checked <= clock.wall_s()
    with pytest.raises(DomainUnverifiedError):
        put(store, tunnel, "a.example.org")


def test_site_that_stands_goes_on_when_its_proof_or_permission_is_lost(store, tunnel):
    do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=True))
    put(store, tunnel, "a.example.org")
    do(store, ResetDomains(tunnel.user_uid))
    assert [site.domain for site in store.sites.select(tunnel.uid)] == ["a.example.org"]
    put(store, tunnel, "a.example.org")  # as it is
    client_list = [{"domain": "a.example.org"}, {"domain": "b.example.org"}]
    first, second = do(store, ReplaceRules(tunnel.uid, client_list, {}, domain=DOMAIN)).sites
    assert first.error is None
    assert isinstance(second.error, PolicyError)
    with pytest.raises(PolicyError):
        do(store, PutSites(tunnel.uid, [{"domain": "a.example.org", "port": 81}], domain=DOMAIN))
    assert [site.domain for site in store.sites.select(tunnel.uid)] == ["a.example.org"]


def test_proofs_go_with_their_user(store, tunnel):
    do(store, NoteDomainCheck(tunnel.user_uid, "example.org", seen=True))
    do(store, DeleteUser(tunnel.user_uid))
    assert store.domain_verifications.select() == []
