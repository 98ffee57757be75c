"""The list of users is always as the store has it, and makes only what was written since the last time."""

import pytest

from spokes import clock
from spokes.admin import months, user_list
from spokes.admin.schema.users import user_object
from spokes.admin.user_list import UserList
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.store import TrafficDelta
from tests.support.operations import do

DOMAIN = "tun.example.net"


@pytest.fixture
def made(monkeypatch) -> list[str]:
    """Ids of users whose objects were made."""
    made: list[str] = []

    def noting(user, monthly_bytes):
        made.append(user.uid)
        return user_object(user, monthly_bytes)

    monkeypatch.setattr(user_list, "user_object", noting)
    return made


def as_stored(store) -> list:
    used = store.traffic.month_of_users(clock.wall_s())
    return [user_object(user, used.get(user.uid, 0)) for user in store.users.select()]


def test_user_list_makes_again_only_what_was_written(store, made):
    users = [do(store, CreateUser(fullname=f"u{n}")) for n in range(3)]
    found = UserList()
    assert found.read(store) == as_stored(store)
    assert sorted(made) == sorted(user.uid for user in users)
    made.clear()
    assert found.read(store) == as_stored(store) and made == []
    do(store, EditUser(users[1].uid, phone="+49 30"))
    assert found.read(store) == as_stored(store) and made == [users[1].uid]
    do(store, DeleteUser(users[0].uid))
    new = do(store, CreateUser(fullname="new"))
    assert found.read(store) == as_stored(store) and made == [users[1].uid, new.uid]


def test_user_list_takes_one_that_was_restored_with_the_same_number(store):
    user = do(store, CreateUser(fullname="before"))
    found = UserList()
    found.read(store)
    with store._db.write():
        store._db.query("""UPDATE "user" SET fullname = 'after', modified = modified - 60""")
    assert [one.fullname for one in found.read(store)] == ["after"]
    assert store.users.get(user.uid).rev == user.rev


def test_user_list_tells_whose_traffic_is_used_up(store):
    user = do(store, CreateUser(bandwidth_mb=1))
    free = do(store, CreateUser())
    tunnel, _ = do(store, CreateTunnel(name="t", domain=DOMAIN, user_uid=user.uid))
    found, time = UserList(), clock.ManualClock()
    with clock.replaced(time):
        assert [one.bandwidth_used_up for one in found.read(store)] == [False, False]
        delta = TrafficDelta(tunnel_uid=tunnel.uid, service_uid="5" * 32, bytes_in=1_000_000, bytes_out=0, conns=1)
        store.traffic.add(clock.wall_s(), [delta])
        time.advance(months.LIFETIME_S)
        assert {one.id: one.bandwidth_used_up for one in found.read(store)} == {user.uid: True, free.uid: False}
        do(store, EditUser(user.uid, bandwidth_mb=2))
        assert [one.bandwidth_used_up for one in found.read(store)] == [False, False]


def test_user_months_are_read_no_more_often_than_said(store, monkeypatch):
    calls = []
    monkeypatch.setattr(store.traffic, "month_of_users", lambda at: calls.append(at) or {"u": len(calls)})
    time, found = clock.ManualClock(), months.UserMonths()
    with clock.replaced(time):
        assert found.read(store) == found.read(store) == {"u": 1}
        time.advance(months.LIFETIME_S - 0.01)
        assert found.read(store) == {"u": 1}
        time.advance(0.01)
        assert found.read(store) == {"u": 2}
