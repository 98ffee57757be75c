import pytest

from spokes import clock
from spokes.errors import (
    HeldNameError,
    InactiveError,
    NameRefusedError,
    NotFoundError,
    TakenError,
    TokenError,
    ValueRefusedError,
)
from spokes.ids import ZERO_UID, canonical_host, is_secret, new_uid
from spokes.store import PresenceUpdate, TunnelState, tunnels
from spokes.store.hostnames import FORMER_NAMES_MAX, HOSTNAME_HELD_S

DOMAIN = "tun.example.net"


@pytest.fixture
def token(store):
    return store.tokens.create("t").value


def test_register_tunnel_gets_a_hostname_and_a_key(store, token):
    tunnel, key = store.tunnels.register(token, "shop", domain="TUN.example.net.")
    assert is_secret(key)
    assert tunnel.hostname.endswith("." + DOMAIN)
    assert canonical_host(tunnel.hostname) == tunnel.hostname
    assert (tunnel.name, tunnel.state, tunnel.user_uid, tunnel.last_active) == ("shop", TunnelState.INIT, ZERO_UID, 0.0)
    assert store.tunnels.find_by_key(key) == tunnel
    assert store.tunnels.get(tunnel.uid) == tunnel
    assert store.tunnels.auth_token(tunnel.uid).value == key


@pytest.mark.parametrize(("value", "active", "error"), [(None, False, InactiveError), ("0" * 64, True, TokenError)])
def test_register_tunnel_unusable_token_leaves_nothing(store, value, active, error):
    token = store.tokens.create("t", active=active)
    before = store.changes.position()
    with pytest.raises(error):
        store.tunnels.register(value or token.value, "shop", domain=DOMAIN)
    assert store.tunnels.select() == []
    assert store.changes.position() == before


def test_register_tunnel_deleted_token_leaves_its_tunnels_working(store, token):
    tunnel, key = store.tunnels.register(token, "shop", domain=DOMAIN)
    store.tokens.delete(store.tokens.select()[0].uid)
    assert store.tunnels.find_by_key(key).uid == tunnel.uid


def test_register_tunnel_chosen_hostname_any_spelling_is_taken_once(store, token):
    tunnel, _ = store.tunnels.register(token, "a", "Büro." + DOMAIN, domain=DOMAIN)
    assert tunnel.hostname == "xn--bro-hoa." + DOMAIN
    for spelling in ("büro." + DOMAIN, "XN--BRO-HOA." + DOMAIN + ".", "BÜRO." + DOMAIN.upper()):
        with pytest.raises(TakenError):
            store.tunnels.register(token, "b", spelling, domain=DOMAIN)


@pytest.mark.parametrize("hostname", [
    "admin." + DOMAIN, "ADMIN." + DOMAIN, "x.api." + DOMAIN, DOMAIN, "example.net", "shop.example.org",
    "shop.tun.example.net.evil.org", "-." + DOMAIN, "*." + DOMAIN, "a b." + DOMAIN, "\ud800." + DOMAIN,
])
def test_register_tunnel_refused_hostname_leaves_nothing(store, token, hostname):
    with pytest.raises(NameRefusedError):
        store.tunnels.register(token, "a", hostname, domain=DOMAIN)
    assert store.tunnels.select() == []


def test_register_tunnel_name_another_serves_is_taken(store, token):
    holder, _ = store.tunnels.register(token, "a", domain=DOMAIN)
    store.sites.put(holder.uid, [{"domain": "shop." + DOMAIN}])
    with pytest.raises(TakenError):
        store.tunnels.register(token, "b", "shop." + DOMAIN, domain=DOMAIN)


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\ud800", "x" * 256])
def test_register_tunnel_unfit_name_refused(store, token, name):
    with pytest.raises(ValueRefusedError):
        store.tunnels.register(token, name, domain=DOMAIN)


def test_create_tunnel_for_a_user_with_an_id_of_choice(store):
    uid, user_uid = new_uid(), store.users.create().uid
    tunnel, auth = store.tunnels.create("desk", domain=DOMAIN, user_uid=user_uid, uid=uid)
    assert (tunnel.uid, tunnel.user_uid, tunnel.token_uid) == (uid, user_uid, ZERO_UID)
    assert store.tunnels.find_by_key(auth.value) == tunnel
    with pytest.raises(TakenError):
        store.tunnels.create("desk", domain=DOMAIN, uid=uid)
    with pytest.raises(NotFoundError):
        store.tunnels.create("desk", domain=DOMAIN, user_uid=new_uid())


def test_assign_tunnel_links_and_enables(store, token):
    tunnel, key = store.tunnels.register(token, "old", domain=DOMAIN)
    user = store.users.create()
    store.tunnels.set_state(tunnel.uid, TunnelState.SHUTDOWN)
    assigned, auth = store.tunnels.assign(tunnel.uid, user.uid, name="new", domain=DOMAIN)
    assert (assigned.user_uid, assigned.name, assigned.hostname) == (user.uid, "new", tunnel.hostname)
    assert auth.value == key
    assert store.tunnels.find_by_key(key) == assigned
    before = store.changes.position()
    assert store.tunnels.assign(tunnel.uid, user.uid, name="new", hostname=tunnel.hostname, domain=DOMAIN) == (
        assigned, auth
    )
    assert store.changes.position() == before
    assert store.tunnels.assign(tunnel.uid, ZERO_UID, name="", domain=DOMAIN)[0].user_uid == ZERO_UID


def test_assign_tunnel_hostname_moves_if_it_is_free(store, token):
    tunnel, _ = store.tunnels.register(token, "a", "a." + DOMAIN, domain=DOMAIN)
    store.tunnels.register(token, "b", "b." + DOMAIN, domain=DOMAIN)
    with pytest.raises(TakenError):
        store.tunnels.assign(tunnel.uid, ZERO_UID, name="a", hostname="B." + DOMAIN, domain=DOMAIN)
    with pytest.raises(NameRefusedError):
        store.tunnels.assign(tunnel.uid, ZERO_UID, name="a", hostname="admin." + DOMAIN, domain=DOMAIN)
    moved, _ = store.tunnels.assign(tunnel.uid, ZERO_UID, name="a", hostname="C." + DOMAIN, domain=DOMAIN)
    assert moved.hostname == "c." + DOMAIN
    with pytest.raises(HeldNameError):
        store.tunnels.register(token, "d", "a." + DOMAIN, domain=DOMAIN)
    back, _ = store.tunnels.assign(tunnel.uid, ZERO_UID, name="a", hostname="a." + DOMAIN, domain=DOMAIN)
    assert back.hostname == "a." + DOMAIN


def test_assign_tunnel_deleted_or_unknown_not_found(store, token):
    tunnel, _ = store.tunnels.register(token, "a", domain=DOMAIN)
    store.tunnels.delete(tunnel.uid)
    for uid in (tunnel.uid, new_uid(), "\x00"):
        with pytest.raises(NotFoundError):
            store.tunnels.assign(uid, ZERO_UID, name="a", domain=DOMAIN)


@pytest.mark.parametrize("uid", ["", "0" * 32, "X" * 32, "\x00"])
def test_create_tunnel_malformed_id_refused(store, uid):
    with pytest.raises(ValueRefusedError):
        store.tunnels.create("desk", domain=DOMAIN, uid=uid)


@pytest.mark.parametrize("key", ["", "0" * 64, "\ud800", "' OR 1=1 --"])
def test_find_tunnel_by_key_unknown_key_refused(store, token, key):
    store.tunnels.register(token, "a", domain=DOMAIN)
    with pytest.raises(TokenError):
        store.tunnels.find_by_key(key)


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800", "x" * 5000])
def test_tunnel_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.tunnels.get(uid), lambda: store.tunnels.auth_token(uid),
        lambda: store.tunnels.edit(uid, name="x"),
        lambda: store.tunnels.set_state(uid, TunnelState.SHUTDOWN), lambda: store.tunnels.delete(uid),
        lambda: store.sites.put(uid, [{"domain": "a.example.org"}]), lambda: store.rule_lists.replace(uid, [], {}),
        lambda: store.ports.allocate(uid, 22000, 22999), lambda: store.ports.release(uid, 22000),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert (store.sites.select(uid), store.ports.select(uid)) == ([], [])
    assert store.changes.position() == (1, 0)


def test_edit_tunnel_changes_the_name_only(store, token):
    tunnel, _ = store.tunnels.register(token, "old", domain=DOMAIN)
    edited = store.tunnels.edit(tunnel.uid, name="Ladenkasse №4")
    assert (edited.name, edited.hostname) == ("Ladenkasse №4", tunnel.hostname)
    assert store.tunnels.get(tunnel.uid) == edited


def test_list_tunnels_newest_first_without_deleted_ones(store, token):
    with clock.replaced(clock.ManualClock()) as _:
        tunnels = []
        for n in range(4):
            with clock.replaced(clock.ManualClock(wall_s=1_800_000_000.0 + n)):
                tunnels.append(store.tunnels.register(token, f"t{n}", domain=DOMAIN)[0])
    store.tunnels.delete(tunnels[1].uid)
    assert store.tunnels.select() == [tunnels[3], tunnels[2], tunnels[0]]


def test_set_tunnel_state_shutdown_refuses_logins_until_admitted_again(store, token):
    tunnel, key = store.tunnels.register(token, "a", domain=DOMAIN)
    store.presence.write([PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=9.0)])
    assert store.tunnels.set_state(tunnel.uid, TunnelState.SHUTDOWN).state == TunnelState.SHUTDOWN
    assert store.tunnels.get(tunnel.uid).state == TunnelState.SHUTDOWN       # also while the session still ends
    with pytest.raises(InactiveError):
        store.tunnels.find_by_key(key)
    before = store.changes.position()
    store.tunnels.set_state(tunnel.uid, TunnelState.SHUTDOWN)
    assert store.changes.position() == before                                       # a second call changes nothing
    store.tunnels.set_state(tunnel.uid, TunnelState.INIT)
    assert store.tunnels.find_by_key(key).uid == tunnel.uid


@pytest.mark.parametrize("state", [TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.DELETED])
def test_set_tunnel_state_not_the_operator_s_is_a_mistake_of_the_program(store, token, state):
    tunnel, _ = store.tunnels.register(token, "a", domain=DOMAIN)
    with pytest.raises(ValueError, match="operator"):
        store.tunnels.set_state(tunnel.uid, state)


def test_delete_tunnel_frees_sites_and_ports_and_ends_the_key(store, token):
    tunnel, key = store.tunnels.register(token, "a", domain=DOMAIN)
    other, _ = store.tunnels.register(token, "b", domain=DOMAIN)
    store.sites.put(tunnel.uid, [{"domain": "shop.example.org"}])
    port = store.ports.allocate(tunnel.uid, 22000, 22000)
    store.tunnels.delete(tunnel.uid)
    assert store.tunnels.get(tunnel.uid).state == TunnelState.DELETED
    with pytest.raises(TokenError):
        store.tunnels.find_by_key(key)
    with pytest.raises(NotFoundError):
        store.tunnels.delete(tunnel.uid)
    assert store.sites.put(other.uid, [{"domain": "shop.example.org"}])[0].tunnel_uid == other.uid
    assert store.ports.allocate(other.uid, 22000, 22000) == port


def test_delete_tunnel_hostname_stays_reserved_for_30_days(store, token):
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = store.tunnels.register(token, "a", "shop." + DOMAIN, domain=DOMAIN)
        other, _ = store.tunnels.register(token, "b", domain=DOMAIN)
        store.tunnels.delete(tunnel.uid)
        now.advance(HOSTNAME_HELD_S - 1)
        for spelling in ("shop." + DOMAIN, "SHOP." + DOMAIN + "."):
            with pytest.raises(TakenError):
                store.tunnels.register(token, "c", spelling, domain=DOMAIN)
            with pytest.raises(TakenError):
                store.sites.put(other.uid, [{"domain": spelling}])
        now.advance(2)
        heir, _ = store.tunnels.register(token, "c", "shop." + DOMAIN, domain=DOMAIN)
    assert heir.hostname == tunnel.hostname
    assert store.tunnels.get(tunnel.uid).state == TunnelState.DELETED


def test_hostname_renamed_away_from_is_held_for_its_owner_for_30_days(store):
    """Visitors know it: nobody else may answer them there."""
    owner, other = store.users.create(), store.users.create()
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = store.tunnels.create("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
        store.sites.put(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 80}], domain=DOMAIN)
        store.tunnels.assign(tunnel.uid, owner.uid, name="", hostname="till." + DOMAIN, domain=DOMAIN)
        store.sites.put(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 81}], domain=DOMAIN)  # its rule goes on
        store.sites.remove(tunnel.uid, ["shop." + DOMAIN])
        stranger, _ = store.tunnels.create("x", domain=DOMAIN, user_uid=other.uid)
        with pytest.raises(HeldNameError, match="a tunnel that has another name now, and is held for 30 days"):
            store.tunnels.create("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
        with pytest.raises(HeldNameError):
            store.sites.put(stranger.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN)
        with pytest.raises(TakenError, match="lies under"):
            store.sites.put(stranger.uid, [{"domain": "www.shop." + DOMAIN}], domain=DOMAIN)
        again, _ = store.tunnels.create("z", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
        with pytest.raises(TakenError, match="belongs to another tunnel"):   # in use again: that comes first
            store.tunnels.create("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
        store.tunnels.assign(again.uid, owner.uid, name="", hostname="post." + DOMAIN, domain=DOMAIN)
        now.advance(HOSTNAME_HELD_S + 1)
        assert store.tunnels.create("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)


def test_hostname_renamed_away_from_and_handed_over_stays_the_former_owners(store):
    owner, heir = store.users.create(), store.users.create()
    tunnel, _ = store.tunnels.create("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
    store.tunnels.assign(tunnel.uid, heir.uid, name="", hostname="till." + DOMAIN, domain=DOMAIN)
    with pytest.raises(HeldNameError):
        store.sites.put(tunnel.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN)
    assert store.tunnels.create("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)


def test_hostname_of_a_tunnel_renamed_again_and_again_only_the_latest_are_held(store):
    owner, other = store.users.create(), store.users.create()
    tunnel, _ = store.tunnels.create("t", "n0." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
    for number in range(1, FORMER_NAMES_MAX + 2):
        store.tunnels.assign(tunnel.uid, owner.uid, name="", hostname=f"n{number}.{DOMAIN}", domain=DOMAIN)
    assert store.tunnels.create("y", "n0." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
    with pytest.raises(HeldNameError):
        store.tunnels.create("y", "n1." + DOMAIN, domain=DOMAIN, user_uid=other.uid)


@pytest.mark.parametrize("registers", [False, True])
def test_hostname_of_a_deleted_tunnel_its_owner_takes_back_at_once(store, token, registers):
    """Whoever registered with the same token may be anybody."""
    owner, other = store.users.create(), store.users.create()
    if registers:
        tunnel, _ = store.tunnels.register(token, "a", "shop." + DOMAIN, domain=DOMAIN)
        with pytest.raises(TakenError):
            store.tunnels.create("b", "shop." + DOMAIN, domain=DOMAIN)
        store.tunnels.delete(tunnel.uid)
        for choose in (store.tunnels.register, lambda _, *args, **kwargs: store.tunnels.create(*args, **kwargs)):
            with pytest.raises(HeldNameError, match="that was deleted"):
                choose(token, "b", "shop." + DOMAIN, domain=DOMAIN)
        return
    for user_uid in (owner.uid, ZERO_UID):
        name = f"shop-{user_uid[:3]}.{DOMAIN}"
        for _ in range(3):
            tunnel, _ = store.tunnels.create("a", name, domain=DOMAIN, user_uid=user_uid)
            assert store.tunnels.assign(tunnel.uid, user_uid, name="", hostname=name, domain=DOMAIN)[0] == tunnel
            store.tunnels.delete(tunnel.uid)
        with pytest.raises(HeldNameError):
            store.tunnels.create("b", name, domain=DOMAIN, user_uid=other.uid)
        second, _ = store.tunnels.create("b", domain=DOMAIN, user_uid=user_uid)
        assert store.sites.put(second.uid, [{"domain": name}, {"domain": "www." + name}], domain=DOMAIN)
        with pytest.raises(TakenError):
            store.tunnels.create("c", name, domain=DOMAIN, user_uid=other.uid)


def _others(store):
    """Ways for somebody to choose a hostname: a new tunnel, one that registers, one that moves."""
    stranger, _ = store.tunnels.create("other", "other." + DOMAIN, domain=DOMAIN)
    token = store.tokens.create("t").value
    return (
        lambda host: store.tunnels.create("x", host, domain=DOMAIN),
        lambda host: store.tunnels.register(token, "x", host, domain=DOMAIN),
        lambda host: store.tunnels.assign(stranger.uid, ZERO_UID, name="", hostname=host, domain=DOMAIN),
    )


@pytest.mark.parametrize("under", ["www.", "a.b.", "a.b.c."])
def test_hostname_under_another_tunnels_is_refused(store, under):
    owner, _ = store.tunnels.create("shop", "shop." + DOMAIN, domain=DOMAIN)
    for choose in _others(store):
        with pytest.raises(TakenError, match="lies under"):
            choose(under + owner.hostname)
    moved, _ = store.tunnels.assign(owner.uid, ZERO_UID, name="", hostname=under + owner.hostname, domain=DOMAIN)
    assert moved.hostname == under + owner.hostname


def test_hostname_above_what_is_another_tunnels_is_refused(store):
    below, _ = store.tunnels.create("shop", "www.shop." + DOMAIN, domain=DOMAIN)
    server, _ = store.tunnels.create("post", "post." + DOMAIN, domain=DOMAIN)
    store.sites.put(server.uid, [{"domain": "a.b_c." + DOMAIN}], domain=DOMAIN)
    for choose in _others(store):
        for host in ("shop.", "b_c."):
            with pytest.raises(TakenError, match="names under"):
                choose(host + DOMAIN)
    # What only looks like it to LIKE is free, and so is what is above one's own.
    store.tunnels.create("near", "bxc." + DOMAIN, domain=DOMAIN)
    store.tunnels.assign(below.uid, ZERO_UID, name="", hostname="shop." + DOMAIN, domain=DOMAIN)


def test_hostname_with_more_labels_than_are_looked_at_is_refused(store):
    store.tunnels.create("deep", "a.b.c.d." + DOMAIN, domain=DOMAIN)
    with pytest.raises(NameRefusedError, match="4 labels"):
        store.tunnels.create("deeper", "e.f.g.h.i." + DOMAIN, domain=DOMAIN)


def test_automatic_hostname_is_never_above_what_is_anothers(store, monkeypatch):
    other, _ = store.tunnels.create("other", "other." + DOMAIN, domain=DOMAIN)
    drawn = iter(["calm-otter-1." + DOMAIN, "calm-otter-2." + DOMAIN])
    monkeypatch.setattr(
        tunnels, "automatic_hostname", lambda domain, taken: next(name for name in drawn if not taken(name))
    )
    store.sites.put(other.uid, [{"domain": "www.calm-otter-1." + DOMAIN}], domain=DOMAIN)
    assert store.tunnels.create("new", domain=DOMAIN)[0].hostname == "calm-otter-2." + DOMAIN
