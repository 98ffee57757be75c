"""Announced lists against the stored rules, and where those stand."""

import pytest

from spokes.errors import LimitError, NotFoundError, RulesChangedError, TakenError, UnmanagedError
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.rule_state import RULES_BYTES_MAX, check_managed
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tunnels import CreateTunnel, EditTunnel
from tests.support.operations import do

DOMAIN = "tun.example.net"


@pytest.fixture
def uid(store):
    return do(store, CreateTunnel(name="t", domain=DOMAIN))[0].uid


def site(domain, port=80):
    return {"domain": domain, "port": port}


def test_read_rules_everything_in_order_of_its_key(store, uid):
    assert store.rules.read(uid).rev == 0
    do(store, PutSites(uid, [site("b.example.org"), site("a.example.org")]))
    ports = [do(store, AllocatePort(uid, 22000, 22999)) for _ in range(2)]
    portmaps = [{"listenPort": 2, "dstPort": 3, "transport": transport} for transport in ("udp", "tcp")]
    do(store, PutPortMaps(uid, portmaps))
    rules = store.rules.read(uid)
    assert [rule["domain"] for rule in rules.sites] == ["a.example.org", "b.example.org"]
    assert [rule["port"] for rule in rules.ports] == ports
    assert list(rules.portmaps) == portmaps[::-1]
    assert rules.rev == store.changes.position()[1]


def test_read_rules_revision_grows_with_each_change_of_the_tunnels_rules_only(store, uid):
    other = do(store, CreateTunnel(name="u", domain=DOMAIN))[0].uid
    changes = (
        lambda: do(store, PutSites(uid, [site("a.example.org")])),
        lambda: do(store, RemoveSites(uid, ["a.example.org"])),
        lambda: do(store, ReleasePort(uid, do(store, AllocatePort(uid, 22000, 22999)))),
        lambda: do(store, PutPortMaps(uid, [{"listenPort": 1, "dstPort": 2, "transport": "tcp"}])),
        lambda: do(store, RemovePortMaps(uid, [1])),
    )
    for change in changes:
        before = store.rules.read(uid).rev
        change()
        after = store.rules.read(uid).rev
        assert after > before
        do(store, PutSites(other, [site("other.example.org", after)]))
        do(store, EditTunnel(uid, name=str(after)))
        assert store.rules.read(uid).rev == after


def test_replace_rules_base_is_old_nothing_is_written(store, uid):
    base = do(store, ReplaceRules(uid, [site("a.example.org")], {})).rev
    assert base == store.rules.read(uid).rev
    do(store, PutSites(uid, [site("b.example.org")]))
    before = store.changes.position()
    with pytest.raises(RulesChangedError):
        do(store, ReplaceRules(uid, [site("a.example.org", 81)], {}, base_rev=base))
    assert store.changes.position() == before
    rev = store.rules.read(uid).rev
    assert do(store, ReplaceRules(uid, [site("a.example.org", 81)], {}, base_rev=rev)).rev == store.rules.read(uid).rev
    assert [rule["port"] for rule in store.rules.read(uid).sites] == [81]


def test_replace_rules_same_list_again_writes_nothing(store, uid):
    port = do(store, AllocatePort(uid, 22000, 22999))
    first = do(store, ReplaceRules(uid, [site("a.example.org")], {port: {"dstPort": 22}}))
    before = store.changes.position()
    assert do(store, ReplaceRules(uid, [site("A.example.org")], {port: {"dstPort": 22}}, base_rev=first.rev)) == first
    assert store.changes.position() == before


def test_replace_rules_ports_of_others_are_refused_alone_and_own_unnamed_ones_are_cleared(store, uid):
    other = do(store, CreateTunnel(name="u", domain=DOMAIN))[0].uid
    own, cleared = (do(store, AllocatePort(uid, 22000, 22999)) for _ in range(2))
    theirs = do(store, AllocatePort(other, 22000, 22999))
    do(store, PutPortRules(uid, {cleared: {"dstPort": 1}}))
    replaced = do(store, ReplaceRules(uid, [], {own: {"dstPort": 22}, theirs: {"dstPort": 22}}))
    assert replaced.own_ports == (own, cleared)
    assert list(replaced.port_errors) == [theirs]
    assert list(store.rules.read(uid).ports) == [{"port": own, "dstPort": 22}, {"port": cleared}]
    assert list(store.rules.read(other).ports) == [{"port": theirs}]


def test_unmanaged_tunnel_refuses_every_change_of_rules_until_it_is_managed_again(store, uid):
    port = do(store, AllocatePort(uid, 22000, 22999))
    do(store, ReplaceRules(uid, [site("a.example.org")], {}, unmanaged=True))
    calls = (
        lambda: do(store, PutSites(uid, [site("a.example.org", 81)])),
        lambda: do(store, RemoveSites(uid, ["a.example.org"])),
        lambda: do(store, PutPortRules(uid, {port: {"dstPort": 22}})),
        lambda: do(store, PutPortMaps(uid, [{"listenPort": 1, "dstPort": 2, "transport": "tcp"}])),
        lambda: do(store, RemovePortMaps(uid, [1])),
        lambda: check_managed(store, uid),
    )
    before = store.changes.position()
    for call in calls:
        with pytest.raises(UnmanagedError):
            call()
    assert store.changes.position() == before
    do(store, ReplaceRules(uid, [site("a.example.org")], {}, unmanaged=False))
    do(store, PutSites(uid, [site("a.example.org", 81)]))


def test_put_port_rules_all_or_none(store, uid):
    port = do(store, AllocatePort(uid, 22000, 22999))
    with pytest.raises(NotFoundError):
        do(store, PutPortRules(uid, {port: {"dstPort": 22}, port + 1: {"dstPort": 23}}))
    assert list(store.rules.read(uid).ports) == [{"port": port}]


def test_portmaps_key_is_port_and_transport_and_removal_takes_both(store, uid):
    for transport, target in (("tcp", 1), ("udp", 2), ("tcp", 3)):
        do(store, PutPortMaps(uid, [{"listenPort": 53, "transport": transport, "dstPort": target}]))
    assert [(p.transport, p.rule["dstPort"]) for p in store.portmaps.select(uid)] == [("tcp", 3), ("udp", 2)]
    with pytest.raises(NotFoundError):
        do(store, RemovePortMaps(uid, [53, 54]))
    do(store, RemovePortMaps(uid, [53]))
    assert store.portmaps.select(uid) == []


def test_rules_that_would_not_fit_one_message_are_refused(store, uid):
    certificate = "x" * 65536
    with pytest.raises(LimitError):
        do(store, PutSites(uid, [{**site(f"s{n}.example.org"), "x": certificate} for n in range(14)]))
    assert store.rules.read(uid).sites == ()
    do(store, PutSites(uid, [{**site(f"s{n}.example.org"), "x": certificate} for n in range(13)]))
    assert RULES_BYTES_MAX > 13 * 65536


def test_replace_rules_domain_of_another_is_refused_alone(store, uid):
    other = do(store, CreateTunnel(name="u", domain=DOMAIN))[0].uid
    do(store, PutSites(other, [site("a.example.org")]))
    replaced = do(store, ReplaceRules(uid, [site("a.example.org"), site("b.example.org")], {}))
    assert [type(result.error) for result in replaced.sites] == [TakenError, type(None)]
