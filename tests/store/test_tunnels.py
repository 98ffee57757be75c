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
from spokes.model import hostnames
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken, DeleteToken
from spokes.model.tunnels import AssignTunnel, CreateTunnel, DeleteTunnel, EditTunnel, RegisterTunnel, SetTunnelState
from spokes.model.users import CreateUser
from spokes.store import PresenceUpdate, TunnelState
from spokes.store.former_hostnames import FORMER_NAMES_MAX, HOSTNAME_HELD_S
from tests.support.operations import do

DOMAIN = "tun.example.net"


def assign(store, uid, user_uid, **wanted):
    return do(store, AssignTunnel(uid=uid, user_uid=user_uid, domain=DOMAIN, **wanted))


@pytest.fixture
def token(store):
    return do(store, CreateToken("t")).value


def test_register_tunnel_gets_a_hostname_and_a_key(store, token):
    tunnel, key = do(store, RegisterTunnel(token=token, name="shop", domain="TUN.example.net."))
    assert is_secret(key)
    assert tunnel.hostname.endswith("." + DOMAIN)
    assert canonical_host(tunnel.hostname) == tunnel.hostname
    assert (tunnel.name, tunnel.state, tunnel.user_uid, tunnel.last_active) == ("shop", TunnelState.INIT, ZERO_UID, 0.0)
    assert store.tunnels.find_by_key(key) == tunnel
    assert store.tunnels.get(tunnel.uid) == tunnel
    assert store.tunnels.auth_token(tunnel.uid).value == key


@pytest.mark.parametrize(("value", "active", "error"), [(None, False, InactiveError), ("0" * 64, True, TokenError)])
def test_register_tunnel_unusable_token_leaves_nothing(store, value, active, error):
    token = do(store, CreateToken("t", active=active))
    before = store.changes.position()
    with pytest.raises(error):
        do(store, RegisterTunnel(token=value or token.value, name="shop", domain=DOMAIN))
    assert store.tunnels.select() == []
    assert store.changes.position() == before


def test_register_tunnel_deleted_token_leaves_its_tunnels_working(store, token):
    tunnel, key = do(store, RegisterTunnel(token=token, name="shop", domain=DOMAIN))
    do(store, DeleteToken(store.tokens.select()[0].uid))
    assert store.tunnels.find_by_key(key).uid == tunnel.uid


def test_register_tunnel_chosen_hostname_any_spelling_is_taken_once(store, token):
    tunnel, _ = do(store, RegisterTunnel(token=token, name="a", hostname="Büro." + DOMAIN, domain=DOMAIN))
    assert tunnel.hostname == "xn--bro-hoa." + DOMAIN
    for spelling in ("büro." + DOMAIN, "XN--BRO-HOA." + DOMAIN + ".", "BÜRO." + DOMAIN.upper()):
        with pytest.raises(TakenError):
            do(store, RegisterTunnel(token=token, name="b", hostname=spelling, domain=DOMAIN))


@pytest.mark.parametrize("hostname", [
    "admin." + DOMAIN, "ADMIN." + DOMAIN, "x.api." + DOMAIN, DOMAIN, "example.net", "shop.example.org",
    "shop.tun.example.net.evil.org", "-." + DOMAIN, "*." + DOMAIN, "a b." + DOMAIN, "\ud800." + DOMAIN,
])
def test_register_tunnel_refused_hostname_leaves_nothing(store, token, hostname):
    with pytest.raises(NameRefusedError):
        do(store, RegisterTunnel(token=token, name="a", hostname=hostname, domain=DOMAIN))
    assert store.tunnels.select() == []


def test_register_tunnel_name_another_serves_is_taken(store, token):
    holder, _ = do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    do(store, PutSites(holder.uid, [{"domain": "shop." + DOMAIN}]))
    with pytest.raises(TakenError):
        do(store, RegisterTunnel(token=token, name="b", hostname="shop." + DOMAIN, domain=DOMAIN))


@pytest.mark.parametrize("name", ["a\nb", "\x00", "\ud800", "x" * 256])
def test_register_tunnel_unfit_name_refused(store, token, name):
    with pytest.raises(ValueRefusedError):
        do(store, RegisterTunnel(token=token, name=name, domain=DOMAIN))


def test_create_tunnel_for_a_user_with_an_id_of_choice(store):
    uid, user_uid = new_uid(), do(store, CreateUser()).uid
    tunnel, auth = do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=user_uid, uid=uid))
    assert (tunnel.uid, tunnel.user_uid, tunnel.token_uid) == (uid, user_uid, ZERO_UID)
    assert store.tunnels.find_by_key(auth.value) == tunnel
    with pytest.raises(TakenError):
        do(store, CreateTunnel(name="desk", domain=DOMAIN, uid=uid))
    with pytest.raises(NotFoundError):
        do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=new_uid()))


def test_assign_tunnel_links_and_enables(store, token):
    tunnel, key = do(store, RegisterTunnel(token=token, name="old", domain=DOMAIN))
    user = do(store, CreateUser())
    do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    assigned, auth = assign(store, tunnel.uid, user.uid, name="new")
    assert (assigned.user_uid, assigned.name, assigned.hostname) == (user.uid, "new", tunnel.hostname)
    assert auth.value == key
    assert store.tunnels.find_by_key(key) == assigned
    before = store.changes.position()
    assert assign(store, tunnel.uid, user.uid, name="new", hostname=tunnel.hostname) == (
        assigned, auth
    )
    assert store.changes.position() == before
    assert assign(store, tunnel.uid, ZERO_UID, name="")[0].user_uid == ZERO_UID


def test_assign_tunnel_hostname_moves_if_it_is_free(store, token):
    tunnel, _ = do(store, RegisterTunnel(token=token, name="a", hostname="a." + DOMAIN, domain=DOMAIN))
    do(store, RegisterTunnel(token=token, name="b", hostname="b." + DOMAIN, domain=DOMAIN))
    with pytest.raises(TakenError):
        assign(store, tunnel.uid, ZERO_UID, name="a", hostname="B." + DOMAIN)
    with pytest.raises(NameRefusedError):
        assign(store, tunnel.uid, ZERO_UID, name="a", hostname="admin." + DOMAIN)
    moved, _ = assign(store, tunnel.uid, ZERO_UID, name="a", hostname="C." + DOMAIN)
    assert moved.hostname == "c." + DOMAIN
    with pytest.raises(HeldNameError):
        do(store, RegisterTunnel(token=token, name="d", hostname="a." + DOMAIN, domain=DOMAIN))
    back, _ = assign(store, tunnel.uid, ZERO_UID, name="a", hostname="a." + DOMAIN)
    assert back.hostname == "a." + DOMAIN


def test_assign_tunnel_deleted_or_unknown_not_found(store, token):
    tunnel, _ = do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    do(store, DeleteTunnel(tunnel.uid))
    for uid in (tunnel.uid, new_uid(), "\x00"):
        with pytest.raises(NotFoundError):
            assign(store, uid, ZERO_UID, name="a")


@pytest.mark.parametrize("uid", ["", "0" * 32, "X" * 32, "\x00"])
def test_create_tunnel_malformed_id_refused(store, uid):
    with pytest.raises(ValueRefusedError):
        do(store, CreateTunnel(name="desk", domain=DOMAIN, uid=uid))


@pytest.mark.parametrize("key", ["", "0" * 64, "\ud800", "' OR 1=1 --"])
def test_find_tunnel_by_key_unknown_key_refused(store, token, key):
    do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    with pytest.raises(TokenError):
        store.tunnels.find_by_key(key)


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800", "x" * 5000])
def test_tunnel_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.tunnels.get(uid), lambda: store.tunnels.auth_token(uid),
        lambda: do(store, EditTunnel(uid, name="x")),
        lambda: do(store, SetTunnelState(uid, TunnelState.SHUTDOWN)), lambda: do(store, DeleteTunnel(uid)),
        lambda: do(store, PutSites(uid, [{"domain": "a.example.org"}])), lambda: do(store, ReplaceRules(uid, [], {})),
        lambda: do(store, AllocatePort(uid, 22000, 22999)), lambda: do(store, ReleasePort(uid, 22000)),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert (store.sites.select(uid), store.ports.select(uid)) == ([], [])
    assert store.changes.position() == (1, 0)


def test_edit_tunnel_changes_the_name_only(store, token):
    tunnel, _ = do(store, RegisterTunnel(token=token, name="old", domain=DOMAIN))
    edited = do(store, EditTunnel(tunnel.uid, name="Ladenkasse №4"))
    assert (edited.name, edited.hostname) == ("Ladenkasse №4", tunnel.hostname)
    assert store.tunnels.get(tunnel.uid) == edited


def test_list_tunnels_newest_first_without_deleted_ones(store, token):
    with clock.replaced(clock.ManualClock()) as _:
        tunnels = []
        for n in range(4):
            with clock.replaced(clock.ManualClock(wall_s=1_800_000_000.0 + n)):
                tunnels.append(do(store, RegisterTunnel(token=token, name=f"t{n}", domain=DOMAIN))[0])
    do(store, DeleteTunnel(tunnels[1].uid))
    assert store.tunnels.select() == [tunnels[3], tunnels[2], tunnels[0]]


def test_set_tunnel_state_shutdown_refuses_logins_until_admitted_again(store, token):
    tunnel, key = do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    store.presence.write([PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=9.0)])
    assert do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN)).state == TunnelState.SHUTDOWN
    assert store.tunnels.get(tunnel.uid).state == TunnelState.SHUTDOWN       # also while the session still ends
    with pytest.raises(InactiveError):
        store.tunnels.find_by_key(key)
    before = store.changes.position()
    do(store, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    assert store.changes.position() == before                                       # a second call changes nothing
    do(store, SetTunnelState(tunnel.uid, TunnelState.INIT))
    assert store.tunnels.find_by_key(key).uid == tunnel.uid


@pytest.mark.parametrize("state", [TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.DELETED])
def test_set_tunnel_state_not_the_operator_s_is_refused(store, token, state):
    tunnel, _ = do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    with pytest.raises(ValueRefusedError, match="operator"):
        do(store, SetTunnelState(tunnel.uid, state))


def test_delete_tunnel_frees_sites_and_ports_and_ends_the_key(store, token):
    tunnel, key = do(store, RegisterTunnel(token=token, name="a", domain=DOMAIN))
    other, _ = do(store, RegisterTunnel(token=token, name="b", domain=DOMAIN))
    do(store, PutSites(tunnel.uid, [{"domain": "shop.example.org"}]))
    port = do(store, AllocatePort(tunnel.uid, 22000, 22000))
    do(store, DeleteTunnel(tunnel.uid))
    assert store.tunnels.get(tunnel.uid).state == TunnelState.DELETED
    with pytest.raises(TokenError):
        store.tunnels.find_by_key(key)
    with pytest.raises(NotFoundError):
        do(store, DeleteTunnel(tunnel.uid))
    assert do(store, PutSites(other.uid, [{"domain": "shop.example.org"}]))[0].tunnel_uid == other.uid
    assert do(store, AllocatePort(other.uid, 22000, 22000)) == port


def test_delete_tunnel_hostname_stays_reserved_for_30_days(store, token):
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = do(store, RegisterTunnel(token=token, name="a", hostname="shop." + DOMAIN, domain=DOMAIN))
        other, _ = do(store, RegisterTunnel(token=token, name="b", domain=DOMAIN))
        do(store, DeleteTunnel(tunnel.uid))
        now.advance(HOSTNAME_HELD_S - 1)
        for spelling in ("shop." + DOMAIN, "SHOP." + DOMAIN + "."):
            with pytest.raises(TakenError):
                do(store, RegisterTunnel(token=token, name="c", hostname=spelling, domain=DOMAIN))
            with pytest.raises(TakenError):
                do(store, PutSites(other.uid, [{"domain": spelling}]))
        now.advance(2)
        heir, _ = do(store, RegisterTunnel(token=token, name="c", hostname="shop." + DOMAIN, domain=DOMAIN))
    assert heir.hostname == tunnel.hostname
    assert store.tunnels.get(tunnel.uid).state == TunnelState.DELETED


def test_hostname_renamed_away_from_is_held_for_its_owner_for_30_days(store):
    """Visitors know it: nobody else may answer them there."""
    owner, other = do(store, CreateUser()), do(store, CreateUser())
    now = clock.ManualClock()
    with clock.replaced(now):
        tunnel, _ = do(store, CreateTunnel(name="shop", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid))
        do(store, PutSites(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 80}], domain=DOMAIN))
        assign(store, tunnel.uid, owner.uid, name="", hostname="till." + DOMAIN)
        do(store, PutSites(tunnel.uid, [{"domain": "shop." + DOMAIN, "port": 81}], domain=DOMAIN))  # its rule goes on
        do(store, RemoveSites(tunnel.uid, ["shop." + DOMAIN]))
        stranger, _ = do(store, CreateTunnel(name="x", domain=DOMAIN, user_uid=other.uid))
        with pytest.raises(HeldNameError, match="a tunnel that has another name now, and is held for 30 days"):
            do(store, CreateTunnel(name="y", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid))
        with pytest.raises(HeldNameError):
            do(store, PutSites(stranger.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN))
        with pytest.raises(TakenError, match="lies under"):
            do(store, PutSites(stranger.uid, [{"domain": "www.shop." + DOMAIN}], domain=DOMAIN))
        again, _ = do(store, CreateTunnel(name="z", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid))
        with pytest.raises(TakenError, match="belongs to another tunnel"):   # in use again: that comes first
            do(store, CreateTunnel(name="y", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid))
        assign(store, again.uid, owner.uid, name="", hostname="post." + DOMAIN)
        now.advance(HOSTNAME_HELD_S + 1)
        assert do(store, CreateTunnel(name="y", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=other.uid))


def test_hostname_renamed_away_from_and_handed_over_stays_the_former_owners(store):
    owner, heir = do(store, CreateUser()), do(store, CreateUser())
    tunnel, _ = do(store, CreateTunnel(name="shop", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid))
    assign(store, tunnel.uid, heir.uid, name="", hostname="till." + DOMAIN)
    with pytest.raises(HeldNameError):
        do(store, PutSites(tunnel.uid, [{"domain": "shop." + DOMAIN}], domain=DOMAIN))
    assert do(store, CreateTunnel(name="shop", hostname="shop." + DOMAIN, domain=DOMAIN, user_uid=owner.uid))


def test_hostname_of_a_tunnel_renamed_again_and_again_only_the_latest_are_held(store):
    owner, other = do(store, CreateUser()), do(store, CreateUser())
    tunnel, _ = do(store, CreateTunnel(name="t", hostname="n0." + DOMAIN, domain=DOMAIN, user_uid=owner.uid))
    for number in range(1, FORMER_NAMES_MAX + 2):
        assign(store, tunnel.uid, owner.uid, name="", hostname=f"n{number}.{DOMAIN}")
    assert do(store, CreateTunnel(name="y", hostname="n0." + DOMAIN, domain=DOMAIN, user_uid=other.uid))
    with pytest.raises(HeldNameError):
        do(store, CreateTunnel(name="y", hostname="n1." + DOMAIN, domain=DOMAIN, user_uid=other.uid))


@pytest.mark.parametrize("registers", [False, True])
def test_hostname_of_a_deleted_tunnel_its_owner_takes_back_at_once(store, token, registers):
    """Whoever registered with the same token may be anybody."""
    owner, other = do(store, CreateUser()), do(store, CreateUser())
    if registers:
        tunnel, _ = do(store, RegisterTunnel(token=token, name="a", hostname="shop." + DOMAIN, domain=DOMAIN))
        with pytest.raises(TakenError):
            do(store, CreateTunnel(name="b", hostname="shop." + DOMAIN, domain=DOMAIN))
        do(store, DeleteTunnel(tunnel.uid))
        wanted = {"name": "b", "hostname": "shop." + DOMAIN, "domain": DOMAIN}
        for operation in (RegisterTunnel(token=token, **wanted), CreateTunnel(**wanted)):
            with pytest.raises(HeldNameError, match="that was deleted"):
                do(store, operation)
        return
    for user_uid in (owner.uid, ZERO_UID):
        name = f"shop-{user_uid[:3]}.{DOMAIN}"
        for _ in range(3):
            tunnel, _ = do(store, CreateTunnel(name="a", hostname=name, domain=DOMAIN, user_uid=user_uid))
            assert assign(store, tunnel.uid, user_uid, name="", hostname=name)[0] == tunnel
            do(store, DeleteTunnel(tunnel.uid))
        with pytest.raises(HeldNameError):
            do(store, CreateTunnel(name="b", hostname=name, domain=DOMAIN, user_uid=other.uid))
        second, _ = do(store, CreateTunnel(name="b", domain=DOMAIN, user_uid=user_uid))
        assert do(store, PutSites(second.uid, [{"domain": name}, {"domain": "www." + name}], domain=DOMAIN))
        with pytest.raises(TakenError):
            do(store, CreateTunnel(name="c", hostname=name, domain=DOMAIN, user_uid=other.uid))


def _others(store):
    """Ways for somebody to choose a hostname: a new tunnel, one that registers, one that moves."""
    stranger, _ = do(store, CreateTunnel(name="other", hostname="other." + DOMAIN, domain=DOMAIN))
    token = do(store, CreateToken("t")).value
    return (
        lambda host: do(store, CreateTunnel(name="x", hostname=host, domain=DOMAIN)),
        lambda host: do(store, RegisterTunnel(token=token, name="x", hostname=host, domain=DOMAIN)),
        lambda host: assign(store, stranger.uid, ZERO_UID, name="", hostname=host),
    )


@pytest.mark.parametrize("under", ["www.", "a.b.", "a.b.c."])
def test_hostname_under_another_tunnels_is_refused(store, under):
    owner, _ = do(store, CreateTunnel(name="shop", hostname="shop." + DOMAIN, domain=DOMAIN))
    for choose in _others(store):
        with pytest.raises(TakenError, match="lies under"):
            choose(under + owner.hostname)
    moved, _ = assign(store, owner.uid, ZERO_UID, name="", hostname=under + owner.hostname)
    assert moved.hostname == under + owner.hostname


def test_hostname_above_what_is_another_tunnels_is_refused(store):
    below, _ = do(store, CreateTunnel(name="shop", hostname="www.shop." + DOMAIN, domain=DOMAIN))
    server, _ = do(store, CreateTunnel(name="post", hostname="post." + DOMAIN, domain=DOMAIN))
    do(store, PutSites(server.uid, [{"domain": "a.b_c." + DOMAIN}], domain=DOMAIN))
    for choose in _others(store):
        for host in ("shop.", "b_c."):
            with pytest.raises(TakenError, match="names under"):
                choose(host + DOMAIN)
    # What only looks like it to LIKE is free, and so is what is above one's own.
    do(store, CreateTunnel(name="near", hostname="bxc." + DOMAIN, domain=DOMAIN))
    assign(store, below.uid, ZERO_UID, name="", hostname="shop." + DOMAIN)


def test_hostname_with_more_labels_than_are_looked_at_is_refused(store):
    do(store, CreateTunnel(name="deep", hostname="a.b.c.d." + DOMAIN, domain=DOMAIN))
    with pytest.raises(NameRefusedError, match="4 labels"):
        do(store, CreateTunnel(name="deeper", hostname="e.f.g.h.i." + DOMAIN, domain=DOMAIN))


def test_automatic_hostname_is_never_above_what_is_anothers(store, monkeypatch):
    other, _ = do(store, CreateTunnel(name="other", hostname="other." + DOMAIN, domain=DOMAIN))
    drawn = iter(["calm-otter-1." + DOMAIN, "calm-otter-2." + DOMAIN])
    monkeypatch.setattr(
        hostnames, "automatic_hostname", lambda domain, taken: next(name for name in drawn if not taken(name))
    )
    do(store, PutSites(other.uid, [{"domain": "www.calm-otter-1." + DOMAIN}], domain=DOMAIN))
    assert do(store, CreateTunnel(name="new", domain=DOMAIN))[0].hostname == "calm-otter-2." + DOMAIN
