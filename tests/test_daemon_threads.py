"""Calls in daemon threads: answered, bounded, given up, and never waited for by the program's end."""

import asyncio
import subprocess
import sys
import threading

import pytest

from spokes.daemon_threads import DaemonThreads
from tests.support.eventually import eventually


async def test_run_answers_with_the_result_or_the_error_of_the_call():
    threads = DaemonThreads("test", 2)
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)
    with pytest.raises(SystemExit):
        await threads.run(sys.exit)
    assert await threads.run(threading.current_thread) is not threading.main_thread()


async def test_run_beyond_the_bound_waits_for_a_thread_that_ends():
    threads = DaemonThreads("test", 2)
    gate, begun = threading.Event(), []

    def hang(number):
        begun.append(number)
        gate.wait(30)
        return number

    hanging = [asyncio.create_task(threads.run(hang, number)) for number in range(3)]
    await eventually(lambda: len(begun) == 2)
    hanging[0].cancel()  # its thread goes on, and keeps its place
    with pytest.raises(asyncio.CancelledError):
        await hanging[0]
    assert begun == [0, 1]
    gate.set()
    assert await asyncio.gather(*hanging[1:]) == [1, 2]


def test_program_ends_while_a_call_hangs():
    words = """
import asyncio, threading
from spokes.daemon_threads import DaemonThreads
begun = threading.Event()

def hang():
    begun.set()
    threading.Event().wait()

async def main():
    hanging = asyncio.create_task(DaemonThreads("test", 1).run(hang))
    await asyncio.to_thread(begun.wait)
    hanging.cancel()

asyncio.run(main())
print("over")
"""
    done = subprocess.run([sys.executable, "-c", words], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "over\n"
