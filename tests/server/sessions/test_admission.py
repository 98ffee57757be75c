"""Admission: a rate, a bound on what runs at once, and a bound on the queue."""

import asyncio

import pytest

from spokes.errors import AdmissionRefusedError
from spokes.server.sessions.admission import WAITING_S_MAX, Admission
from tests.support.eventually import eventually


async def test_admission_at_most_so_many_run_at_once():
    admission = Admission(10_000, running_max=3)
    running, most = 0, 0
    go = asyncio.Event()

    async def one():
        nonlocal running, most
        async with admission.turn():
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1

    tasks = [asyncio.create_task(one()) for _ in range(10)]
    await eventually(lambda: running == 3)
    go.set()
    await asyncio.gather(*tasks)
    assert most == 3
    assert admission.waiting == 0


async def test_admission_starts_are_spread_at_the_rate():
    admission = Admission(100)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for _ in range(120):  # a quiet second's worth goes at once, the rest at 100 a second
        async with admission.turn():
            pass
    assert 0.1 < loop.time() - begun < 2


async def test_admission_storm_beyond_the_queue_is_told_when_to_come_back():
    admission = Admission(10)

    async def one():
        async with admission.turn():
            pass

    tasks = [asyncio.create_task(one()) for _ in range(200)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = [task.exception() for task in tasks if task.done() and task.exception()]
    assert len(refused) > 100
    assert all(isinstance(error, AdmissionRefusedError) and error.retry_after_s >= WAITING_S_MAX for error in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert admission.waiting == 0


async def test_admission_failure_inside_frees_its_place():
    admission = Admission(10_000, running_max=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with admission.turn():
                raise RuntimeError
    async with admission.turn():
        pass
