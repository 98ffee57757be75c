import pytest

from spokes.errors import LimitError, NameRefusedError, NotFoundError, TakenError, ValueRefusedError
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import SITE_COUNT_MAX, PutSites, RemoveSites
from spokes.model.tunnels import CreateTunnel, DeleteTunnel
from spokes.model.users import CreateUser
from spokes.store import SiteResult
from tests.support.operations import do

DOMAIN = "tun.example.net"
RULE = {
    "domain": "Shop.Example.org.", "secure": True, "destination": "127.0.0.1", "port": 8080,
    "firewall": [{"sequence": 1, "action": "allow", "network": "203.0.113.0/24"}], "authPageOpts": {"title": "Büro"},
}


def replace_sites(store, tunnel_uid, sites, **more):
    return do(store, ReplaceRules(tunnel_uid, sites, {}, **more)).sites


@pytest.fixture
def tunnels(store):
    return [do(store, CreateTunnel(name=f"t{n}", domain=DOMAIN))[0] for n in range(2)]


def domains(store, tunnel=None):
    return [site.domain for site in store.sites.select(tunnel and tunnel.uid)]


def test_put_sites_keeps_the_rule_as_given_under_the_canonical_domain(store, tunnels):
    (site,) = do(store, PutSites(tunnels[0].uid, [RULE]))
    assert site.domain == "shop.example.org"
    assert site.rule == {**RULE, "domain": "shop.example.org"}
    assert store.sites.select() == store.sites.select(tunnels[0].uid) == [site]
    assert store.sites.select(tunnels[1].uid) == []


def test_put_sites_replaces_only_the_domains_named(store, tunnels):
    first = do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org", "port": 1}, {"domain": "b.example.org"}]))
    (changed,) = do(store, PutSites(tunnels[0].uid, [{"domain": "A.example.org", "tls": 2}]))
    assert (changed.uid, changed.created) == (first[0].uid, first[0].created)
    assert changed.rule == {"domain": "a.example.org", "tls": 2}             # complete: the old port is gone
    assert store.sites.select() == [changed, first[1]]


def test_put_sites_domain_of_another_refuses_all(store, tunnels):
    do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org"}]))
    before = store.changes.position()
    with pytest.raises(TakenError, match=r"a\.example\.org"):
        do(store, PutSites(tunnels[1].uid, [{"domain": "b.example.org"}, {"domain": "a.example.org"}]))
    assert domains(store) == ["a.example.org"]
    assert store.changes.position() == before


def test_put_sites_hostname_of_another_tunnel_is_taken_and_of_oneself_is_not(store, tunnels):
    with pytest.raises(TakenError):
        do(store, PutSites(tunnels[0].uid, [{"domain": tunnels[1].hostname.upper()}]))
    (site,) = do(store, PutSites(tunnels[1].uid, [{"domain": tunnels[1].hostname}]))
    assert site.domain == tunnels[1].hostname


@pytest.mark.parametrize("rule", [
    {}, {"domain": ""}, {"domain": None}, {"domain": 7}, {"domain": ["a"]}, None, "a.example.org", 7,
    {"domain": "a.example.org", "x": {1, 2}}, {"domain": "a.example.org", "x": float("nan")},
    {"domain": "a.example.org", "x": b"raw"},
])
def test_put_sites_no_proper_rule_refused(store, tunnels, rule):
    with pytest.raises(ValueRefusedError):
        do(store, PutSites(tunnels[0].uid, [{"domain": "ok.example.org"}, rule]))
    assert domains(store) == []


def test_put_sites_deeply_nested_rule_refused(store, tunnels):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueRefusedError):
        do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org", "x": nested}]))


@pytest.mark.parametrize("text", ["\x00", "\ud800", "'; DROP TABLE site; --", "%s {} ?", "\U0001f680"])
def test_put_sites_odd_text_in_a_rule_comes_back_unchanged(store, tunnels, text):
    do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org", text: [text]}]))
    assert store.sites.select()[0].rule == {"domain": "a.example.org", text: [text]}
    assert store.changes.after(0)[-1].body["rule"] == {"domain": "a.example.org", text: [text]}


def test_put_sites_reserved_under_the_server_s_domain_refused(store, tunnels):
    for host in ("admin." + DOMAIN, "API." + DOMAIN, DOMAIN, "a.www." + DOMAIN):
        with pytest.raises(NameRefusedError):
            do(store, PutSites(tunnels[0].uid, [{"domain": host}], domain=DOMAIN))
    assert do(store, PutSites(tunnels[0].uid, [{"domain": "admin.example.org"}], domain=DOMAIN))


def test_put_sites_over_the_bound_refused(store, tunnels):
    do(store, PutSites(tunnels[0].uid, [{"domain": f"s{n}.example.org"} for n in range(SITE_COUNT_MAX)]))
    with pytest.raises(LimitError):
        do(store, PutSites(tunnels[0].uid, [{"domain": "one-more.example.org"}]))
    assert len(store.sites.select()) == SITE_COUNT_MAX


def test_remove_sites_unknown_domain_refuses_all(store, tunnels):
    do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org"}, {"domain": "b.example.org"}]))
    do(store, PutSites(tunnels[1].uid, [{"domain": "c.example.org"}]))
    for unknown in ("x.example.org", "c.example.org"):
        with pytest.raises(NotFoundError):
            do(store, RemoveSites(tunnels[0].uid, ["a.example.org", unknown]))
    assert domains(store) == ["a.example.org", "b.example.org", "c.example.org"]
    do(store, RemoveSites(tunnels[0].uid, ["A.example.org.", "a.example.org"]))
    assert domains(store, tunnels[0]) == ["b.example.org"]


def test_replace_sites_whole_list_is_applied(store, tunnels):
    do(store, PutSites(tunnels[0].uid, [{"domain": "old.example.org"}, {"domain": "kept.example.org", "port": 1}]))
    kept = store.sites.select()[0]
    rules = [{"domain": "Kept.example.org", "port": 1}, {"domain": "new.example.org"}]
    results = replace_sites(store, tunnels[0].uid, rules)
    assert results == [SiteResult("kept.example.org"), SiteResult("new.example.org")]
    assert domains(store) == ["kept.example.org", "new.example.org"]
    assert store.sites.select()[0] == kept                                     # not written again


def test_replace_sites_refuses_single_domains(store, tunnels):
    do(store, PutSites(tunnels[1].uid, [{"domain": "taken.example.org"}]))
    results = replace_sites(store, tunnels[0].uid, [
        {"domain": "taken.example.org"}, {"domain": "free.example.org"}, {"domain": "admin." + DOMAIN}, None,
        {"domain": "a b"}, {"domain": tunnels[1].hostname},
    ], domain=DOMAIN)
    assert [(result.domain, result.error and result.error.code) for result in results] == [
        ("taken.example.org", "SPK-TAKEN"), ("free.example.org", None), ("admin." + DOMAIN, "SPK-NAME"),
        ("", "SPK-VALUE"), ("a b", "SPK-NAME"), (tunnels[1].hostname, "SPK-TAKEN"),
    ]
    assert domains(store, tunnels[0]) == ["free.example.org"]
    assert domains(store, tunnels[1]) == ["taken.example.org"]


def test_replace_sites_same_list_writes_nothing(store, tunnels):
    rules = [{"domain": "a.example.org", "secure": True}, {"domain": "b.example.org"}]
    replace_sites(store, tunnels[0].uid, rules)
    before = store.changes.position()
    replace_sites(store, tunnels[0].uid, list(reversed(rules)))
    assert store.changes.position() == before
    replace_sites(store, tunnels[0].uid, [{"domain": "a.example.org", "secure": 1}, rules[1]])
    assert store.changes.position() == (1, before[1] + 1)                            # true and 1 are two things


def test_replace_sites_empty_list_removes_all(store, tunnels):
    do(store, PutSites(tunnels[0].uid, [{"domain": "a.example.org"}]))
    assert replace_sites(store, tunnels[0].uid, []) == []
    assert domains(store) == []


def test_replace_sites_over_the_bound_refuses_the_rest(store, tunnels):
    results = replace_sites(store, tunnels[0].uid, [{"domain": f"s{n}.example.org"} for n in range(SITE_COUNT_MAX + 2)])
    assert [result.domain for result in results if result.error] == [
        f"s{SITE_COUNT_MAX}.example.org", f"s{SITE_COUNT_MAX + 1}.example.org",
    ]
    assert len(store.sites.select()) == SITE_COUNT_MAX


def test_replace_rules_name_of_a_deleted_tunnel_is_held_in_words_of_its_own(store, tunnels):
    gone, _ = tunnels
    other, _ = do(store, CreateTunnel(name="other", domain=DOMAIN, user_uid=do(store, CreateUser()).uid))
    do(store, DeleteTunnel(gone.uid))
    (result,) = replace_sites(store, other.uid, [{"domain": gone.hostname}], domain=DOMAIN)
    assert result.error.code == "SPK-HELD"
    assert "30 days" in str(result.error)
    assert store.sites.select(other.uid) == []
