import pytest

from spokes import clock
from spokes.errors import DomainProofError, PolicyError
from spokes.store.proofs import LOST_AFTER_COUNT

DOMAIN = "tun.example.net"


@pytest.fixture
def tunnel(store):
    store.domain_verifications.required = True
    user = store.users.create(check_domains=True)
    store.users.allow_domains(user.uid, ["*.example.org", "shop.example.com"])
    tunnel, _ = store.tunnels.create("desk", domain=DOMAIN, user_uid=user.uid)
    return tunnel


def put(store, tunnel, domain):
    store.sites.put(tunnel.uid, [{"domain": domain}], domain=DOMAIN)


def test_site_of_an_unproved_domain_is_refused_with_its_challenge(store, tunnel):
    with pytest.raises(DomainProofError) as refused:
        put(store, tunnel, "a.example.org")
    assert "_spokes-proof.example.org" in refused.value.hint
    assert store.domain_verifications.challenge(tunnel.user_uid, "example.org") in refused.value.hint
    put(store, tunnel, tunnel.hostname)


def test_site_is_taken_once_its_domain_is_proved_and_no_other_with_it(store, tunnel):
    store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=True)
    put(store, tunnel, "a.example.org")
    with pytest.raises(DomainProofError):
        put(store, tunnel, "shop.example.com")
    with pytest.raises(PolicyError, match="not among the domains"):
        put(store, tunnel, "example.org")  # proved, but only what is below it is allowed


def test_proof_of_another_user_proves_nothing(store, tunnel):
    other = store.users.create()
    store.domain_verifications.note_check(other.uid, "example.org", seen=True)
    with pytest.raises(DomainProofError):
        put(store, tunnel, "a.example.org")
    challenge = store.domain_verifications.challenge
    assert challenge(other.uid, "example.org") != challenge(tunnel.user_uid, "example.org")


def test_proof_is_asked_of_users_whose_domains_are_checked_and_where_it_is_wanted(store, tunnel):
    store.users.edit(tunnel.user_uid, check_domains=False)
    put(store, tunnel, "a.example.org")
    store.users.edit(tunnel.user_uid, check_domains=True)
    store.domain_verifications.required = False
    put(store, tunnel, "b.example.org")


def test_proof_outlives_two_failed_checks_and_is_lost_with_the_third(store, tunnel):
    first = store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=True)
    for _ in range(LOST_AFTER_COUNT - 1):
        assert store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=False).proved == first.proved
    assert store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=True).failures == 0
    for _ in range(LOST_AFTER_COUNT):
        last = store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=False)
    assert last.proved == 0
    assert store.domain_verifications.select(tunnel.user_uid) == [last]
    assert last.checked <= clock.wall_s()
    with pytest.raises(DomainProofError):
        put(store, tunnel, "a.example.org")


def test_site_that_stands_goes_on_when_its_proof_or_permission_is_lost(store, tunnel):
    store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=True)
    put(store, tunnel, "a.example.org")
    store.users.reset_domains(tunnel.user_uid)
    assert [site.domain for site in store.sites.select(tunnel.uid)] == ["a.example.org"]
    put(store, tunnel, "a.example.org")  # as it is
    client_list = [{"domain": "a.example.org"}, {"domain": "b.example.org"}]
    first, second = store.rule_lists.replace(tunnel.uid, client_list, {}, domain=DOMAIN).sites
    assert first.error is None
    assert isinstance(second.error, PolicyError)
    with pytest.raises(PolicyError):
        store.sites.put(tunnel.uid, [{"domain": "a.example.org", "port": 81}], domain=DOMAIN)
    assert [site.domain for site in store.sites.select(tunnel.uid)] == ["a.example.org"]


def test_proofs_go_with_their_user(store, tunnel):
    store.domain_verifications.note_check(tunnel.user_uid, "example.org", seen=True)
    store.users.delete(tunnel.user_uid)
    assert store.domain_verifications.select() == []
