"""Two clients with one key, over the engine's stand-in: who stays, and who hears of it."""

from __future__ import annotations

import pytest

from spokes import clock
from spokes._fastpath.engine import EventKind
from spokes.model.tunnels import RenewTunnelKey
from spokes.server.sessions import copies
from spokes.server.sessions.copies import COPY_MEMORY_S, shown
from spokes.wire import messages as m
from tests.server.sessions.test_sessions import hears, hello, log_in, registered  # noqa: F401 (a fixture)
from tests.support.eventually import eventually
from tests.support.operations import do

OLD, NEW = "198.51.100.7 50000", "203.0.113.9 41000"


async def arrive(engine, key, peer):
    one = engine.arrive(peer)
    one.say(hello())
    one.say(m.Login(key=key))
    return one


async def take_over(engine, key):
    """The newer of two clients, and what the older one was told."""
    old = await arrive(engine, key, OLD)
    await hears(old, m.Ready)
    new = await arrive(engine, key, NEW)
    await hears(new, m.Ready)
    return new, await hears(old, m.Bye)


async def test_copies_older_one_ends_newer_stays_and_the_operator_hears_both_addresses(engine, server, registered):  # noqa: F811
    tunnel, key = registered
    new, bye = await take_over(engine, key)
    assert (bye.code, bye.retry) == ("SPK-REPLACED", False)
    for _ in range(3):  # whatever starts it again
        again = await arrive(engine, key, OLD)
        bye = await hears(again, m.Bye)
        assert (bye.code, bye.retry, bye.retry_after_s) == ("SPK-COPY", True, copies.WAIT_S)
        assert "203.0.113.9:41000" in bye.message
    assert [session.primary for session in server.registry.sessions()] == [new.link]
    await eventually(lambda: server.notifications.alerts.subjects(copies.ALERT) == [tunnel.uid])
    (alert,) = [one for one in server.notifications._store.store.alerts.select() if one.kind == copies.ALERT]
    assert "198.51.100.7:50000" in alert.text
    assert "203.0.113.9:41000" in alert.text


async def test_copies_one_that_went_away_makes_room_for_the_other(engine, server, registered):  # noqa: F811
    key = registered[1]
    new, _ = await take_over(engine, key)
    engine.links[new.link].silent = True  # its host was switched off
    again = await arrive(engine, key, OLD)
    await hears(again, m.Ready)
    assert [session.primary for session in server.registry.sessions()] == [again.link]


async def test_copies_two_that_ask_at_once_both_hear_that_the_tunnel_is_taken(engine, server, registered):  # noqa: F811
    key = registered[1]
    new, _ = await take_over(engine, key)
    engine.links[new.link].silent = True  # until both have asked
    asking = [await arrive(engine, key, OLD) for _ in range(2)]
    await eventually(lambda: engine.links[new.link].pings == 2)
    engine.emit(EventKind.PONG, new.link, 0, b"")
    for one in asking:
        assert (await hears(one, m.Bye)).code == "SPK-COPY"


async def test_copies_key_that_is_renewed_while_one_waits_lets_nobody_in(engine, server, store, registered):  # noqa: F811
    tunnel, key = registered
    new, _ = await take_over(engine, key)
    engine.links[new.link].silent = True  # its host was switched off
    again = await arrive(engine, key, OLD)
    await eventually(lambda: engine.links[new.link].pings == 1)
    do(store, RenewTunnelKey(tunnel.uid))
    await server.follower.catch_up()
    assert (await hears(again, m.Bye)).code == "SPK-TOKEN"
    assert server.registry.sessions() == []


async def test_copies_client_that_comes_back_over_a_new_link_is_none(engine, server, registered):  # noqa: F811
    for _ in range(4):
        peer, _ready = await log_in(engine, registered[1])
        engine.links[peer.link].silent = True
    assert server.sessions.copies.tunnels() == set()


async def test_copies_are_forgotten_after_a_while(engine, server, registered):  # noqa: F811
    tunnel, key = registered
    old = await arrive(engine, key, OLD)
    await hears(old, m.Ready)
    await hears(await arrive(engine, key, NEW), m.Ready)
    await hears(old, m.Bye)
    assert server.sessions.copies.tunnels() == {tunnel.uid}
    ahead = clock.ManualClock(monotonic_s=clock.monotonic_s() + COPY_MEMORY_S)
    with clock.replaced(ahead):
        assert server.sessions.copies.tunnels() == set()


@pytest.mark.parametrize(("peer", "text"), [(OLD, "198.51.100.7:50000"), ("2001:db8::1 9", "[2001:db8::1]:9")])
def test_shown_is_an_address_as_people_write_it(peer, text):
    assert shown(peer) == text
