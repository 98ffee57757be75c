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
    return store.create_token("t").value


def test_register_tunnel_gets_a_hostname_and_a_key(store, token):
    tunnel, key = store.register_tunnel(token, "shop", domain="TUN.example.net.")
    assert is_secret(key)
    assert tunnel.hostname.endswith("." + DOMAIN)
    assert canonical_host(tunnel.hostname) == tunnel.hostname
    assert (tunnel.name, tunnel.state, tunnel.user_uid, tunnel.last_active) == ("shop", TunnelState.INIT, ZERO_UID, 0.0)
    assert store.find_tunnel_by_key(key) == tunnel
    assert store.get_tunnel(tunnel.uid) == tunnel
    assert store.get_auth_token(tunnel.uid).value == key


@pytest.mark.parametrize(("value", "active", "error"), [(None, False, InactiveError), ("0" * 64, True, TokenError)])
def test_register_tunnel_unusable_token_leaves_nothing(store, value, active, error):
    token = store.create_token("t", active=active)
    before = store.position()
    with pytest.raises(error):
        store.register_tunnel(value or token.value, "shop", domain=DOMAIN)
    assert store.list_tunnels() == []
    assert store.position() == before


def test_register_tunnel_deleted_token_leaves_its_tunnels_working(store, token):
    tunnel, key = store.register_tunnel(token, "shop", domain=DOMAIN)
    store.delete_token(store.list_tokens()[0].uid)
    assert store.find_tunnel_by_key(key).uid == tunnel.uid


def test_register_tunnel_chosen_hostname_any_spelling_is_taken_once(store, token):
    tunnel, _ = store.register_tunnel(token, "a", "Büro." + DOMAIN, domain=DOMAIN)
    assert tunnel.hostname == "xn--bro-hoa." + DOMAIN
    for spelling in ("büro." + DOMAIN, "XN--BRO-HOA." + DOMAIN + ".", "BÜRO." + DOMAIN.upper()):
        with pytest.raises(TakenError):
            store.register_tunnel(token, "b", spelling, domain=DOMAIN)


@pytest.mark.parametrize("hostname", [
    "admin." + DOMAIN, "ADMIN." + DOMAIN, "x.api." + DOMAIN, DOMAIN, "example.net", "shop.example.org",
    "shop.tun.example.net.evil.org", "-." + DOMAIN, "*." + DOMAIN, "a b." + DOMAIN, "\ud800." + DOMAIN,
])
def test_register_tunnel_refused_hostname_leaves_nothing(store, token, hostname):
    with pytest.raises(NameRefusedError):
        store.register_tunnel(token, "a", hostname, domain=DOMAIN)
    assert store.list_tunnels() == []


def test_register_tunnel_name_another_serves_is_taken(store, token):
    holder, _ = store.register_tunnel(token, "a", domain=DOMAIN)
    store.put_sites(holder.uid, [{"domain": "shop." + DOMAIN}])
    with pytest.raises(TakenError):
        store.register_tunnel(token, "b", "shop." + DOMAIN, domain=DOMAIN)


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\ud800", "x" * 256])
def test_register_tunnel_unfit_name_refused(store, token, name):
    with pytest.raises(ValueRefusedError):
        store.register_tunnel(token, name, domain=DOMAIN)


def test_create_tunnel_for_a_user_with_an_id_of_choice(store):
    uid, user_uid = new_uid(), store.create_user().uid
    tunnel, auth = store.create_tunnel("desk", domain=DOMAIN, user_uid=user_uid, uid=uid)
    assert (tunnel.uid, tunnel.user_uid, tunnel.token_uid) == (uid, user_uid, ZERO_UID)
    assert store.find_tunnel_by_key(auth.value) == tunnel
    with pytest.raises(TakenError):
        store.create_tunnel("desk", domain=DOMAIN, uid=uid)
    with pytest.raises(NotFoundError):
        store.create_tunnel("desk", domain=DOMAIN, user_uid=new_uid())


def test_assign_tunnel_links_and_enables(store, token):
    tunnel, key = store.register_tunnel(token, "old", domain=DOMAIN)
    user = store.create_user()
    store.set_tunnel_state(tunnel.uid, TunnelState.SHUTDOWN)
    assigned, auth = store.assign_tunnel(tunnel.uid, user.uid, name="new", domain=DOMAIN)
    assert (assigned.user_uid, assigned.name, assigned.hostname) == (user.uid, "new", tunnel.hostname)
    assert auth.value == key
    assert store.find_tunnel_by_key(key) == assigned
    before = store.position()
    assert store.assign_tunnel(tunnel.uid, user.uid, name="new", hostname=tunnel.hostname, domain=DOMAIN) == (
        assigned, auth
    )
    assert store.position() == before
    assert store.assign_tunnel(tunnel.uid, ZERO_UID, name="", domain=DOMAIN)[0].user_uid == ZERO_UID


def test_assign_tunnel_hostname_moves_if_it_is_free(store, token):
    tunnel, _ = store.register_tunnel(token, "a", "a." + DOMAIN, domain=DOMAIN)
    store.register_tunnel(token, "b", "b." + DOMAIN, domain=DOMAIN)
    with pytest.raises(TakenError):
        store.assign_tunnel(tunnel.uid, ZERO_UID, name="a", hostname="B." + DOMAIN, domain=DOMAIN)
    with pytest.raises(NameRefusedError):
        store.assign_tunnel(tunnel.uid, ZERO_UID, name="a", hostname="admin." + DOMAIN, domain=DOMAIN)
    moved, _ = store.assign_tunnel(tunnel.uid, ZERO_UID, name="a", hostname="C." + DOMAIN, domain=DOMAIN)
    assert moved.hostname == "c." + DOMAIN
    with pytest.raises(HeldNameError):
        store.register_tunnel(token, "d", "a." + DOMAIN, domain=DOMAIN)
    back, _ = store.assign_tunnel(tunnel.uid, ZERO_UID, name="a", hostname="a." + DOMAIN, domain=DOMAIN)
    assert back.hostname == "a." + DOMAIN


def test_assign_tunnel_deleted_or_unknown_not_found(store, token):
    tunnel, _ = store.register_tunnel(token, "a", domain=DOMAIN)
    store.delete_tunnel(tunnel.uid)
    for uid in (tunnel.uid, new_uid(), "\x00"):
        with pytest.raises(NotFoundError):
            store.assign_tunnel(uid, ZERO_UID, name="a", domain=DOMAIN)


@pytest.mark.parametrize("uid", ["", "0" * 32, "X" * 32, "\x00"])
def test_create_tunnel_malformed_id_refused(store, uid):
    with pytest.raises(ValueRefusedError):
        store.create_tunnel("desk", domain=DOMAIN, uid=uid)


@pytest.mark.parametrize("key", ["", "0" * 64, "\ud800", "' OR 1=1 --"])
def test_find_tunnel_by_key_unknown_key_refused(store, token, key):
    store.register_tunnel(token, "a", domain=DOMAIN)
    with pytest.raises(TokenError):
        store.find_tunnel_by_key(key)


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800", "x" * 5000])
def test_tunnel_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.get_tunnel(uid), lambda: store.get_auth_token(uid), lambda: store.edit_tunnel(uid, name="x"),
        lambda: store.set_tunnel_state(uid, TunnelState.SHUTDOWN), lambda: store.delete_tunnel(uid),
        lambda: store.put_sites(uid, [{"domain": "a.example.org"}]), lambda: store.replace_rules(uid, [], {}),
        lambda: store.allocate_port(uid, 22000, 22999), lambda: store.release_port(uid, 22000),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert (store.list_sites(uid), store.list_ports(uid)) == ([], [])
    assert store.position() == (1, 0)


def test_edit_tunnel_changes_the_name_only(store, token):
    tunnel, _ = store.register_tunnel(token, "old", domain=DOMAIN)
    edited = store.edit_tunnel(tunnel.uid, name="Ladenkasse №4")
    assert (edited.name, edited.hostname) == ("Ladenkasse №4", tunnel.hostname)
    assert store.get_tunnel(tunnel.uid) == edited


def test_list_tunnels_newest_first_without_deleted_ones(store, token):
    with clock.replaced(clock.ManualClock()) as _:
        tunnels = []
        for n in range(4):
            with clock.replaced(clock.ManualClock(wall_s=1_800_000_000.0 + n)):
                tunnels.append(store.register_tunnel(token, f"t{n}", domain=DOMAIN)[0])
    store.delete_tunnel(tunnels[1].uid)
    assert store.list_tunnels() == [tunnels[3], tunnels[2], tunnels[0]]


def test_set_tunnel_state_shutdown_refuses_logins_until_admitted_again(store, token):
    tunnel, key = store.register_tunnel(token, "a", domain=DOMAIN)
    store.write_presence([PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=9.0)])
    assert store.set_tunnel_state(tunnel.uid, TunnelState.SHUTDOWN).state == TunnelState.SHUTDOWN
    assert store.get_tunnel(tunnel.uid).state == TunnelState.SHUTDOWN       # also while the session still ends
    with pytest.raises(InactiveError):
        store.find_tunnel_by_key(key)
    before = store.position()
    store.set_tunnel_state(tunnel.uid, TunnelState.SHUTDOWN)
    assert store.position() == before                                       # a second call changes nothing
    store.set_tunnel_state(tunnel.uid, TunnelState.INIT)
    assert store.find_tunnel_by_key(key).uid == tunnel.uid


@pytest.mark.parametrize("state", [TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.DELETED])
def test_set_tunnel_state_not_the_operator_s_is_a_mistake_of_the_program(store, token, state):
    tunnel, _ = store.register_tunnel(token, "a", domain=DOMAIN)
    with pytest.raises(ValueError, match="operator"):
        store.set_tunnel_state(tunnel.uid, state)


def test_delete_tunnel_frees_sites_and_ports_and_ends_the_key(store, token):
    tunnel, key = store.register_tunnel(token, "a", domain=DOMAIN)
    other, _ = store.register_tunnel(token, "b", domain=DOMAIN)
    store.put_sites(tunnel.uid, [{"domain": "shop.example.org"}])
    port = store.allocate_port(tunnel.uid, 22000, 22000)
    store.delete_tunnel(tunnel.uid)
    assert store.get_tunnel(tunnel.uid).state == TunnelState.DELETED
    with pytest.raises(TokenError):
        store.find_tunnel_by_key(key)
    with pytest.raises(NotFoundError):
        store.delete_tunnel(tunnel.uid)
    assert store.put_sites(other.uid, [{"domain": "shop.example.org"}])[0].tunnel_uid == other.uid
    assert store.allocate_port(other.uid, 22000, 22000) == port


def test_delete_tunnel_hostname_stays_reserved_for_30_days(store, token):
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = store.register_tunnel(token, "a", "shop." + DOMAIN, domain=DOMAIN)
        other, _ = store.register_tunnel(token, "b", domain=DOMAIN)
        store.delete_tunnel(tunnel.uid)
        now.advance(HOSTNAME_HELD_S - 1)
        for spelling in ("shop." + DOMAIN, "SHOP." + DOMAIN + "."):
            with pytest.raises(TakenError):
                store.register_tunnel(token, "c", spelling, domain=DOMAIN)
            with pytest.raises(TakenError):
                store.put_sites(other.uid, [{"domain": spelling}])
        now.advance(2)
        heir, _ = store.register_tunnel(token, "c", "shop." + DOMAIN, domain=DOMAIN)
    assert heir.hostname == tunnel.hostname
    assert store.get_tunnel(tunnel.uid).state == TunnelState.DELETED


def test_hostname_renamed_away_from_is_held_for_its_owner_for_30_days(store):
    """Visitors know it: nobody else may answer them there."""
    owner, other = store.create_user(), store.create_user()
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = store.create_tunnel("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
        store.put_sites(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 80}], domain=DOMAIN)
        store.assign_tunnel(tunnel.uid, owner.uid, name="", hostname="till." + DOMAIN, domain=DOMAIN)
        store.put_sites(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 81}], domain=DOMAIN)  # its rule goes on
        store.remove_sites(tunnel.uid, ["shop." + DOMAIN])
        stranger, _ = store.create_tunnel("x", domain=DOMAIN, user_uid=other.uid)
        with pytest.raises(HeldNameError, match="a tunnel that has another name now, and is held for 30 days"):
            store.create_tunnel("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
        with pytest.raises(HeldNameError):
            store.put_sites(stranger.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN)
        with pytest.raises(TakenError, match="lies under"):
            store.put_sites(stranger.uid, [{"domain": "www.shop." + DOMAIN}], domain=DOMAIN)
        again, _ = store.create_tunnel("z", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
        with pytest.raises(TakenError, match="belongs to another tunnel"):   # in use again: that comes first
            store.create_tunnel("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
        store.assign_tunnel(again.uid, owner.uid, name="", hostname="post." + DOMAIN, domain=DOMAIN)
        now.advance(HOSTNAME_HELD_S + 1)
        assert store.create_tunnel("y", "shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid)


def test_hostname_renamed_away_from_and_handed_over_stays_the_former_owners(store):
    owner, heir = store.create_user(), store.create_user()
    tunnel, _ = store.create_tunnel("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
    store.assign_tunnel(tunnel.uid, heir.uid, name="", hostname="till." + DOMAIN, domain=DOMAIN)
    with pytest.raises(HeldNameError):
        store.put_sites(tunnel.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN)
    assert store.create_tunnel("shop", "shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)


def test_hostname_of_a_tunnel_renamed_again_and_again_only_the_latest_are_held(store):
    owner, other = store.create_user(), store.create_user()
    tunnel, _ = store.create_tunnel("t", "n0." + DOMAIN, domain=DOMAIN, user_uid=owner.uid)
    for number in range(1, FORMER_NAMES_MAX + 2):
        store.assign_tunnel(tunnel.uid, owner.uid, name="", hostname=f"n{number}.{DOMAIN}", domain=DOMAIN)
    assert store.create_tunnel("y", "n0." + DOMAIN, domain=DOMAIN, user_uid=other.uid)
    with pytest.raises(HeldNameError):
        store.create_tunnel("y", "n1." + DOMAIN, domain=DOMAIN, user_uid=other.uid)


@pytest.mark.parametrize("registers", [False, True])
def test_hostname_of_a_deleted_tunnel_its_owner_takes_back_at_once(store, token, registers):
    """Whoever registered with the same token may be anybody."""
    owner, other = store.create_user(), store.create_user()
    if registers:
        tunnel, _ = store.register_tunnel(token, "a", "shop." + DOMAIN, domain=DOMAIN)
        with pytest.raises(TakenError):
            store.create_tunnel("b", "shop." + DOMAIN, domain=DOMAIN)
        store.delete_tunnel(tunnel.uid)
        for choose in (store.register_tunnel, lambda _, *args, **kwargs: store.create_tunnel(*args, **kwargs)):
            with pytest.raises(HeldNameError, match="that was deleted"):
                choose(token, "b", "shop." + DOMAIN, domain=DOMAIN)
        return
    for user_uid in (owner.uid, ZERO_UID):
        name = f"shop-{user_uid[:3]}.{DOMAIN}"
        for _ in range(3):
            tunnel, _ = store.create_tunnel("a", name, domain=DOMAIN, user_uid=user_uid)
            assert store.assign_tunnel(tunnel.uid, user_uid, name="", hostname=name, domain=DOMAIN)[0] == tunnel
            store.delete_tunnel(tunnel.uid)
        with pytest.raises(HeldNameError):
            store.create_tunnel("b", name, domain=DOMAIN, user_uid=other.uid)
        second, _ = store.create_tunnel("b", domain=DOMAIN, user_uid=user_uid)
        assert store.put_sites(second.uid, [{"domain": name}, {"domain": "www." + name}], domain=DOMAIN)
        with pytest.raises(TakenError):
            store.create_tunnel("c", name, domain=DOMAIN, user_uid=other.uid)


def _others(store):
    """Ways for somebody to choose a hostname: a new tunnel, one that registers, one that moves."""
    stranger, _ = store.create_tunnel("other", "other." + DOMAIN, domain=DOMAIN)
    token = store.create_token("t").value
    return (
        lambda host: store.create_tunnel("x", host, domain=DOMAIN),
        lambda host: store.register_tunnel(token, "x", host, domain=DOMAIN),
        lambda host: store.assign_tunnel(stranger.uid, ZERO_UID, name="", hostname=host, domain=DOMAIN),
    )


@pytest.mark.parametrize("under", ["www.", "a.b.", "a.b.c."])
def test_hostname_under_another_tunnels_is_refused(store, under):
    owner, _ = store.create_tunnel("shop", "shop." + DOMAIN, domain=DOMAIN)
    for choose in _others(store):
        with pytest.raises(TakenError, match="lies under"):
            choose(under + owner.hostname)
    moved, _ = store.assign_tunnel(owner.uid, ZERO_UID, name="", hostname=under + owner.hostname, domain=DOMAIN)
    assert moved.hostname == under + owner.hostname


def test_hostname_above_what_is_another_tunnels_is_refused(store):
    below, _ = store.create_tunnel("shop", "www.shop." + DOMAIN, domain=DOMAIN)
    server, _ = store.create_tunnel("post", "post." + DOMAIN, domain=DOMAIN)
    store.put_sites(server.uid, [{"domain": "a.b_c." + DOMAIN}], domain=DOMAIN)
    for choose in _others(store):
        for host in ("shop.", "b_c."):
            with pytest.raises(TakenError, match="names under"):
                choose(host + DOMAIN)
    # What only looks like it to LIKE is free, and so is what is above one's own.
    store.create_tunnel("near", "bxc." + DOMAIN, domain=DOMAIN)
    store.assign_tunnel(below.uid, ZERO_UID, name="", hostname="shop." + DOMAIN, domain=DOMAIN)


def test_hostname_with_more_labels_than_are_looked_at_is_refused(store):
    store.create_tunnel("deep", "a.b.c.d." + DOMAIN, domain=DOMAIN)
    with pytest.raises(NameRefusedError, match="4 labels"):
        store.create_tunnel("deeper", "e.f.g.h.i." + DOMAIN, domain=DOMAIN)


def test_automatic_hostname_is_never_above_what_is_anothers(store, monkeypatch):
    other, _ = store.create_tunnel("other", "other." + DOMAIN, domain=DOMAIN)
    drawn = iter(["calm-otter-1." + DOMAIN, "calm-otter-2." + DOMAIN])
    monkeypatch.setattr(
        tunnels, "automatic_hostname", lambda domain, taken: next(name for name in drawn if not taken(name))
    )
    store.put_sites(other.uid, [{"domain": "www.calm-otter-1." + DOMAIN}], domain=DOMAIN)
    assert store.create_tunnel("new", domain=DOMAIN)[0].hostname == "calm-otter-2." + DOMAIN
