"""Names of local services, resolved for the engine, which wants literal addresses.

Literal addresses and `localhost` need no look-up and are never waited for. Other names are looked up in
the event loop's executor and again every `refresh_interval_s`; while a look-up fails, the last addresses stay in use.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

Lookup = Callable[[str], Awaitable[list[str]]]

LOCALHOST_ADDRESSES = ("127.0.0.1", "::1")  # both, in turn: a service may listen on either
LOOKUP_TIMEOUT_S = 10.0
PATIENCE_S = 2.0  # how long a change of rules waits for names: one dead name must not hold up the others


def literal_addresses(host: str) -> tuple[str, ...]:
    """Addresses that need no look-up: () for a name."""
    bare = host.strip("[]")
    if bare.lower().rstrip(".").rpartition(".")[2] == "localhost":  # and all below it: RFC 6761, 6.3
        return LOCALHOST_ADDRESSES
    try:
        return (str(ipaddress.ip_address(bare)),)
    except ValueError:
        return ()


async def lookup_system(host: str) -> list[str]:
    """All addresses of a name, in the order the system prefers. OSError when there is none."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_TIMEOUT_S):
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{host!r} is no host name") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """The addresses of every name in use; `on_change` is called when a look-up that nobody waits for found others."""

    def __init__(
        self, *, lookup: Lookup = lookup_system, refresh_interval_s: float = 30.0, patience_s: float = PATIENCE_S
    ) -> None:
        self._lookup = lookup
        self._refresh_interval_s = refresh_interval_s
        self._patience_s = patience_s
        self._known: dict[str, tuple[str, ...]] = {}
        self._failing: set[str] = set()
        self._late: set[asyncio.Task[bool]] = set()
        self.on_change: Callable[[], None] = lambda: None

    def addresses(self, host: str) -> tuple[str, ...]:
        """What is known now; () while a name has never been found."""
        return literal_addresses(host) or self._known.get(host, ())

    async def use(self, hosts: set[str]) -> None:
        """These names and no others are in use; waits for the first look-ups of new ones, but not for slow ones."""
        names = {host for host in hosts if not literal_addresses(host)}
        for host in self._known.keys() - names:
            del self._known[host]
            self._failing.discard(host)
        asking = [asyncio.create_task(self._refresh_one(host)) for host in names - self._known.keys()]
        if not asking:
            return
        _, late = await asyncio.wait(asking, timeout=self._patience_s)
        for task in late:
            self._late.add(task)
            task.add_done_callback(self._take_late)

    def _take_late(self, task: asyncio.Task[bool]) -> None:
        self._late.discard(task)
        if not task.cancelled() and task.result():
            self.on_change()

    async def refresh(self) -> bool:
        """Look every name up again; True when an address changed."""
        changed = await asyncio.gather(*(self._refresh_one(host) for host in list(self._known)))
        return any(changed)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_interval_s)
            if await self.refresh():
                self.on_change()

    async def _refresh_one(self, host: str) -> bool:
        before = self._known.setdefault(host, ())
        try:
            found = tuple(await self._lookup(host))
        except (OSError, TimeoutError) as error:
            if host not in self._failing:  # once, not every interval
                self._failing.add(host)
                log.warning("service name not resolved", extra={"host": host, "reason": str(error) or "timed out"})
            return False
        if host not in self._known:  # dropped while we asked
            return False
        self._failing.discard(host)
        self._known[host] = found
        return set(found) != set(before)  # rotated answers are no change
