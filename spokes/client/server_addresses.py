"""The server's addresses, looked up afresh for each attempt, and those found last while no name server answers.

Bound: one look-up of a name at a time. It goes on when nobody waits for it any more: the next attempt finds its answer.
Fails: NobodyThereError where the name was never found.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from spokes.client.reconnect import in_turn
from spokes.errors import NobodyThereError
from spokes.resolver import Resolve, literal_addresses

log = logging.getLogger(__name__)

# Where the last answer is known: name servers that are away must not keep the client away.
PATIENCE_S = 1.0
PATIENCE_AFTER_FAILURE_S = 0.2  # they were away last time; those that are back answer within this


class ServerAddresses:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._found: dict[str, list[str]] = {}  # the last answer about a name
        self._lookups: dict[str, asyncio.Task[list[str]]] = {}  # under way
        self._failed: set[str] = set()  # names whose last look-up failed, or came too late

    def seed(self, found: Mapping[str, Sequence[str]]) -> None:
        """Addresses that were found by an earlier run, for names that this one has not found yet."""
        for host, addresses in found.items():
            if addresses:
                self._found.setdefault(host, list(addresses))

    def found(self, host: str) -> Sequence[str]:
        """The last answer about a name."""
        return self._found.get(host, ())

    async def of(self, host: str) -> list[str]:
        """Literal addresses in the order to try."""
        if literal := literal_addresses(host):
            return list(literal)
        known = self._found.get(host)
        lookup = self._lookups.get(host)
        if lookup is None:
            lookup = self._lookups[host] = asyncio.create_task(self._look_up(host))
            lookup.add_done_callback(lambda done: self._finish(host, done))
        patience_s = PATIENCE_AFTER_FAILURE_S if host in self._failed else PATIENCE_S
        try:
            async with asyncio.timeout(patience_s if known else None):
                return in_turn(await asyncio.shield(lookup))
        except (OSError, TimeoutError) as error:
            self._failed.add(host)
            reason = getattr(error, "strerror", "") or str(error) or "look-up timed out"
            if known:
                log.warning("server's name not resolved; its last addresses are tried", extra={"reason": reason})
                return in_turn(known)
            raise NobodyThereError(
                f"cannot resolve {host}: {reason}", hint="check the server's name and this host's DNS"
            ) from None

    def stop(self) -> None:
        for lookup in self._lookups.values():
            lookup.cancel()

    async def _look_up(self, host: str) -> list[str]:
        found = self._found[host] = list((await self._resolve(host)).addresses)
        self._failed.discard(host)
        return found

    def _finish(self, host: str, done: asyncio.Task[list[str]]) -> None:
        del self._lookups[host]
        if not done.cancelled():
            done.exception()  # seen, also when nobody waits
