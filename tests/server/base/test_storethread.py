"""The store behind one thread: order, failures, and an end that never waits for ever."""

import asyncio
import threading

import pytest

from spokes.errors import StoreError
from spokes.server.base import storethread
from spokes.server.base.storethread import StoreThread
from tests.support.eventually import eventually
from tests.support.threads import join_thread


@pytest.fixture
def others():
    """Threads of stores that other tests left to their ends."""
    return store_threads()


@pytest.fixture
async def thread(others, tmp_path):
    thread = StoreThread()
    await thread.open(f"sqlite:///{tmp_path / 'spokes.db'}")
    yield thread
    await thread.close()


def store_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "store"}


async def test_calls_run_in_the_order_they_were_made(thread):
    seen = []
    await asyncio.gather(*(thread.run(seen.append, number) for number in range(100)))
    assert seen == list(range(100))


async def test_call_that_fails_tells_its_caller_and_the_next_one_runs(thread):
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: "next") == "next"


async def test_operation_that_waits_for_another_node_holds_up_nobody_here(thread):
    assert await thread.perform(threading.current_thread) in store_threads()
    answered = threading.Event()
    thread.store.forward = lambda principal, operation: None
    waiting = asyncio.create_task(thread.perform(answered.wait))
    await thread.run(answered.set)       # as what it waits for may have to be applied by this thread
    assert await waiting is True


async def test_call_whose_caller_gave_up_before_its_turn_is_not_made(thread):
    release, made = threading.Event(), []
    first = asyncio.create_task(thread.run(release.wait, 30))
    second = asyncio.create_task(thread.run(made.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    release.set()
    await first
    await thread.run(made.append, 3)
    assert made == [3]


async def test_asking_a_store_that_hangs_ends_in_time_and_at_once_once_that_is_known(thread, monkeypatch):
    begun, release, made = threading.Event(), threading.Event(), []

    def hang():
        begun.set()
        release.wait(30)

    stuck = asyncio.create_task(thread.run(hang))
    await eventually(begun.is_set)      # its time counts from here
    monkeypatch.setattr(storethread, "ANSWER_WITHIN_S", 0.05)
    with pytest.raises(StoreError, match="does not answer"):
        await thread.ask(made.append, 1)
    monkeypatch.setattr(asyncio, "timeout", None)       # nobody waits any more
    with pytest.raises(StoreError, match="does not answer"):
        await thread.ask(made.append, 2)
    monkeypatch.undo()
    release.set()
    await stuck
    await thread.ask(made.append, 3)
    assert made == [3]


async def test_close_that_fails_ends_the_thread_all_the_same(thread, others, monkeypatch):
    (own,) = store_threads() - others

    def fail():
        raise OSError("no such disk")

    close = thread.store.close
    monkeypatch.setattr(thread.store, "close", fail)
    with pytest.raises(OSError, match="no such disk"):
        await thread.close()
    await asyncio.to_thread(join_thread, own)
    close()


async def test_close_while_the_disk_hangs_gives_up_and_the_thread_holds_up_no_process(
    thread, others, monkeypatch, caplog
):
    monkeypatch.setattr(storethread, "CLOSE_WITHIN_S", 0.05)
    release = threading.Event()
    stuck = asyncio.create_task(thread.run(release.wait, 30))
    await asyncio.sleep(0)
    await thread.close()
    assert "store does not close" in caplog.text
    assert all(one.daemon for one in store_threads() - others)
    release.set()
    await stuck


async def test_close_twice_and_without_open_do_nothing():
    thread = StoreThread()
    await thread.close()
    await thread.close()
