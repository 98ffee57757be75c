"""Alerts: raised once, resolved by themselves, told to whoever listens; and what the checks make of figures."""

import asyncio
from pathlib import Path

import pytest

from spokes.errors import StoreError
from spokes.model.tunnels import CreateTunnel
from spokes.server.notify.alerts import AlertBoard
from spokes.server.notify.watch import OFFLINE_COUNT_MAX, SKEW_COUNT_MAX, Clocks, Offline, Watch
from spokes.server.usage.bandwidth import UserTraffic
from spokes.store import Severity
from tests.support.eventually import eventually
from tests.support.operations import do

DAY_S = 86_400.0


class Board:
    """An AlertBoard as the checks see it, without a store."""

    def __init__(self):
        self.open = {}

    def is_open(self, kind, subject):
        return (kind, subject) in self.open

    def subjects(self, kind):
        return [subject for one, subject in self.open if one == kind]

    def raise_(self, kind, subject, severity, text):
        self.open[kind, subject] = (severity, text)

    def settle(self, kind, subject):
        self.open.pop((kind, subject), None)


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def watch(board):
    return Watch(board)


@pytest.fixture
def told(server):
    told = []
    server.notifications.alerts.listeners.append(told.append)
    return told


async def test_alert_is_raised_once_grows_and_is_resolved(server, store, told):
    alerts = server.notifications.alerts
    for _ in range(3):
        alerts.raise_("disk", "/data", Severity.WARNING, "9% free")
        await alerts.flush()
    alerts.raise_("disk", "/data", Severity.CRITICAL, "2% free")
    await alerts.flush()
    alerts.raise_("disk", "/data", Severity.WARNING, "9% free")
    await alerts.flush()
    for _ in range(2):
        alerts.settle("disk", "/data")
        await alerts.flush()
    assert [(one.severity, one.resolved is not None) for one in told] == [
        (Severity.WARNING, False), (Severity.CRITICAL, False), (Severity.CRITICAL, True)
    ]  # fmt: skip
    assert store.alerts.select(open_only=True) == []


@pytest.mark.parametrize("stands", [False, True])
async def test_wish_made_while_the_one_before_is_written_comes_after_it(server, store, monkeypatch, stands):
    board, writing, go_on = AlertBoard(server._store), asyncio.Event(), asyncio.Event()
    run = server._store.run
    if stands:
        board.raise_("disk", "/data", Severity.WARNING, "9% free")
        await board.flush()

    async def slow(*call):
        writing.set()
        await go_on.wait()
        return await run(*call)

    def wish(raised):
        if raised:
            board.raise_("disk", "/data", Severity.WARNING, "9% free")
        else:
            board.settle("disk", "/data")

    monkeypatch.setattr(server._store, "run", slow)
    wish(not stands)
    flushing = asyncio.create_task(board.flush())
    await writing.wait()
    wish(stands)
    go_on.set()
    await flushing
    await board.flush()
    assert board.is_open("disk", "/data") is stands
    assert bool(store.alerts.select(open_only=True)) is stands


async def test_alert_that_stood_before_a_restart_is_resolved_after_it(server, store):
    store.alerts.open("clock", "server", Severity.WARNING, "wrong")
    board = AlertBoard(server._store)
    await board.load()
    board.settle("clock", "server")
    await board.flush()
    assert store.alerts.select(open_only=True) == []


async def test_alert_waits_for_a_store_that_fails(server, store, monkeypatch, told):
    alerts = server.notifications.alerts
    with monkeypatch.context() as patch:
        patch.setattr(store.alerts, "open", lambda *_: (_ for _ in ()).throw(StoreError("away")))
        alerts.raise_("disk", "/data", Severity.WARNING, "9% free")
        with pytest.raises(StoreError):
            await alerts.flush()
    await alerts.flush()
    assert len(told) == 1


async def test_alerts_real_looks_raise_nothing_on_a_healthy_server(server, store):
    await server.notifications.watch.check()
    await server.notifications.alerts.flush()
    assert [alert.kind for alert in store.alerts.select(open_only=True) if alert.kind != "disk"] == []


async def test_alert_of_a_silent_tunnel_comes_and_goes_with_it(engine, server, store):
    from tests.server.sessions.test_sessions import log_in

    never, _ = do(store, CreateTunnel(name="never", domain="tun.example.net"))
    tunnel, auth = do(store, CreateTunnel(name="desk", domain="tun.example.net"))
    await server.follower.catch_up()
    server.notifications.alert_offline_s = 1e-9
    peer, _ = await log_in(engine, auth.value)
    await server.presence.flush()
    peer.hang_up()
    await eventually(lambda: server.registry.get(tunnel.uid) is None)
    await server.presence.flush()

    async def silent():
        await server.notifications.watch.check()
        await server.notifications.watch.check()
        await server.notifications.alerts.flush()
        return [alert.subject for alert in store.alerts.select(open_only=True) if alert.kind == "offline"]

    assert await silent() == [tunnel.uid]
    await log_in(engine, auth.value)
    assert await silent() == []
    assert server.routes.slot(never.uid) is not None


@pytest.mark.parametrize(
    ("left_s", "severity"),
    [(15 * DAY_S, None), (13 * DAY_S, Severity.WARNING), (2 * DAY_S, Severity.CRITICAL), (-1, Severity.CRITICAL)],
)
def test_watch_certificate(watch, board, left_s, severity):
    watch.certificate(("tun.example.net",), 1e9 + left_s, 1e9)
    assert board.open.get(("certificate", "tun.example.net"), (None,))[0] is severity
    watch.certificate(("tun.example.net",), 2e9, 1e9)
    assert board.open == {}


def test_watch_memory_goes_only_when_it_is_calm_again(watch, board):
    seen = []
    for used in (80, 86, 80, 96, 75, 69):
        watch.memory(used, 100)
        seen.append(board.open.get(("memory", "buffers"), (None,))[0])
    assert seen == [None, Severity.WARNING, Severity.WARNING, Severity.CRITICAL, Severity.CRITICAL, None]


@pytest.mark.parametrize(
    ("free", "total", "severity"),
    [
        (5 << 30, 100 << 30, Severity.WARNING),
        (2 << 30, 100 << 30, Severity.CRITICAL),
        (50 << 30, 1000 << 30, None),  # a small share of much is enough
        (20 << 30, 100 << 30, None),
    ],
)
def test_watch_disk(watch, board, free, total, severity):
    watch.disk(Path("/data"), free, total)
    assert board.open.get(("disk", "/data"), (None,))[0] is severity


def test_watch_bandwidth_warns_before_the_cut_and_settles_next_month(watch, board):
    for used, severity in ((79, None), (80, Severity.WARNING), (95, Severity.CRITICAL), (0, None)):
        watch.bandwidth([UserTraffic("u", used, 100)])
        assert board.open.get(("bandwidth", "u"), (None,))[0] is severity
    watch.bandwidth([UserTraffic("u", 99, 100)])
    watch.bandwidth([])  # the limit was taken away
    assert board.open == {}


def test_watch_offline_is_bounded(watch, board):
    watch.offline({str(number): "name" for number in range(1000)})
    assert len(board.open) == OFFLINE_COUNT_MAX


def test_clocks_one_wrong_client_is_not_ours():
    clocks = Clocks()
    for number in range(5):
        clocks.note(f"192.0.2.{number}", 0.0)
    clocks.note("192.0.2.99", 10_000.0)
    assert clocks.ours_skew_s() == 0.0


def test_clocks_most_clients_one_way_is_ours():
    clocks = Clocks()
    for number in range(100):
        clocks.note(f"192.0.2.{number}", 900.0 + number)
    assert len(clocks._skews) == SKEW_COUNT_MAX
    assert clocks.ours_skew_s() > 900
    for number in range(100):
        clocks.note(f"192.0.2.{number}", 0.0)
    assert clocks.ours_skew_s() == 0.0


def test_clocks_two_alone_may_both_be_wrong_and_both_ways_say_nothing():
    clocks = Clocks()
    clocks.note("192.0.2.1", 900.0)
    clocks.note("192.0.2.2", 900.0)
    assert clocks.ours_skew_s() == 0.0
    clocks.note("192.0.2.3", -900.0)
    clocks.note("192.0.2.4", -900.0)
    assert clocks.ours_skew_s() == 0.0


def test_offline_counts_from_when_it_was_seen_first():
    offline = Offline()
    offline.check(["a", "b"], lambda uid: uid == "b", 100.0)
    assert offline.check(["a", "b"], lambda uid: False, 130.0) == {"a": 30.0, "b": 0.0}
    assert offline.check(["b"], lambda uid: True, 140.0) == {}
