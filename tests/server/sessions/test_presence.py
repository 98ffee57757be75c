"""Presence written behind: what a flush promises."""

import asyncio

import pytest

from spokes.errors import StoreError
from spokes.server.sessions.presence import PresenceWriter
from spokes.store import PresenceUpdate, TunnelState


class SlowStore:
    """A store whose writes wait to be released."""

    def __init__(self):
        self.store = self.presence = self
        self.released, self.begun = asyncio.Event(), asyncio.Event()
        self.failure = None
        self.written = []

    def write(self, updates):
        self.written.append([update.tunnel_uid for update in updates])

    async def run(self, call, updates):
        self.begun.set()
        await self.released.wait()
        if self.failure is not None:
            raise self.failure
        call(updates)


def update(uid):
    return PresenceUpdate(tunnel_uid=uid, state=TunnelState.ONLINE, last_active=1.0)


@pytest.fixture
async def store():
    return SlowStore()


async def test_flush_returns_after_a_write_that_was_under_way(store):
    writer = PresenceWriter(store, 5.0)
    writer.put(update("a"))
    first = asyncio.create_task(writer.flush())
    await store.begun.wait()
    second = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    assert not second.done()
    store.released.set()
    await second
    assert first.done()
    assert store.written == [["a"]]


@pytest.mark.parametrize("cause", ["cancelled", "failed"])
async def test_flush_that_was_cut_short_leaves_its_updates_to_the_next_one(store, cause):
    writer = PresenceWriter(store, 5.0)
    writer.put(update("a"))
    first = asyncio.create_task(writer.flush())
    await store.begun.wait()
    if cause == "cancelled":
        first.cancel()
    else:
        store.failure = StoreError("away")
    store.released.set()
    await asyncio.gather(first, return_exceptions=True)
    store.failure = None
    writer.put(update("b"))
    await writer.flush()
    assert store.written == [["a", "b"]]
