import pytest

from spokes import clock
from spokes.errors import DomainProofError, PolicyError
from spokes.store.proofs import LOST_AFTER_COUNT

DOMAIN = "tun.example.net"


@pytest.fixture
def tunnel(store):
    store.needs_proof = True
    user = store.create_user(check_domains=True)
    store.allow_domains(user.uid, ["*.example.org", "shop.example.com"])
    tunnel, _ = store.create_tunnel("desk", domain=DOMAIN, user_uid=user.uid)
    return tunnel


def put(store, tunnel, domain):
    store.put_sites(tunnel.uid, [{"domain": domain}], domain=DOMAIN)


def test_site_of_an_unproved_domain_is_refused_with_its_challenge(store, tunnel):
    with pytest.raises(DomainProofError) as refused:
        put(store, tunnel, "a.example.org")
    assert "_spokes-proof.example.org" in refused.value.hint
    assert store.domain_challenge(tunnel.user_uid, "example.org") in refused.value.hint
    put(store, tunnel, tunnel.hostname)


def test_site_is_taken_once_its_domain_is_proved_and_no_other_with_it(store, tunnel):
    store.note_domain_check(tunnel.user_uid, "example.org", seen=True)
    put(store, tunnel, "a.example.org")
    with pytest.raises(DomainProofError):
        put(store, tunnel, "shop.example.com")
    with pytest.raises(PolicyError, match="not among the domains"):
        put(store, tunnel, "example.org")  # proved, but only what is below it is allowed


def test_proof_of_another_user_proves_nothing(store, tunnel):
    other = store.create_user()
    store.note_domain_check(other.uid, "example.org", seen=True)
    with pytest.raises(DomainProofError):
        put(store, tunnel, "a.example.org")
    assert store.domain_challenge(other.uid, "example.org") != store.domain_challenge(tunnel.user_uid, "example.org")


def test_proof_is_asked_of_users_whose_domains_are_checked_and_where_it_is_wanted(store, tunnel):
    store.edit_user(tunnel.user_uid, check_domains=False)
    put(store, tunnel, "a.example.org")
    store.edit_user(tunnel.user_uid, check_domains=True)
    store.needs_proof = False
    put(store, tunnel, "b.example.org")


def test_proof_outlives_two_failed_checks_and_is_lost_with_the_third(store, tunnel):
    first = store.note_domain_check(tunnel.user_uid, "example.org", seen=True)
    for _ in range(LOST_AFTER_COUNT - 1):
        assert store.note_domain_check(tunnel.user_uid, "example.org", seen=False).proved == first.proved
    assert store.note_domain_check(tunnel.user_uid, "example.org", seen=True).failures == 0
    for _ in range(LOST_AFTER_COUNT):
        last = store.note_domain_check(tunnel.user_uid, "example.org", seen=False)
    assert last.proved == 0
    assert store.list_domain_proofs(tunnel.user_uid) == [last]
    assert last.checked <= clock.wall_s()
    with pytest.raises(DomainProofError):
        put(store, tunnel, "a.example.org")


def test_site_that_stands_goes_on_when_its_proof_or_permission_is_lost(store, tunnel):
    store.note_domain_check(tunnel.user_uid, "example.org", seen=True)
    put(store, tunnel, "a.example.org")
    store.reset_domains(tunnel.user_uid)
    assert [site.domain for site in store.list_sites(tunnel.uid)] == ["a.example.org"]
    put(store, tunnel, "a.example.org")  # as it is
    client_list = [{"domain": "a.example.org"}, {"domain": "b.example.org"}]
    first, second = store.replace_rules(tunnel.uid, client_list, {}, domain=DOMAIN).sites
    assert first.error is None
    assert isinstance(second.error, PolicyError)
    with pytest.raises(PolicyError):
        store.put_sites(tunnel.uid, [{"domain": "a.example.org", "port": 81}], domain=DOMAIN)
    assert [site.domain for site in store.list_sites(tunnel.uid)] == ["a.example.org"]


def test_proofs_go_with_their_user(store, tunnel):
    store.note_domain_check(tunnel.user_uid, "example.org", seen=True)
    store.delete_user(tunnel.user_uid)
    assert store.list_domain_proofs() == []
