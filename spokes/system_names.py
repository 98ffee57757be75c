"""The system's own resolver (getaddrinfo), asked in threads of their own: it can neither be bounded nor cancelled.

The threads are daemons: whoever waits may give up, and no program's end waits for a name server.
Bound: THREAD_COUNT_MAX threads, one for a name: a name that hangs is asked once, by everybody who waits for it; who
finds no thread waits for one, DEADLINE_S in all.
Fails: OSError as getaddrinfo does; TimeoutError.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

THREAD_COUNT_MAX = 8
DEADLINE_S = 10.0

_Answer = asyncio.Future[list[str]]


def resolve_by_system(host: str) -> list[str]:
    """Addresses as text, each once, in the system's order."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class SystemNames:
    """`await names(host)`, of one event loop."""

    def __init__(self, resolve: Callable[[str], list[str]] = resolve_by_system) -> None:
        self._resolve = resolve
        self._under_way: dict[str, _Answer] = {}
        self._threads = asyncio.Semaphore(THREAD_COUNT_MAX)

    async def __call__(self, host: str) -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            answer = self._under_way.get(host)
            if answer is None:
                await self._threads.acquire()
                answer = self._under_way.get(host) or self._begin(host)
            return await asyncio.shield(answer)

    def _begin(self, host: str) -> _Answer:
        answer = self._under_way[host] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._look_up, args=(host, answer), name="lookup", daemon=True).start()
        return answer

    def _look_up(self, host: str, answer: _Answer) -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            addresses = self._resolve(host)
        except OSError as error:
            failure = error
        except UnicodeError:             # a label that is too long for the resolver
            failure = OSError(errno.EINVAL, f"{host!r} is no host name")
        except Exception:                # whatever it is, those who wait must be told
            log.exception("name not looked up", extra={"host": host})
            failure = OSError(errno.EIO, "the look-up failed")
        with contextlib.suppress(RuntimeError):      # the loop has ended meanwhile
            answer.get_loop().call_soon_threadsafe(self._finish, host, answer, addresses, failure)

    def _finish(self, host: str, answer: _Answer, addresses: list[str], failure: OSError | None) -> None:
        del self._under_way[host]
        self._threads.release()
        if answer.done():
            return
        if failure is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(failure)
            answer.exception()           # seen: those who waited may have given up
