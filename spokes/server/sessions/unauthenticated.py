"""Links that have not said yet who they are: hello, welcome, and the one thing that they ask.

Bound: UNAUTHENTICATED_COUNT_MAX of them, UNAUTHENTICATED_COUNT_PER_SOURCE_MAX from one address, a deadline for each.
Fails: whatever one of them sends ends it and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

import spokes
from spokes import clock
from spokes.errors import HandshakeTimeoutError, ProtocolError, VersionError
from spokes.server.sessions.link import Link
from spokes.wire.handshake import HELLO_DEADLINE_S
from spokes.wire.messages import Agent, Hello, Message, ServerInfo, Welcome, choose_version

log = logging.getLogger(__name__)

UNAUTHENTICATED_COUNT_MAX = 4096
UNAUTHENTICATED_COUNT_PER_SOURCE_MAX = 1024
CLOCK_SKEW_S_MAX = 300.0  # more than that is worth a line in the log; the client hears our time in welcome


class UnauthenticatedLinks:
    """Counts them by source, and meets each."""

    def __init__(self, domain: str, *, deadline_s: float = HELLO_DEADLINE_S) -> None:
        self._domain = domain
        self._counts: Counter[str] = Counter()
        self.deadline_s = deadline_s
        self.on_client_clock: Callable[[str, float], None] = _ignore

    def are_too_many(self, source: str) -> bool:
        of_source = self._counts[source]
        return self._counts.total() >= UNAUTHENTICATED_COUNT_MAX or of_source >= UNAUTHENTICATED_COUNT_PER_SOURCE_MAX

    async def meet(self, link: Link) -> tuple[Agent, Message]:
        """Hello and what follows it, within the deadline."""
        self._count(link.source, 1)
        try:
            async with asyncio.timeout(self.deadline_s):
                hello = await link.receive()
                if not isinstance(hello, Hello):  # the handshake lets nothing else but a bye through
                    raise ProtocolError("bye before hello")
                self._welcome(link, hello)
                return hello.agent, await link.receive()
        except TimeoutError:
            raise HandshakeTimeoutError(f"no login within {self.deadline_s:g} s") from None
        finally:
            self._count(link.source, -1)

    def _welcome(self, link: Link, hello: Hello) -> None:
        version = choose_version(hello.versions)
        if version is None:
            raise VersionError("no protocol version in common", hint="bring client and server to the same release")
        now = clock.wall_s()
        self.on_client_clock(link.source, hello.time - now)
        if abs(hello.time - now) > CLOCK_SKEW_S_MAX:
            log.warning("client's clock is wrong", extra={"peer": link.peer, "skew_s": round(hello.time - now)})
        server = ServerInfo(version=spokes.__version__, domain=self._domain)
        link.send(Welcome(version=version, server=server, time=int(now), nonce=link.nonce))

    def _count(self, source: str, step: int) -> None:
        """Without leaving zeros behind."""
        self._counts[source] += step
        if self._counts[source] <= 0:
            del self._counts[source]


def _ignore(_source: str, _skew_s: float) -> None:
    """Nobody compares clocks."""
