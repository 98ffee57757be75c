"""Coroutines under a supervisor: begun again whatever they raise, counted, told; one never takes another along."""

import asyncio

import pytest

from spokes.errors import StoreError
from spokes.supervisor import Supervisor
from tests.support.eventually import eventually

NO_WAIT = 0.001


@pytest.fixture
async def supervisor():
    supervisor = Supervisor(restart_wait_s=NO_WAIT, steady_s=0.02)
    yield supervisor
    await supervisor.stop()


class Flaky:
    """A coroutine that fails so many times and then runs for ever."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.begun = 0

    async def run(self):
        self.begun += 1
        if self.errors:
            raise self.errors.pop(0)
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [KeyError("x"), StoreError("away"), ZeroDivisionError(), asyncio.CancelledError()])
async def test_task_that_fails_begins_again_is_counted_and_told(supervisor, error):
    told, steady = [], []
    supervisor.on_failed = lambda name, words: told.append((name, words))
    supervisor.on_steady = steady.append
    flaky = Flaky(error, error)
    supervisor.keep("flaky", flaky.run)
    await eventually(lambda: flaky.begun == 3)
    assert [name for name, _ in told] == ["flaky", "flaky"]
    assert type(error).__name__ in told[0][1]
    (figures,) = supervisor.figures()
    assert (figures["failures_total"], figures["state"]) == (2, "running")
    assert type(error).__name__ in figures["last_error"]
    await eventually(lambda: steady == ["flaky"])


async def test_callback_that_fails_is_counted_told_and_forgiven_once_it_goes_well(supervisor):
    told, steady = [], []
    supervisor.on_failed = lambda name, words: told.append((name, words))
    supervisor.on_steady = steady.append
    failed = supervisor.follow("events")
    assert supervisor.figures()[0]["state"] == "running"
    failed(KeyError("x"))
    failed(ZeroDivisionError())
    assert [name for name, _ in told] == ["events", "events"]
    (figures,) = supervisor.figures()
    assert (figures["failures_total"], figures["last_error"]) == (2, "ZeroDivisionError")
    await eventually(lambda: steady == ["events"])
    with pytest.raises(ValueError, match="kept already"):
        supervisor.follow("events")


async def test_task_that_returns_has_failed_and_begins_again(supervisor):
    begun = []

    async def returns():
        begun.append(1)

    supervisor.keep("short", returns)
    await eventually(lambda: len(begun) >= 2)
    assert supervisor.figures()[0]["last_error"] == "it ended"


async def test_others_go_on_beside_one_that_fails_for_ever(supervisor):
    steady = Flaky()
    failing = Flaky(*[KeyError()] * 1000)
    supervisor.keep("failing", failing.run)
    supervisor.keep("steady", steady.run)
    await eventually(lambda: failing.begun >= 3)
    assert steady.begun == 1


async def test_waits_between_starts_double():
    supervisor = Supervisor(restart_wait_s=1.0)
    supervisor.keep("failing", Flaky(*[KeyError()] * 10).run)
    kept = supervisor._kept["failing"]
    waits = []
    for _ in range(7):
        supervisor._failed(kept, KeyError())
        waits.append(kept.wait_s)
    await supervisor.stop()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


async def test_a_listener_that_fails_does_not_end_the_task(supervisor):
    def breaks(*_):
        raise ValueError

    supervisor.on_failed = breaks
    flaky = Flaky(KeyError())
    supervisor.keep("flaky", flaky.run)
    await eventually(lambda: flaky.begun == 2)


async def test_stop_ends_all_and_a_name_runs_once(supervisor):
    task = supervisor.keep("one", Flaky().run)
    with pytest.raises(ValueError, match="kept already"):
        supervisor.keep("one", Flaky().run)
    await supervisor.stop()
    assert task.cancelled()


async def test_drop_ends_one_forgets_it_and_its_name_is_free(supervisor):
    flaky = Flaky()
    task = supervisor.keep("flaky", flaky.run)
    await eventually(lambda: flaky.begun)
    supervisor.drop("flaky")
    supervisor.drop("unknown")
    assert supervisor.figures() == []
    supervisor.keep("flaky", Flaky().run)
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert [one["name"] for one in supervisor.figures()] == ["flaky"]
