import pytest

from spokes.errors import InactiveError, LimitError, NameRefusedError, NotFoundError, TakenError, ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.store import TunnelState
from spokes.store.users import DOMAIN_COUNT_MAX

DOMAIN = "tun.example.net"
HOSTILE = ["'; DROP TABLE \"user\"; --", "<script>alert(1)</script>", "%s {} ?", "\U0001f680 ß", "a\\b%c_d"]


def test_create_user_bare_has_the_defaults(store):
    user = store.create_user()
    assert (user.active, user.role, user.bandwidth_mb, user.max_tunnels, user.domains) == (True, "basic", 0, 0, ())
    assert store.get_user(user.uid) == user
    assert store.list_users() == [user]


def test_create_user_keeps_all_that_is_given(store):
    given = {
        "email": "Mara@example.org", "fullname": "Mara Lind", "phone": "+46 8 1", "active": False, "role": "admin",
        "bandwidth_mb": 2000, "check_domains": True, "max_ports": 3, "check_ports": True, "max_tunnels": 4,
    }
    user = store.create_user(uid="ab" * 16, **given)
    assert {name: getattr(store.get_user("ab" * 16), name) for name in given} == given
    assert user.uid == "ab" * 16


@pytest.mark.parametrize("text", HOSTILE)
def test_create_user_hostile_text_comes_back_unchanged(store, text):
    user = store.create_user(fullname=text, phone=text)
    assert (store.get_user(user.uid).fullname, store.list_users()[0].phone) == (text, text)


@pytest.mark.parametrize("properties", [
    {"fullname": "a\nb"}, {"fullname": "\x00"}, {"phone": "\ud800"}, {"email": "x" * 256}, {"email": "no at"},
    {"email": "a@b c"}, {"email": "@"}, {"role": "root"}, {"bandwidth_mb": -1}, {"bandwidth_mb": 10**13},
    {"max_ports": 2**31}, {"max_tunnels": -1}, {"uid": ZERO_UID}, {"uid": "X"}, {"uid": "\x00"},
])
def test_create_user_unfit_value_refused(store, properties):
    with pytest.raises(ValueRefusedError):
        store.create_user(**properties)
    assert store.list_users() == []


def test_create_user_taken_id_or_address_refused(store):
    user = store.create_user(email="Mara@example.org")
    for properties in ({"uid": user.uid}, {"email": "mara@EXAMPLE.org"}):
        with pytest.raises(TakenError):
            store.create_user(**properties)
    other = store.create_user()
    with pytest.raises(TakenError):
        store.edit_user(other.uid, email="MARA@example.org")
    store.edit_user(user.uid, email="")
    assert store.edit_user(other.uid, email="MARA@example.org").email == "MARA@example.org"


def test_edit_user_changes_what_is_named_only(store):
    user = store.create_user(fullname="Mara", max_ports=3)
    edited = store.edit_user(user.uid, max_ports=0, check_ports=True)
    assert (edited.fullname, edited.max_ports, edited.check_ports) == ("Mara", 0, True)
    before = store.position()
    assert store.edit_user(user.uid, max_ports=0) == edited
    assert store.position() == before
    with pytest.raises(TypeError):
        store.edit_user(user.uid, password_hash="x")


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800", "x" * 5000])
def test_user_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.get_user(uid), lambda: store.edit_user(uid, active=False), lambda: store.delete_user(uid),
        lambda: store.set_password(uid, "x"), lambda: store.set_totp(uid, "x"),
        lambda: store.allow_domains(uid, ["a.example.org"]), lambda: store.reset_domains(uid),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert store.use_totp_step(uid, 1) is False
    assert store.list_user_tunnels(uid) == []
    assert store.position() == (1, 0)


def test_user_zero_is_refused(store):
    for call in (lambda: store.edit_user(ZERO_UID, active=False), lambda: store.delete_user(ZERO_UID)):
        with pytest.raises(ValueRefusedError):
            call()


def test_find_user_by_email_any_case(store):
    user = store.create_user(email="Mara@example.org")
    assert store.find_user_by_email("mARA@Example.ORG") == user
    for text in ("", "x@example.org", "mara", "%@%", "a\x00@b", "\ud800@b"):
        assert store.find_user_by_email(text) is None


def test_secrets_of_a_user_are_kept_and_not_shown(store):
    user = store.create_user()
    store.set_password(user.uid, "$argon2id$secret")
    store.set_totp(user.uid, "BASE32SECRET")
    stored = store.get_user(user.uid)
    assert (stored.password_hash, stored.totp_secret) == ("$argon2id$secret", "BASE32SECRET")
    assert "secret" not in repr(stored).lower()


def test_use_totp_step_each_only_once_and_never_back(store):
    user = store.create_user()
    assert [store.use_totp_step(user.uid, step) for step in (5, 5, 4, 6, 6)] == [True, False, False, True, False]
    store.edit_user(user.uid, fullname="x")                  # an edit does not forget it
    assert store.use_totp_step(user.uid, 6) is False


def test_domains_are_a_canonical_set(store):
    user = store.create_user()
    store.allow_domains(user.uid, ["Shop.example.org.", "*.Büro.example", "shop.example.org"])
    assert store.get_user(user.uid).domains == ("*.xn--bro-hoa.example", "shop.example.org")
    before = store.position()
    store.allow_domains(user.uid, ["shop.example.org"])
    store.remove_domains(user.uid, ["never.example.org"])
    assert store.position() == before
    assert store.remove_domains(user.uid, ["*.büro.example"]).domains == ("shop.example.org",)
    assert store.reset_domains(user.uid).domains == ()


@pytest.mark.parametrize("domain", ["", "*", "*.", "a.*.org", "**.example.org", "a b", "\x00", "\ud800"])
def test_allow_domains_malformed_refuses_all(store, domain):
    user = store.create_user()
    with pytest.raises(NameRefusedError):
        store.allow_domains(user.uid, ["good.example.org", domain])
    assert store.get_user(user.uid).domains == ()


def test_allow_domains_over_the_bound_refused(store):
    user = store.create_user()
    with pytest.raises(LimitError):
        store.allow_domains(user.uid, [f"d{n}.example.org" for n in range(DOMAIN_COUNT_MAX + 1)])


def test_deactivated_user_loses_logins_and_their_tunnels_cannot_log_in(store):
    user = store.create_user()
    tunnel, auth = store.create_tunnel("a", domain=DOMAIN, user_uid=user.uid)
    api_key, value = store.create_api_key("k", user_uid=user.uid)
    cookies = [store.create_login(user_uid=user.uid)[1], store.create_login(api_key_uid=api_key.uid)[1]]
    store.edit_user(user.uid, active=False)
    with pytest.raises(InactiveError, match="owner"):
        store.find_tunnel_by_key(auth.value)
    with pytest.raises(InactiveError):
        store.find_api_key(value)
    assert [store.find_login(cookie) for cookie in cookies] == [None, None]
    store.edit_user(user.uid, active=True)
    assert store.find_tunnel_by_key(auth.value) == tunnel
    assert store.find_login(cookies[0]) is None              # ended, not suspended


def test_delete_user_takes_all_that_is_theirs(store):
    user, other = store.create_user(), store.create_user()
    tunnels = [store.create_tunnel(f"t{n}", domain=DOMAIN, user_uid=user.uid)[0] for n in range(2)]
    kept, _ = store.create_tunnel("kept", domain=DOMAIN, user_uid=other.uid)
    store.put_sites(tunnels[0].uid, [{"domain": "shop.example.org"}])
    store.allocate_port(tunnels[0].uid, 22000, 22000)
    store.create_api_key("k", user_uid=user.uid)
    store.create_webhook("https://hooks.example.org", user_uid=user.uid)
    _, cookie = store.create_login(user_uid=user.uid)
    assert sorted(store.delete_user(user.uid)) == sorted(tunnel.uid for tunnel in tunnels)
    assert store.get_tunnel(tunnels[0].uid).state == TunnelState.DELETED
    assert (store.list_sites(), store.list_ports(), store.list_api_keys(), store.list_webhooks()) == ([], [], [], [])
    assert store.find_login(cookie) is None
    assert store.list_tunnels() == [kept]
    with pytest.raises(NotFoundError):
        store.get_user(user.uid)
