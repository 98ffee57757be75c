import pytest

from spokes.errors import InactiveError, LimitError, NameRefusedError, NotFoundError, TakenError, ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.model.api_keys import CreateApiKey
from spokes.model.domains import DOMAIN_COUNT_MAX, AllowDomains, RemoveDomains, ResetDomains
from spokes.model.passwords import SetPassword, SetTotp
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import TunnelState
from tests.support.operations import TOTP_SECRET, do, password_hash

DOMAIN = "tun.example.net"
HOSTILE = ["'; DROP TABLE \"user\"; --", "<script>alert(1)</script>", "%s {} ?", "\U0001f680 ß", "a\\b%c_d"]


def test_create_user_bare_has_the_defaults(store):
    user = do(store, CreateUser())
    assert (user.active, user.role, user.bandwidth_mb, user.max_tunnels, user.domains) == (True, "basic", 0, 0, ())
    assert store.users.get(user.uid) == user
    assert store.users.select() == [user]


def test_create_user_keeps_all_that_is_given(store):
    given = {
        "email": "Mara@example.org", "fullname": "Mara Lind", "phone": "+46 8 1", "active": False, "role": "admin",
        "bandwidth_mb": 2000, "check_domains": True, "max_ports": 3, "check_ports": True, "max_tunnels": 4,
    }
    user = do(store, CreateUser(uid="ab" * 16, **given))
    assert {name: getattr(store.users.get("ab" * 16), name) for name in given} == given
    assert user.uid == "ab" * 16


@pytest.mark.parametrize("text", HOSTILE)
def test_create_user_hostile_text_comes_back_unchanged(store, text):
    user = do(store, CreateUser(fullname=text, phone=text))
    assert (store.users.get(user.uid).fullname, store.users.select()[0].phone) == (text, text)


@pytest.mark.parametrize("properties", [
    {"fullname": "a\nb"}, {"fullname": "\x00"}, {"phone": "\ud800"}, {"email": "x" * 256}, {"email": "no at"},
    {"email": "a@b c"}, {"email": "@"}, {"role": "root"}, {"bandwidth_mb": -1}, {"bandwidth_mb": 10**13},
    {"max_ports": 2**31}, {"max_tunnels": -1}, {"uid": ZERO_UID}, {"uid": "X"}, {"uid": "\x00"},
])
def test_create_user_unfit_value_refused(store, properties):
    with pytest.raises(ValueRefusedError):
        do(store, CreateUser(**properties))
    assert store.users.select() == []


def test_create_user_taken_id_or_address_refused(store):
    user = do(store, CreateUser(email="Mara@example.org"))
    for properties in ({"uid": user.uid}, {"email": "mara@EXAMPLE.org"}):
        with pytest.raises(TakenError):
            do(store, CreateUser(**properties))
    other = do(store, CreateUser())
    with pytest.raises(TakenError):
        do(store, EditUser(other.uid, email="MARA@example.org"))
    do(store, EditUser(user.uid, email=""))
    assert do(store, EditUser(other.uid, email="MARA@example.org")).email == "MARA@example.org"


def test_edit_user_changes_what_is_named_only(store):
    user = do(store, CreateUser(fullname="Mara", max_ports=3))
    edited = do(store, EditUser(user.uid, max_ports=0, check_ports=True))
    assert (edited.fullname, edited.max_ports, edited.check_ports) == ("Mara", 0, True)
    before = store.changes.position()
    assert do(store, EditUser(user.uid, max_ports=0)) == edited
    assert store.changes.position() == before
    with pytest.raises(TypeError):
        do(store, EditUser(user.uid, password_hash="x"))


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800", "x" * 5000])
def test_user_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.users.get(uid), lambda: do(store, EditUser(uid, active=False)),
        lambda: do(store, DeleteUser(uid)),
        lambda: do(store, SetPassword(uid, password_hash("x"))), lambda: do(store, SetTotp(uid, TOTP_SECRET)),
        lambda: do(store, AllowDomains(uid, ["a.example.org"])), lambda: do(store, ResetDomains(uid)),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert store.users.use_totp_step(uid, 1) is False
    assert store.tunnels.of_user(uid) == []
    assert store.changes.position() == (1, 0)


def test_user_zero_is_refused(store):
    for call in (lambda: do(store, EditUser(ZERO_UID, active=False)), lambda: do(store, DeleteUser(ZERO_UID))):
        with pytest.raises(ValueRefusedError):
            call()


def test_find_user_by_email_any_case(store):
    user = do(store, CreateUser(email="Mara@example.org"))
    assert store.users.find_by_email("mARA@Example.ORG") == user
    for text in ("", "x@example.org", "mara", "%@%", "a\x00@b", "\ud800@b"):
        assert store.users.find_by_email(text) is None


def test_secrets_of_a_user_are_kept_and_not_shown(store):
    user = do(store, CreateUser())
    do(store, SetPassword(user.uid, password_hash("secret")))
    do(store, SetTotp(user.uid, TOTP_SECRET))
    stored = store.users.get(user.uid)
    assert (stored.password_hash, stored.totp_secret) == (password_hash("secret"), TOTP_SECRET)
    assert "secret" not in repr(stored).lower() and TOTP_SECRET not in repr(stored)


def test_use_totp_step_each_only_once_and_never_back(store):
    user = do(store, CreateUser())
    assert [store.users.use_totp_step(user.uid, step) for step in (5, 5, 4, 6, 6)] == [True, False, False, True, False]
    do(store, EditUser(user.uid, fullname="x"))                  # an edit does not forget it
    assert store.users.use_totp_step(user.uid, 6) is False


def test_domains_are_a_canonical_set(store):
    user = do(store, CreateUser())
    do(store, AllowDomains(user.uid, ["Shop.example.org.", "*.Büro.example", "shop.example.org"]))
    assert store.users.get(user.uid).domains == ("*.xn--bro-hoa.example", "shop.example.org")
    before = store.changes.position()
    do(store, AllowDomains(user.uid, ["shop.example.org"]))
    do(store, RemoveDomains(user.uid, ["never.example.org"]))
    assert store.changes.position() == before
    assert do(store, RemoveDomains(user.uid, ["*.büro.example"])).domains == ("shop.example.org",)
    assert do(store, ResetDomains(user.uid)).domains == ()


@pytest.mark.parametrize("domain", ["", "*", "*.", "a.*.org", "**.example.org", "a b", "\x00", "\ud800"])
def test_allow_domains_malformed_refuses_all(store, domain):
    user = do(store, CreateUser())
    with pytest.raises(NameRefusedError):
        do(store, AllowDomains(user.uid, ["good.example.org", domain]))
    assert store.users.get(user.uid).domains == ()


def test_allow_domains_over_the_bound_refused(store):
    user = do(store, CreateUser())
    with pytest.raises(LimitError):
        do(store, AllowDomains(user.uid, [f"d{n}.example.org" for n in range(DOMAIN_COUNT_MAX + 1)]))


def test_deactivated_user_loses_logins_and_their_tunnels_cannot_log_in(store):
    user = do(store, CreateUser())
    tunnel, auth = do(store, CreateTunnel(name="a", domain=DOMAIN, user_uid=user.uid))
    api_key, value = do(store, CreateApiKey("k", user_uid=user.uid))
    cookies = [store.logins.create(user_uid=user.uid)[1], store.logins.create(api_key_uid=api_key.uid)[1]]
    do(store, EditUser(user.uid, active=False))
    with pytest.raises(InactiveError, match="owner"):
        store.tunnels.find_by_key(auth.value)
    with pytest.raises(InactiveError):
        store.api_keys.find(value)
    assert [store.logins.find(cookie) for cookie in cookies] == [None, None]
    do(store, EditUser(user.uid, active=True))
    assert store.tunnels.find_by_key(auth.value) == tunnel
    assert store.logins.find(cookies[0]) is None              # ended, not suspended


def test_delete_user_takes_all_that_is_theirs(store):
    user, other = do(store, CreateUser()), do(store, CreateUser())
    tunnels = [do(store, CreateTunnel(name=f"t{n}", domain=DOMAIN, user_uid=user.uid))[0] for n in range(2)]
    kept, _ = do(store, CreateTunnel(name="kept", domain=DOMAIN, user_uid=other.uid))
    do(store, PutSites(tunnels[0].uid, [{"domain": "shop.example.org"}]))
    do(store, AllocatePort(tunnels[0].uid, 22000, 22000))
    do(store, CreateApiKey("k", user_uid=user.uid))
    do(store, CreateWebhook("https://hooks.example.org", user_uid=user.uid))
    _, cookie = store.logins.create(user_uid=user.uid)
    assert sorted(do(store, DeleteUser(user.uid))) == sorted(tunnel.uid for tunnel in tunnels)
    assert store.tunnels.get(tunnels[0].uid).state == TunnelState.DELETED
    assert (store.sites.select(), store.ports.select()) == ([], [])
    assert (store.api_keys.select(), store.webhooks.select()) == ([], [])
    assert store.logins.find(cookie) is None
    assert store.tunnels.select() == [kept]
    with pytest.raises(NotFoundError):
        store.users.get(user.uid)
