"""Looking names up while some name servers hang."""

import asyncio

import pytest

from spokes.resolver import Resolver
from spokes.server.notify.resolver import LOOKUP_COUNT_MAX, SharedResolver
from tests.support.eventually import eventually
from tests.support.hanging_resolver import HangingResolver


@pytest.fixture
def resolver():
    resolver = HangingResolver()
    yield resolver
    resolver.release()


async def test_name_that_hangs_is_asked_once_and_holds_back_no_other(resolver):
    shared = SharedResolver(resolver.resolve)
    waiting = [asyncio.create_task(shared("slow")) for _ in range(100)]
    await eventually(lambda: resolver.asked)
    assert await shared("quick") == ["192.0.2.1"]
    waiting.pop().cancel()                           # one who gives up takes nothing from the others
    resolver.release()
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 99
    assert resolver.asked == ["slow", "quick"]
    assert await shared("slow") == ["192.0.2.1"]    # asked anew: nothing is kept
    assert resolver.asked.count("slow") == 2


async def test_names_that_hang_are_bounded(resolver):
    shared = SharedResolver(resolver.resolve)
    waiting = [asyncio.create_task(shared(f"slow{number}", f"{number}")) for number in range(LOOKUP_COUNT_MAX)]
    await eventually(lambda: len(resolver.asked) == LOOKUP_COUNT_MAX)
    with pytest.raises(OSError, match="too many names"):
        await shared("quick")
    resolver.release()
    await asyncio.gather(*waiting)
    assert await shared("quick") == ["192.0.2.1"]


async def test_failure_is_told_and_not_kept(resolver):
    shared = SharedResolver(resolver.resolve)
    for _ in range(2):
        with pytest.raises(OSError, match="not known"):
            await shared("nowhere")
    assert resolver.asked == ["nowhere", "nowhere"]


async def test_literal_address_and_local_name():
    shared = SharedResolver(Resolver().addresses)
    assert await shared("127.0.0.1") == ["127.0.0.1"]
    assert set(await shared("localhost")) & {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r"\w"):
        await shared("a" * 70 + ".example")


async def test_names_of_one_owner_that_hang_leave_look_ups_to_the_others(resolver):
    shared = SharedResolver(resolver.resolve)
    waiting = [asyncio.create_task(shared(f"slow{number}", "tenant")) for number in range(2 * LOOKUP_COUNT_MAX)]
    await eventually(lambda: resolver.asked)
    assert await shared("quick", "operator") == ["192.0.2.1"]
    resolver.release()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(one, BlockingIOError) for one in found)
    assert [one for one in found if not isinstance(one, BlockingIOError)]
