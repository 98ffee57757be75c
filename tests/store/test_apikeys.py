import pytest

from spokes.errors import InactiveError, LimitError, NotFoundError, TokenError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, new_uid
from spokes.store import apikeys


def test_create_api_key_is_found_by_its_value_alone(store):
    key, value = store.create_api_key("deploy", scopes=("write", "read"))
    assert is_secret(value)
    assert (key.scopes, key.user_uid, key.prefix, key.last_used) == (("read", "write"), ZERO_UID, value[:8], 0.0)
    assert store.find_api_key(value) == store.get_api_key(key.uid) == key
    assert store.list_api_keys() == [key]


def test_api_key_value_is_stored_nowhere(store):
    _, value = store.create_api_key("deploy")
    hold = [row for name in store._db.tables() for row in store._db.query(f'SELECT * FROM "{name}"')]
    assert hold
    assert not [row for row in hold if value in map(str, row)]


@pytest.mark.parametrize("value", ["", "0" * 64, "\ud800", "' OR 1=1 --", "A" * 64])
def test_find_api_key_unknown_refused(store, value):
    store.create_api_key("deploy")
    with pytest.raises(TokenError):
        store.find_api_key(value)


@pytest.mark.parametrize("scopes", [(), ("root",), ("read", "")])
def test_create_api_key_unknown_scope_refused(store, scopes):
    with pytest.raises(ValueRefusedError):
        store.create_api_key("x", scopes=scopes)


@pytest.mark.parametrize("text", ["a\nb", "\x00", "\ud800", "x" * 256])
def test_create_api_key_unfit_description_refused(store, text):
    with pytest.raises(ValueRefusedError):
        store.create_api_key(text)


@pytest.mark.parametrize("text", ["'; DROP TABLE api_key; --", "<b>", "%s {} ?", "\U0001f680"])
def test_create_api_key_hostile_description_comes_back_unchanged(store, text):
    key, _ = store.create_api_key(text)
    assert store.get_api_key(key.uid).description == text


def test_create_api_key_of_an_unknown_user_refused(store):
    with pytest.raises(NotFoundError):
        store.create_api_key("x", user_uid=new_uid())


def test_list_api_keys_by_owner(store):
    user = store.create_user()
    system, _ = store.create_api_key("a")
    own, _ = store.create_api_key("b", user_uid=user.uid)
    assert store.list_api_keys(user_uid=user.uid) == [own]
    assert store.list_api_keys(user_uid=ZERO_UID) == [system]
    assert store.list_api_keys(user_uid="\x00") == []


def test_edit_api_key_switched_off_refuses_and_ends_its_logins(store):
    key, value = store.create_api_key("a")
    _, cookie = store.create_login(api_key_uid=key.uid)
    store.edit_api_key(key.uid, active=False)
    with pytest.raises(InactiveError):
        store.find_api_key(value)
    assert store.find_login(cookie) is None
    assert store.edit_api_key(key.uid, active=True, description="b").description == "b"
    assert store.find_api_key(value).uid == key.uid
    assert store.find_login(cookie) is None                  # ended, not suspended


def test_delete_api_key_ends_it_and_its_logins(store):
    key, value = store.create_api_key("a")
    _, cookie = store.create_login(api_key_uid=key.uid)
    store.touch_api_keys({key.uid: (1.0, "198.51.100.7")})
    store.delete_api_key(key.uid)
    with pytest.raises(TokenError):
        store.find_api_key(value)
    assert store.find_login(cookie) is None
    assert store.list_api_keys() == []


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800"])
def test_api_key_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.get_api_key(uid), lambda: store.edit_api_key(uid, active=False), lambda: store.delete_api_key(uid)
    ):
        with pytest.raises(NotFoundError):
            call()


def test_touch_api_keys_newest_counts_and_unknown_ones_are_passed_over(store):
    key, _ = store.create_api_key("a")
    store.touch_api_keys({key.uid: (20.0, "2001:db8::1"), new_uid(): (1.0, "x"), "\x00": (1.0, "x")})
    store.touch_api_keys({key.uid: (10.0, "198.51.100.7")})
    seen = store.get_api_key(key.uid)
    assert (seen.last_used, seen.last_address) == (20.0, "2001:db8::1")
    store.touch_api_keys({key.uid: (30.0, "a\x00\ud800")})
    assert store.get_api_key(key.uid).last_address == "a\ufffd\ufffd"
    store.touch_api_keys({})


def test_edit_api_key_keeps_what_was_seen(store):
    key, _ = store.create_api_key("a")
    store.touch_api_keys({key.uid: (20.0, "198.51.100.7")})
    store.edit_api_key(key.uid, description="b")
    assert store.get_api_key(key.uid).last_used == 20.0


def test_create_api_key_beyond_the_number_of_an_owner_refused(store, monkeypatch):
    monkeypatch.setattr(apikeys, "API_KEY_COUNT_MAX", 2)
    user = store.create_user()
    made = [store.create_api_key("k", user_uid=user.uid)[0] for _ in range(2)]
    with pytest.raises(LimitError):
        store.create_api_key("k", user_uid=user.uid)
    store.create_api_key("k")
    store.delete_api_key(made[0].uid)
    store.create_api_key("k", user_uid=user.uid)
