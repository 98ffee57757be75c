"""A network that changed: heard of from the kernel, seen in the clocks, and what the client does about it."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from spokes._fastpath.engine import LinkDown
from spokes.client import network
from spokes.client.network import NetworkWatch
from spokes.client.reconnect import Backoff
from tests.client.test_app import console, make_app, running  # noqa: F401 (fixtures)
from tests.support.eventually import eventually


@contextlib.asynccontextmanager
async def watching():
    changes = []
    task = asyncio.create_task(NetworkWatch(lambda: changes.append(1)).run())
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_watch_many_messages_at_once_are_one_change(monkeypatch):
    told, teller = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.setblocking(False)
    monkeypatch.setattr(NetworkWatch, "_open", lambda _self: told)
    async with watching() as changes:
        for _ in range(5):
            teller.send(b"message")
        await eventually(lambda: changes)
        assert changes == [1]
        teller.send(b"message")
        await eventually(lambda: changes == [1, 1])
    teller.close()


async def test_watch_resume_is_a_change(monkeypatch):
    monkeypatch.setattr(NetworkWatch, "_open", lambda _self: None)
    monkeypatch.setattr(network, "CHECK_INTERVAL_S", 0.01)
    suspended_s, checks = [5.0], []

    def look():
        checks.append(1)
        return suspended_s[0]

    monkeypatch.setattr(network, "_suspended_s", look)
    async with watching() as changes:
        await eventually(lambda: checks)
        suspended_s[0] += 3600.0
        await eventually(lambda: changes == [1])


async def test_app_waiting_client_tries_at_once_when_the_network_changed(engine, make_app):  # noqa: F811
    engine.refused = {"127.0.0.1": (LinkDown.TLS, b"reset")}
    app = make_app()
    waits = iter([3600.0])
    app._make_backoff = lambda: Backoff(uniform=lambda _low, _high: next(waits, 0.0))
    async with running(app):
        await eventually(lambda: app.state == "waiting")
        engine.refused = {}
        app.network_changed()
        await eventually(lambda: app.state == "online")


async def test_app_link_that_answers_outlives_a_change_of_the_network(engine, make_app):  # noqa: F811
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        app.network_changed()
        await app.nodes.listed[0]._checking
        assert len(engine.server.logins) == 1


async def test_app_link_that_is_dead_after_a_change_of_the_network_is_given_up(engine, make_app, monkeypatch):  # noqa: F811
    monkeypatch.setattr("spokes.client.node.PATH_ANSWER_S", 0.05)
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.lost = set(engine.links)
        app.network_changed()
        await eventually(lambda: len(engine.server.logins) == 2 and app.state == "online")
