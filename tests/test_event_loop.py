"""The event loop of both programs."""

import asyncio
import os
import signal

import pytest
import uvloop

from spokes.event_loop import run


async def running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_run_is_on_uvloop():
    assert isinstance(run(running_loop()), uvloop.Loop)


def test_run_interrupted_cancels_what_waits():
    ended: list[str] = []

    async def wait_for_ever() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        run(wait_for_ever())
    assert ended == ["cancelled"]


def test_run_ignored_interrupt_stays_ignored():
    """A verb in the background of a script has SIGINT ignored, and the loop does not take it back."""

    async def interrupted() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0)
        return "went on"

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(interrupted()) == "went on"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_run_that_took_signals_gives_them_back():
    async def take() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run(take())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
