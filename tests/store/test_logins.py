import functools

import pytest

from spokes import clock
from spokes.errors import ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, new_uid
from spokes.model.api_keys import CreateApiKey
from spokes.model.users import CreateUser
from spokes.store import logins
from spokes.store.logins import FAILURE_MEMORY_S, LOGIN_COUNT_MAX, LOGIN_LIFETIME_S, end_logins, source_key
from tests.support.operations import do


@pytest.fixture
def time():
    manual = clock.ManualClock()
    with clock.replaced(manual):
        yield manual


@pytest.fixture
def api_key(store):
    return do(store, CreateApiKey("k"))[0]


def test_create_login_is_found_by_its_cookie_alone(store, api_key):
    login, cookie = store.logins.create(api_key_uid=api_key.uid, address="198.51.100.7", agent="curl/8")
    assert is_secret(cookie)
    assert cookie != login.uid
    assert store.logins.find(cookie) == login
    assert (login.expires - login.created, login.user_uid) == (LOGIN_LIFETIME_S, ZERO_UID)
    assert not [row for row in store._db.query("SELECT * FROM login") if cookie in map(str, row)]


@pytest.mark.parametrize("cookie", ["", "0" * 64, "\x00", "\ud800", "' OR 1=1 --"])
def test_find_login_unknown_cookie_none(store, api_key, cookie):
    store.logins.create(api_key_uid=api_key.uid)
    assert store.logins.find(cookie) is None


@pytest.mark.parametrize("owner", [
    {}, {"api_key_uid": "1" * 32, "user_uid": "2" * 32}, {"api_key_uid": "x"}, {"user_uid": "\x00"},
])
def test_create_login_is_a_key_s_or_a_person_s(store, owner):
    with pytest.raises(ValueRefusedError):
        store.logins.create(**owner)


def test_create_login_of_nobody_known_is_never_found(store):
    for owner in ({"api_key_uid": new_uid()}, {"user_uid": new_uid()}):
        assert store.logins.find(store.logins.create(**owner)[1]) is None


def test_create_login_hostile_agent_is_made_fit(store, api_key):
    login, cookie = store.logins.create(api_key_uid=api_key.uid, agent="<b>\x00\n\ud800" + "x" * 999, address="\x1b[0m")
    assert login.agent.startswith("<b>\ufffd\ufffd\ufffd")
    assert len(login.agent) == 255
    assert store.logins.find(cookie) == login


def test_find_login_ends_with_its_time_unless_renewed(store, api_key, time):
    (kept, kept_cookie), (_, cookie) = (store.logins.create(api_key_uid=api_key.uid) for _ in range(2))
    time.advance(LOGIN_LIFETIME_S - 1)
    assert store.logins.renew(kept.uid)
    time.advance(1)
    assert store.logins.find(cookie) is None
    assert store.logins.find(kept_cookie).uid == kept.uid
    time.advance(LOGIN_LIFETIME_S)
    assert not store.logins.renew(kept.uid)                   # what has ended does not come back
    assert store.logins.find(kept_cookie) is None


def test_end_login_ends_this_one_only(store, api_key):
    (first, cookie), (_, other) = (store.logins.create(api_key_uid=api_key.uid) for _ in range(2))
    assert store.logins.end(first.uid)
    assert not store.logins.end(first.uid)
    assert not store.logins.end("\x00")
    assert store.logins.find(cookie) is None
    assert store.logins.find(other)


def test_end_logins_of_a_person_but_one(store, api_key):
    end = functools.partial(end_in_transaction, store)
    user = do(store, CreateUser())
    mine = [store.logins.create(user_uid=user.uid) for _ in range(3)]
    _, key_cookie = store.logins.create(api_key_uid=api_key.uid)
    end(user_uid=user.uid, but=mine[0][0].uid)
    assert [bool(store.logins.find(cookie)) for _, cookie in mine] == [True, False, False]
    assert store.logins.find(key_cookie)
    end(api_key_uid=ZERO_UID)            # zero is nobody, not everybody
    end(user_uid=ZERO_UID)
    assert [bool(store.logins.find(cookie)) for cookie in (mine[0][1], key_cookie)] == [True, True]
    with pytest.raises(TypeError):
        end()


def end_in_transaction(store, **whose):
    with store.changes.transaction() as tx:
        end_logins(tx, **whose)


def test_list_logins_live_ones_newest_first(store, api_key, time):
    user = do(store, CreateUser())
    store.logins.create(api_key_uid=api_key.uid, lifetime_s=1)
    made = []
    for _ in range(3):
        time.advance(1)
        made.append(store.logins.create(user_uid=user.uid)[0])
    assert store.logins.select() == list(reversed(made))
    assert store.logins.select(user.uid) == list(reversed(made))
    assert store.logins.select("\x00") == []
    assert store.logins.purge() == 1


def test_create_login_over_the_bound_ends_the_oldest(store, api_key, time):
    cookies = []
    for _ in range(LOGIN_COUNT_MAX + 2):
        time.advance(1)
        cookies.append(store.logins.create(api_key_uid=api_key.uid)[1])
    assert [bool(store.logins.find(cookie)) for cookie in cookies[:3]] == [False, False, True]
    assert len(store.logins.select()) == LOGIN_COUNT_MAX


def test_login_wait_s_doubles_up_to_a_minute(store, time):
    waits = []
    for _ in range(9):
        store.logins.note_failure("198.51.100.7")
        waits.append(store.logins.wait_s("198.51.100.7"))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    time.advance(59)
    assert store.logins.wait_s("198.51.100.7") == 1
    time.advance(1)
    assert store.logins.wait_s("198.51.100.7") == 0
    assert store.logins.wait_s("198.51.100.8") == 0


def test_login_wait_s_is_forgotten_after_quiet(store, time):
    for _ in range(5):
        store.logins.note_failure("a")
    time.advance(FAILURE_MEMORY_S + 1)
    store.logins.note_failure("a")
    assert store.logins.wait_s("a") == 1


def test_login_wait_s_clock_set_back_does_not_lock_out(store, time):
    store.logins.note_failure("a")
    time.set_wall(time.wall_s() - 86_400)
    assert store.logins.wait_s("a") == 0


def test_note_login_failure_sources_are_bounded(store, time, monkeypatch):
    monkeypatch.setattr(logins, "FAILURE_SOURCE_COUNT_MAX", 20)
    for n in range(100):
        time.advance(1)
        store.logins.note_failure(f"198.51.100.{n}")
    ((count,),) = store._db.query("SELECT COUNT(*) FROM login_failure")
    assert count <= 20
    assert store.logins.wait_s("198.51.100.99") > 0           # the newest is not what goes


@pytest.mark.parametrize(("source", "key"), [
    ("198.51.100.7", "198.51.100.7"), ("::ffff:198.51.100.7", "198.51.100.7"), ("2001:db8::1", "2001:db8::/64"),
    ("2001:db8:0:0:ffff::9", "2001:db8::/64"), ("2001:db8:0:1::1", "2001:db8:0:1::/64"), ("socket", "socket"),
    ("a\x00", "a\ufffd"),
])
def test_source_key_one_subscriber_is_one_source(source, key):
    assert source_key(source) == key


def test_has_login_from_while_the_session_lives(store):
    user, time = do(store, CreateUser()), clock.ManualClock()
    with clock.replaced(time):
        store.logins.create(user_uid=user.uid, address="198.51.100.7", lifetime_s=60)
        assert store.logins.has_from("198.51.100.7") and store.logins.has_from("198.51.100.7", user.uid)
        assert not store.logins.has_from("198.51.100.7", do(store, CreateUser()).uid)
        assert not store.logins.has_from("198.51.100.8") and not store.logins.has_from("")
        time.advance(61)
        assert not store.logins.has_from("198.51.100.7") and not store.logins.has_from("198.51.100.7", user.uid)
