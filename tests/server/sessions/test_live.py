"""What is told of tunnels this moment, over the real control socket."""

import asyncio

import pytest

from spokes import clock
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import ControlError
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import RegisterTunnel
from spokes.wire import messages as m
from spokes.wire.rules import Site
from tests.server.sessions.test_sessions import hears, log_in, registered  # noqa: F401  (a fixture)
from tests.support.operations import do


async def call(server, op, **args):
    return await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, op, **args)


async def test_live_tells_of_tunnels_that_are_online_and_what_they_serve(engine, server, registered):  # noqa: F811
    tunnel, key = registered
    assert (await call(server, "live"))["tunnels"] == {}
    peer, _ = await log_in(engine, key)
    engine.counters[engine.links[peer.link].tunnel] = (10, 20, 3, 0.0)
    peer.say(m.Services(https=(Site(domain="shop.example.org", destination="127.0.0.1", port=80),)))
    await hears(peer, m.Accepted)
    facts = (await call(server, "live"))["tunnels"][tunnel.uid]
    assert (facts["sites"], facts["ports"]) == (["shop.example.org"], [])
    assert (facts["address"], facts["version"], facts["os"]) == ("198.51.100.7", "0.1.0", "linux")
    assert (facts["bytes_in"], facts["bytes_out"], facts["streams_open"]) == (10, 20, 3)
    assert 0 <= clock.wall_s() - facts["connected_at"] < 60


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_uptime_stays_right_when_the_clock_is_set(engine, server, registered, jump_s):  # noqa: F811
    tunnel, key = registered
    manual = clock.ManualClock(wall_s=clock.wall_s(), monotonic_s=clock.monotonic_s())
    with clock.replaced(manual):
        await log_in(engine, key)
        manual.set_wall(manual.wall_s() + jump_s)
        manual.advance(7.5)
        assert (await call(server, "live"))["tunnels"][tunnel.uid]["uptime_s"] == 7
        (facts,) = await call(server, "tunnels")
        assert facts["uptime_s"] == 7
        assert 7 <= (await call(server, "status"))["uptime_s"] < 3600


async def test_live_of_some_tunnels_leaves_out_the_others_and_the_unknown(engine, server, registered):  # noqa: F811
    tunnel, key = registered
    await log_in(engine, key)
    assert set((await call(server, "live", ids=[tunnel.uid, "f" * 32]))["tunnels"]) == {tunnel.uid}
    assert (await call(server, "live", ids=[]))["tunnels"] == {}


@pytest.mark.parametrize("ids", ["x", [1], ["x"] * 1001])
async def test_live_bad_ids_are_refused(server, ids):
    with pytest.raises(ControlError) as refused:
        await call(server, "live", ids=ids)
    assert refused.value.code == "SPK-VALUE"


async def test_metrics_name_the_busiest_tunnels_and_sum_up_the_others(engine, server, store):
    token = do(store, CreateToken("t"))
    tunnels = [
        do(store, RegisterTunnel(token=token.value, name=f"t{n}", domain="tun.example.net"))[0] for n in range(5)
    ]
    await server.follower.catch_up()
    for number, tunnel in enumerate(tunnels):
        engine.counters[server.routes.slot(tunnel.uid)] = (number, 10 * number, 1, 0.0)
    figures = await call(server, "metrics", tunnel_count=2)
    assert [one["id"] for one in figures["tunnels"]["busiest"]] == [tunnels[4].uid, tunnels[3].uid]
    assert figures["tunnels"]["busiest"][0]["hostname"] == tunnels[4].hostname
    assert figures["tunnels"]["others"] == {"count": 3, "bytes_in": 3, "bytes_out": 30, "streams_open": 3}
    assert figures["process"]["resident_memory_bytes"] > 1 << 20
    assert figures["sessions"]["active"] == 5


@pytest.mark.parametrize("tunnel_count", [-1, 1001, "5", True])
async def test_metrics_bad_count_is_refused(server, tunnel_count):
    with pytest.raises(ControlError) as refused:
        await call(server, "metrics", tunnel_count=tunnel_count)
    assert refused.value.code == "SPK-VALUE"


async def test_health_is_answered_with_nothing_more(server):
    assert await call(server, "health") == {}


async def test_service_that_fails_at_the_client_is_not_available_until_it_answers(engine, server, registered):  # noqa: F811
    tunnel, key = registered
    peer, _ = await log_in(engine, key)
    sites = (Site(domain="shop.example.org", port=80), Site(domain="other.example.org", port=81))
    peer.say(m.Services(https=sites))
    await hears(peer, m.Accepted)
    moves = []
    server.availability.on_moves = moves.extend

    async def served(domains):
        async with asyncio.timeout(5):
            while (await call(server, "live"))["tunnels"][tunnel.uid]["sites"] != domains:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    peer.say(m.Health(failing=(m.FailingService(domain="shop.example.org", code="SPK-UPSTREAM-REFUSED"),)))
    await served(["other.example.org"])
    peer.say(m.Services(https=sites))
    await hears(peer, m.Accepted)
    await served(["other.example.org"])
    peer.say(m.Health())
    await served(["other.example.org", "shop.example.org"])
    assert [(move.key.domain, move.available) for move in moves] == [
        ("shop.example.org", False), ("shop.example.org", True)
    ]
