"""Names of local services, resolved for the engine, which wants literal addresses.

Literal addresses and `localhost` need no look-up and are never waited for. Other names are looked up again when their
answer's lifetime is over, when the hosts file changes, and at once after the engine could not reach an address. While a
look-up fails, the last addresses stay in use.
Bound: LOOKUP_COUNT_MAX look-ups at once, LOOKUPS_PER_S_MAX in the long run, however many names there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from spokes import clock
from spokes.resolver import LIFETIME_S_MAX, Resolve, literal_addresses

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # how long a change of rules waits for names: one dead name must not hold up the others
CHECK_INTERVAL_S = 1.0  # between checks of the hosts file, and between look-ups of one name
LOOKUP_COUNT_MAX = 16
LOOKUPS_PER_S_MAX = 50


@dataclass(slots=True)
class _Name:
    addresses: tuple[str, ...] = ()
    asked_at: float = 0.0  # by the monotonic clock, as all times here
    due_at: float = 0.0
    failures: int = 0  # since it was last found
    again: bool = False  # reported again while it was being looked up


class ServiceAddresses:
    """The addresses of every name in use; `on_change` is called when a look-up that nobody waits for found others."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        files_version: Callable[[], int] = lambda: 0,
        check_interval_s: float = CHECK_INTERVAL_S,
        patience_s: float = PATIENCE_S,
        now: Callable[[], float] = clock.monotonic_s,
    ) -> None:
        """`files_version`: another number when a file that decides about names was written; all are looked up again."""
        self._resolve = resolve
        self._files_version = files_version
        self._version_seen = files_version()
        self._check_interval_s = check_interval_s
        self._patience_s = patience_s
        self._now = now
        self._names: dict[str, _Name] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._waited_for: set[str] = set()  # first look-ups, whose answer use() itself brings
        self._slots = asyncio.Semaphore(LOOKUP_COUNT_MAX)
        self._wake = asyncio.Event()
        self.on_change: Callable[[], None] = lambda: None

    def addresses(self, host: str) -> tuple[str, ...]:
        """What is known now; () while a name has never been found."""
        if literal := literal_addresses(host):
            return literal
        name = self._names.get(host)
        return name.addresses if name is not None else ()

    async def use(self, hosts: set[str]) -> None:
        """These names and no others are in use; waits for the first look-ups of new ones, but not for slow ones."""
        names = {host for host in hosts if not literal_addresses(host)}
        for host in self._names.keys() - names:
            del self._names[host]
        new = names - self._names.keys()
        if not new:
            return
        self._waited_for |= new
        for host in new:
            self._names[host] = _Name()
        try:
            await asyncio.wait([self._ask(host) for host in new], timeout=self._patience_s)
        finally:
            self._waited_for -= new
            self._wake.set()

    def report(self, host: str) -> None:
        """An address of the name was refused or cannot be reached: it may have moved."""
        name = self._names.get(host)
        if name is None:
            return
        if host in self._asking:
            name.again = True
        name.due_at = min(name.due_at, name.asked_at + self._check_interval_s)
        self._wake.set()

    async def run(self) -> None:
        """Look names up again when they are due."""
        try:
            while True:
                self.ask_due()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s()):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            for task in list(self._asking.values()):
                task.cancel()

    def ask_due(self) -> None:
        if self._names and (version := self._files_version()) != self._version_seen:
            self._version_seen = version
            for name in self._names.values():
                name.due_at = 0.0
        now = self._now()
        for host, name in self._names.items():
            if name.due_at <= now and host not in self._asking:
                self._ask(host)

    def _wait_s(self) -> float | None:
        """Until the next check of the files, or for ever while there are no names."""
        if not self._names:
            return None
        now = self._now()
        waits = (name.due_at - now for host, name in self._names.items() if host not in self._asking)
        return max(min(self._check_interval_s, *waits, self._check_interval_s), 0.0)

    def _ask(self, host: str) -> asyncio.Task[None]:
        """One look-up of a name at a time; everybody waits for the same."""
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = asyncio.create_task(self._look_up(host))
            task.add_done_callback(lambda done: self._asked(host, done))
        return task

    def _asked(self, host: str, done: asyncio.Task[None]) -> None:
        self._asking.pop(host, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("addresses of a service not taken", extra={"host": host}, exc_info=error)

    async def _look_up(self, host: str) -> None:
        async with self._slots:
            name = self._names.get(host)
            if name is None:
                return
            name.asked_at = self._now()
            name.again = False
            try:
                answer = await self._resolve(host)
            except Exception as error:  # whatever it is, the name is asked for again
                if name.failures == 0:  # once, not every time
                    log.warning(
                        "service name not resolved", extra={"host": host, "reason": str(error) or "timed out"},
                        exc_info=None if isinstance(error, OSError) else error,
                    )
                name.failures = min(name.failures + 1, 10)
                self._plan(name, self._check_interval_s * 2**name.failures)
                return
        self._plan(name, answer.lifetime_s)
        name.failures = 0
        before, name.addresses = name.addresses, answer.addresses
        if set(before) != set(name.addresses):  # rotated answers are no change
            if before:
                log.info("service moved", extra={"host": host, "addresses": ", ".join(answer.addresses)})
            if host not in self._waited_for and self._names.get(host) is name:
                self.on_change()
        else:
            name.addresses = before

    def _plan(self, name: _Name, wait_s: float) -> None:
        """Not before the interval has passed, nor more often than all names together may be asked for."""
        least_s = max(self._check_interval_s, len(self._names) / LOOKUPS_PER_S_MAX)
        most_s = max(least_s, LIFETIME_S_MAX)
        name.due_at = name.asked_at + (least_s if name.again else min(max(wait_s, least_s), most_s))
