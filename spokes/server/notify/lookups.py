"""Names looked up for webhooks, in threads of their own: whoever makes a webhook chooses whose name servers are asked,
and the system's resolver can neither be bounded nor cancelled.

Bound: LOOKUP_COUNT_MAX threads, one for a name: a name whose servers hang is asked once, by everybody who waits for it.
They are shared by the owners of webhooks, so that names of one that hang leave threads for the others.
Fails: OSError as getaddrinfo does; BlockingIOError when the owner's threads hang, or all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable

from spokes.shares import Shares

log = logging.getLogger(__name__)

LOOKUP_COUNT_MAX = 32

Resolve = Callable[[str], list[str]]
_Answer = asyncio.Future[list[str]]


def resolve_by_system(host: str) -> list[str]:
    """Addresses as text, each once, in the system's order."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Lookups:
    def __init__(self, resolve: Resolve = resolve_by_system) -> None:
        self._resolve = resolve
        self._under_way: dict[str, _Answer] = {}
        self._shares = Shares(LOOKUP_COUNT_MAX)

    async def __call__(self, host: str, owner: str = "") -> list[str]:
        """`owner`: whose share of the threads it is."""
        answer = self._under_way.get(host)
        if answer is None:
            if not self._shares.may(owner):
                raise BlockingIOError(errno.EAGAIN, "too many names are being looked up")
            answer = asyncio.get_running_loop().create_future()
            # A daemon: the server's end waits for no name server.
            threading.Thread(target=self._look_up, args=(host, owner, answer), name="lookup", daemon=True).start()
            self._under_way[host] = answer
            self._shares.take(owner)
        return await asyncio.shield(answer)

    def _look_up(self, host: str, owner: str, answer: _Answer) -> None:
        addresses: list[str] = []
        failure: OSError | None = None
        try:
            addresses = self._resolve(host)
        except OSError as error:
            failure = error
        except UnicodeError:             # a label that is too long for the resolver
            failure = OSError(errno.EINVAL, "no host name")
        except Exception:                # whatever it is, those who wait must be told
            log.exception("name not looked up", extra={"host": host})
            failure = OSError(errno.EIO, "the look-up failed")
        with contextlib.suppress(RuntimeError):      # the loop has ended meanwhile
            answer.get_loop().call_soon_threadsafe(self._finish, host, owner, answer, addresses, failure)

    def _finish(
        self, host: str, owner: str, answer: _Answer, addresses: list[str], failure: OSError | None
    ) -> None:
        del self._under_way[host]
        self._shares.give_back(owner)
        if answer.done():
            return
        if failure is None:
            answer.set_result(addresses)
        else:
            answer.set_exception(failure)
            answer.exception()           # seen: those who waited may have given up
