import pytest

from spokes.errors import InactiveError, LimitError, NotFoundError, TokenError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, new_uid
from spokes.model import api_keys as apikeys
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.model.users import CreateUser
from tests.support.operations import do


def test_create_api_key_is_found_by_its_value_alone(store):
    key, value = do(store, CreateApiKey("deploy", scopes=("write", "read")))
    assert is_secret(value)
    assert (key.scopes, key.user_uid, key.prefix, key.last_used) == (("read", "write"), ZERO_UID, value[:8], 0.0)
    assert store.api_keys.find(value) == store.api_keys.get(key.uid) == key
    assert store.api_keys.select() == [key]


def test_api_key_value_is_stored_nowhere(store):
    _, value = do(store, CreateApiKey("deploy"))
    hold = [row for name in store._db.tables() for row in store._db.query(f'SELECT * FROM "{name}"')]
    assert hold
    assert not [row for row in hold if value in map(str, row)]


@pytest.mark.parametrize("value", ["", "0" * 64, "\ud800", "' OR 1=1 --", "A" * 64])
def test_find_api_key_unknown_refused(store, value):
    do(store, CreateApiKey("deploy"))
    with pytest.raises(TokenError):
        store.api_keys.find(value)


@pytest.mark.parametrize("scopes", [(), ("root",), ("read", "")])
def test_create_api_key_unknown_scope_refused(store, scopes):
    with pytest.raises(ValueRefusedError):
        do(store, CreateApiKey("x", scopes=scopes))


@pytest.mark.parametrize("text", ["a\nb", "\x00", "\ud800", "x" * 256])
def test_create_api_key_unfit_description_refused(store, text):
    with pytest.raises(ValueRefusedError):
        do(store, CreateApiKey(text))


@pytest.mark.parametrize("text", ["'; DROP TABLE api_key; --", "<b>", "%s {} ?", "\U0001f680"])
def test_create_api_key_hostile_description_comes_back_unchanged(store, text):
    key, _ = do(store, CreateApiKey(text))
    assert store.api_keys.get(key.uid).description == text


def test_create_api_key_of_an_unknown_user_refused(store):
    with pytest.raises(NotFoundError):
        do(store, CreateApiKey("x", user_uid=new_uid()))


def test_list_api_keys_by_owner(store):
    user = do(store, CreateUser())
    system, _ = do(store, CreateApiKey("a"))
    own, _ = do(store, CreateApiKey("b", user_uid=user.uid))
    assert store.api_keys.select(user_uid=user.uid) == [own]
    assert store.api_keys.select(user_uid=ZERO_UID) == [system]
    assert store.api_keys.select(user_uid="\x00") == []


def test_edit_api_key_switched_off_refuses_and_ends_its_logins(store):
    key, value = do(store, CreateApiKey("a"))
    _, cookie = store.logins.create(api_key_uid=key.uid)
    do(store, EditApiKey(key.uid, active=False))
    with pytest.raises(InactiveError):
        store.api_keys.find(value)
    assert store.logins.find(cookie) is None
    assert do(store, EditApiKey(key.uid, active=True, description="b")).description == "b"
    assert store.api_keys.find(value).uid == key.uid
    assert store.logins.find(cookie) is None                  # ended, not suspended


def test_delete_api_key_ends_it_and_its_logins(store):
    key, value = do(store, CreateApiKey("a"))
    _, cookie = store.logins.create(api_key_uid=key.uid)
    store.api_keys.touch({key.uid: (1.0, "198.51.100.7")})
    do(store, DeleteApiKey(key.uid))
    with pytest.raises(TokenError):
        store.api_keys.find(value)
    assert store.logins.find(cookie) is None
    assert store.api_keys.select() == []


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800"])
def test_api_key_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.api_keys.get(uid), lambda: do(store, EditApiKey(uid, active=False)),
        lambda: do(store, DeleteApiKey(uid)),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_touch_api_keys_newest_counts_and_unknown_ones_are_passed_over(store):
    key, _ = do(store, CreateApiKey("a"))
    store.api_keys.touch({key.uid: (20.0, "2001:db8::1"), new_uid(): (1.0, "x"), "\x00": (1.0, "x")})
    store.api_keys.touch({key.uid: (10.0, "198.51.100.7")})
    seen = store.api_keys.get(key.uid)
    assert (seen.last_used, seen.last_address) == (20.0, "2001:db8::1")
    store.api_keys.touch({key.uid: (30.0, "a\x00\ud800")})
    assert store.api_keys.get(key.uid).last_address == "a\ufffd\ufffd"
    store.api_keys.touch({})


def test_edit_api_key_keeps_what_was_seen(store):
    key, _ = do(store, CreateApiKey("a"))
    store.api_keys.touch({key.uid: (20.0, "198.51.100.7")})
    do(store, EditApiKey(key.uid, description="b"))
    assert store.api_keys.get(key.uid).last_used == 20.0


def test_create_api_key_beyond_the_number_of_an_owner_refused(store, monkeypatch):
    monkeypatch.setattr(apikeys, "API_KEY_COUNT_MAX", 2)
    user = do(store, CreateUser())
    made = [do(store, CreateApiKey("k", user_uid=user.uid))[0] for _ in range(2)]
    with pytest.raises(LimitError):
        do(store, CreateApiKey("k", user_uid=user.uid))
    do(store, CreateApiKey("k"))
    do(store, DeleteApiKey(made[0].uid))
    do(store, CreateApiKey("k", user_uid=user.uid))
