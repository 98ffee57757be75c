"""The system's resolver while some of its name servers hang."""

import asyncio
import subprocess
import sys

import pytest

from spokes.system_names import THREAD_COUNT_MAX, SystemNames
from tests.support.eventually import eventually
from tests.support.hanging_resolver import HangingResolver


@pytest.fixture
def resolver():
    resolver = HangingResolver()
    yield resolver
    resolver.release()


async def test_name_that_hangs_is_asked_once_and_holds_back_no_other(resolver):
    names = SystemNames(resolver)
    waiting = [asyncio.create_task(names("slow")) for _ in range(100)]
    await eventually(lambda: resolver.asked)
    assert await names("quick") == ["192.0.2.1"]
    waiting.pop().cancel()                           # one who gives up takes nothing from the others
    resolver.release()
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * 99
    assert resolver.asked == ["slow", "quick"]
    assert await names("slow") == ["192.0.2.1"]      # asked anew: nothing is kept


async def test_threads_that_hang_are_bounded_and_others_wait_for_one(resolver):
    names = SystemNames(resolver)
    waiting = [asyncio.create_task(names(f"slow{number}")) for number in range(2 * THREAD_COUNT_MAX)]
    await eventually(lambda: len(resolver.asked) == THREAD_COUNT_MAX)
    assert len(names._under_way) == THREAD_COUNT_MAX
    given_up = waiting.pop()                         # while it waits for a thread
    given_up.cancel()
    resolver.release()
    assert await asyncio.gather(*waiting) == [["192.0.2.1"]] * len(waiting)
    assert f"slow{2 * THREAD_COUNT_MAX - 1}" not in resolver.asked


async def test_failure_is_told_and_not_kept(resolver):
    names = SystemNames(resolver)
    for _ in range(2):
        with pytest.raises(OSError, match="not known"):
            await names("nowhere")
    with pytest.raises(OSError, match="failed"):
        await names("broken")
    assert resolver.asked == ["nowhere", "nowhere", "broken"]


async def test_names_of_this_host_and_impossible_ones():
    names = SystemNames()
    assert await names("127.0.0.1") == ["127.0.0.1"]
    assert set(await names("localhost")) & {"127.0.0.1", "::1"}
    for host in ("a" * 70 + ".example", "x..y"):
        with pytest.raises(OSError, match=r"\w"):
            await names(host)


def test_program_ends_while_a_name_hangs():
    """Neither the loop's end nor the interpreter's waits for a thread that hangs."""
    words = """
import asyncio, threading, uvloop
from spokes.system_names import SystemNames
hangs = threading.Event()

def resolve(host):
    hangs.set()
    threading.Event().wait()

async def main():
    names = SystemNames(resolve)
    waiting = asyncio.create_task(names("slow"))
    await asyncio.to_thread(hangs.wait)
    waiting.cancel()

uvloop.run(main())
print("over")
"""
    done = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "over\n"
