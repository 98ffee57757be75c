"""Deactivation, ownership and the traffic limit of users: on sessions, routes and ports."""

import asyncio

import pytest

from spokes import clock
from spokes._fastpath.engine import ListenerKind, RouteKind
from spokes.errors import StoreError
from spokes.model.ports import AllocatePort
from spokes.model.tunnels import AssignTunnel, CreateTunnel
from spokes.model.users import CreateUser, DeleteUser, EditUser
from spokes.server.process.app import Server
from spokes.server.routing.users import Users
from spokes.store import TrafficDelta
from spokes.wire import messages as m
from tests.server.conftest import DOMAIN
from tests.server.sessions.test_sessions import hears, hello, log_in
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.operations import do


@pytest.fixture
def user(store):
    return do(store, CreateUser(email="mara@example.org"))


@pytest.fixture
async def owned(server, store, user):
    """A tunnel of the user, and its key."""
    tunnel, auth = do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=user.uid))
    await server.follower.catch_up()
    return tunnel, auth.value


async def refused(engine, key):
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Login(key=key))
    return (await hears(peer, m.Bye)).code


def test_users_owner_moves_and_leaves_nothing_behind():
    users = Users()
    users.put("u", active=True, bandwidth_mb=1)
    users.put("v", active=False, bandwidth_mb=0)
    users.put_tunnel("t", "u")
    assert (users.owner("t"), users.tunnels_of("u"), users.may_log_in("t")) == ("u", {"t"}, True)
    users.put_tunnel("t", "v")
    assert (users.tunnels_of("u"), users.tunnels_of("v"), users.may_log_in("t")) == (frozenset(), {"t"}, False)
    users.drop_tunnel("t")
    assert (users.tunnels_of("v"), users.may_log_in("t")) == (frozenset(), True)
    assert list(users.limited()) == [("u", 1_000_000)]


async def test_user_deactivated_ends_sessions_within_a_second_and_refuses_logins(engine, server, store, user, owned):
    peer, _ = await log_in(engine, owned[1])
    control, _ = await log_in(engine, owned[1], mode="control")
    do(store, EditUser(user.uid, active=False))
    server.follower.wake()
    await eventually(lambda: {peer.link, control.link} <= engine.ended.keys(), within_s=1.0)
    assert ((await hears(peer, m.Bye)).code, (await hears(peer, m.Bye)).retry) == ("SPK-INACTIVE", False)
    assert await refused(engine, owned[1]) == "SPK-INACTIVE"
    do(store, EditUser(user.uid, active=True))
    await server.follower.catch_up()
    await log_in(engine, owned[1])


async def test_user_deactivated_leaves_tunnels_of_others_alone(engine, server, store, user, owned):
    _, auth = do(store, CreateTunnel(name="other", domain=DOMAIN))
    await server.follower.catch_up()
    other, _ = await log_in(engine, auth.value)
    do(store, EditUser(user.uid, active=False))
    await server.follower.catch_up()
    assert other.link in engine.links


async def test_user_deleted_ends_sessions_and_frees_routes(engine, server, store, user, owned):
    peer, _ = await log_in(engine, owned[1])
    do(store, DeleteUser(user.uid))
    await server.follower.catch_up()
    assert peer.link in engine.ended
    assert set(engine.routes) == {(RouteKind.HTTP, DOMAIN)}
    assert await refused(engine, owned[1]) in ("SPK-TOKEN", "SPK-INACTIVE")


async def test_tunnel_given_to_an_inactive_user_ends(engine, server, store, user):
    tunnel, auth = do(store, CreateTunnel(name="desk", domain=DOMAIN))
    await server.follower.catch_up()
    peer, _ = await log_in(engine, auth.value)
    do(store, EditUser(user.uid, active=False))
    do(store, AssignTunnel(uid=tunnel.uid, user_uid=user.uid, name="desk", hostname=None, domain=DOMAIN))
    await server.follower.catch_up()
    assert peer.link in engine.ended


async def test_user_inactive_at_start_is_refused_after_it(config, server, store, user, owned, engine):
    do(store, EditUser(user.uid, active=False))
    await server.stop()
    again = Server(config, make_engine=FakeEngine)
    await again.start()
    try:
        assert await refused(again._engine, owned[1]) == "SPK-INACTIVE"
    finally:
        again.force_stop()
        await again.stop()


def carry(server, engine, tunnel, bytes_in, bytes_out):
    engine.traffic[server.routes.service(tunnel.uid)] = (bytes_in, bytes_out, 1)


async def test_traffic_is_counted_once_into_the_store(engine, server, store, user, owned):
    tunnel, _ = owned
    carry(server, engine, tunnel, 100, 200)
    await server.traffic.flush()
    await server.traffic.flush()
    carry(server, engine, tunnel, 50, 50)
    await server.traffic.flush()
    assert store.traffic.usage_of_tunnels([tunnel.uid], clock.wall_s())[tunnel.uid].monthly == 400
    assert store.traffic.usage_of_user(user.uid, clock.wall_s()).monthly == 400


def _fail(*_args):
    raise StoreError("disk full")


async def test_traffic_that_the_store_refused_is_written_later(engine, server, store, owned, monkeypatch):
    tunnel, _ = owned
    carry(server, engine, tunnel, 100, 0)
    with monkeypatch.context() as patch:
        patch.setattr(store.traffic, "add", _fail)
        await server.traffic.flush()
    assert list(server.traffic.pending()) == [(tunnel.uid, 100)]
    carry(server, engine, tunnel, 30, 0)
    await server.traffic.flush()
    assert list(server.traffic.pending()) == []
    assert store.traffic.usage_of_tunnels([tunnel.uid], clock.wall_s())[tunnel.uid].monthly == 130


async def test_traffic_survives_a_restart(config, engine, server, store, user, owned):
    carry(server, engine, owned[0], 300_000, 0)
    await server.stop()  # writes what was counted
    again = Server(config, make_engine=FakeEngine)
    await again.start()
    try:
        again._engine.traffic[again.routes.service(owned[0].uid)] = (300_000, 0, 1)
        await again.traffic.flush()
        usage = again._store.store.traffic.usage_of_user(user.uid, clock.wall_s())
        assert usage.monthly == 600_000
    finally:
        again.force_stop()
        await again.stop()


@pytest.fixture
async def spent(engine, server, store, user, owned):
    """The user has one megabyte a month, used up; the tunnel is on-line with a port. The peer, before the cut."""
    tunnel, key = owned
    port = do(store, AllocatePort(tunnel.uid, server.config.tcp_ports.begin, server.config.tcp_ports.end))
    do(store, EditUser(user.uid, bandwidth_mb=1))
    await server.follower.catch_up()
    peer, _ = await log_in(engine, key)
    assert engine.routes[(RouteKind.TCP, port)] == server.routes.slot(tunnel.uid)
    carry(server, engine, tunnel, 400_000, 600_000)
    await server.bandwidth.step()
    return peer, port


async def test_bandwidth_counts_what_the_store_could_not_be_told_yet(engine, server, store, user, owned, monkeypatch):
    """Half of the limit is in the store, half is kept for the next interval: together they use it up."""
    tunnel, key = owned
    do(store, EditUser(user.uid, bandwidth_mb=1))
    await server.follower.catch_up()
    await log_in(engine, key)
    carry(server, engine, tunnel, 500_000, 0)
    await server.bandwidth.step()
    assert not server.bandwidth.is_used_up(user.uid)
    carry(server, engine, tunnel, 0, 499_999)
    with monkeypatch.context() as patch:
        patch.setattr(store.traffic, "add", _fail)
        await server.bandwidth.step()
        assert [standing.used_bytes for standing in server.bandwidth.standings()] == [999_999]
        assert not server.bandwidth.is_used_up(user.uid)
        carry(server, engine, tunnel, 1, 0)
        await server.bandwidth.step()
        assert server.bandwidth.is_used_up(user.uid)
        assert engine.routes[(RouteKind.HTTP, tunnel.hostname)] == "SPK-BANDWIDTH"
    await server.bandwidth.step()           # written now, and counted once
    assert [standing.used_bytes for standing in server.bandwidth.standings()] == [1_000_000]


async def test_bandwidth_used_up_cuts_streams_and_closes_routes(engine, server, store, owned, spent):
    peer, port = spent
    tunnel, key = owned
    assert peer.link in engine.ended
    assert ((await hears(peer, m.Bye)).code, (await hears(peer, m.Bye)).retry) == ("SPK-BANDWIDTH", True)
    assert engine.routes[(RouteKind.HTTP, tunnel.hostname)] == "SPK-BANDWIDTH"
    assert (RouteKind.TCP, port) not in engine.routes
    assert (RouteKind.UDP, port) not in engine.routes
    assert port in {bound for kind, bound, _ in engine.listeners.values() if kind == ListenerKind.TCP}
    again, _ = await log_in(engine, key)  # the client may be on-line all the same
    await server.bandwidth.step()
    assert again.link in engine.links


@pytest.mark.parametrize("bandwidth_mb", [0, 2])
async def test_bandwidth_raised_opens_at_once(engine, server, store, user, owned, spent, bandwidth_mb):
    do(store, EditUser(user.uid, bandwidth_mb=bandwidth_mb))
    await server.follower.catch_up()
    assert engine.routes[(RouteKind.HTTP, owned[0].hostname)] == server.routes.slot(owned[0].uid)
    assert (RouteKind.TCP, spent[1]) in engine.routes


async def test_bandwidth_new_month_opens_by_itself(engine, server, owned, spent):
    with clock.replaced(clock.ManualClock(wall_s=clock.wall_s() + 32 * 86_400)):
        await server.bandwidth.step()
    assert engine.routes[(RouteKind.HTTP, owned[0].hostname)] == server.routes.slot(owned[0].uid)


async def test_bandwidth_used_up_before_a_restart_is_closed_after_it(config, server, owned, spent):
    await server.stop()
    again = Server(config, make_engine=FakeEngine)
    await again.start()
    try:
        assert again._engine.routes[(RouteKind.HTTP, owned[0].hostname)] == "SPK-BANDWIDTH"
    finally:
        again.force_stop()
        await again.stop()


async def test_bandwidth_tunnel_taken_from_the_user_opens(engine, server, store, owned, spent):
    other = do(store, CreateUser())
    do(store, AssignTunnel(uid=owned[0].uid, user_uid=other.uid, name="desk", hostname=None, domain=DOMAIN))
    await server.follower.catch_up()
    assert engine.routes[(RouteKind.HTTP, owned[0].hostname)] == server.routes.slot(owned[0].uid)


async def test_bandwidth_runs_by_itself(config, engine, server, store, user, owned):
    do(store, EditUser(user.uid, bandwidth_mb=1))
    store.traffic.add(clock.wall_s(), [
        TrafficDelta(service_uid=owned[0].uid, tunnel_uid=owned[0].uid, bytes_in=1_000_000, bytes_out=0)
    ])
    await server.follower.catch_up()
    await eventually(lambda: engine.routes[(RouteKind.HTTP, owned[0].hostname)] == "SPK-BANDWIDTH")
    assert server.bandwidth.is_used_up(user.uid)


async def test_bandwidth_of_the_system_is_not_limited(engine, server, store):
    tunnel, _ = do(store, CreateTunnel(name="free", domain=DOMAIN))
    await server.follower.catch_up()
    carry(server, engine, tunnel, 10**12, 10**12)
    await server.bandwidth.step()
    await asyncio.sleep(0)
    assert engine.routes[(RouteKind.HTTP, tunnel.hostname)] == server.routes.slot(tunnel.uid)
