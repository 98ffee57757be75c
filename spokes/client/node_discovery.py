"""Discovery of the server's nodes: SRV records asked for each new session and when their lifetime is over.

The last good list stays in force while DNS is down: in memory, and on disk for the next start (node_file.py). A name
without SRV records is a single server.
Bound: one question at a time, none sooner than ASK_INTERVAL_S_MIN after the last one.
Fails: it cannot; a question without an answer is a line in the log, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from spokes.client.node_file import NodeFile
from spokes.client.node_list import SRV_PREFIX, NodeAddress, NodeList, read_records
from spokes.resolver import ServiceAnswer, literal_addresses

log = logging.getLogger(__name__)

ASK_INTERVAL_S_MIN = 5.0
ASK_INTERVAL_S_MAX = 300.0
RETRY_INTERVAL_S = 10.0  # after a question that got no answer
FIRST_PATIENCE_S = 1.0  # how long a start waits for the first answer: a single server must not wait for a dead DNS

AskServices = Callable[[str], Awaitable[ServiceAnswer]]


class NodeDiscovery:
    """`nodes` is what is known now; `on_change` is called when it is another list."""

    def __init__(self, ask: AskServices, host: str, port: int, *, file: NodeFile | None = None) -> None:
        self._ask = ask
        self._file = file
        self.on_change: Callable[[], None] = lambda: None
        self._question: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.use(host, port)

    def use(self, host: str, port: int) -> None:
        """Another server from now on: until the first answer the nodes on disk, or else the name alone."""
        self.host, self._port = host, port
        self._has_answer = self._is_failing = False
        self._asked_at = self._due_at = 0.0
        stored = self._file.read(host) if self._file is not None else ()
        self.list = NodeList(stored or (NodeAddress(host, port),))
        if self._question is not None:
            self._question.cancel()
        self._wake.set()

    @property
    def nodes(self) -> tuple[NodeAddress, ...]:
        return self.list.nodes

    @property
    def problem(self) -> str:
        return self.list.problem

    @property
    def is_single(self) -> bool:
        """The name alone is the server."""
        return [node.key for node in self.nodes] == [(self.host, self._port)]

    async def first(self) -> tuple[NodeAddress, ...]:
        """The nodes for a first session: waits a little for DNS."""
        if not literal_addresses(self.host):
            await asyncio.wait([self._begin()], timeout=FIRST_PATIENCE_S)
        return self.nodes

    def ask_soon(self) -> None:
        """A new session is due: the list may be another one by now. Returns at once."""
        self._due_at = min(self._due_at, self._asked_at + ASK_INTERVAL_S_MIN)
        self._wake.set()

    async def run(self) -> None:
        """Ask when it is due, until cancelled."""
        try:
            while True:
                self._wake.clear()
                if literal_addresses(self.host):
                    await self._wake.wait()
                    continue
                left_s = self._due_at - time.monotonic()
                if left_s <= 0:
                    await asyncio.wait([self._begin()])
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._wake.wait()
        finally:
            self.stop()

    def stop(self) -> None:
        if self._question is not None:
            self._question.cancel()

    def _begin(self) -> asyncio.Task[None]:
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._ask_once(self.host, self._port))
        return self._question

    async def _ask_once(self, host: str, port: int) -> None:
        self._asked_at = time.monotonic()
        self._due_at = self._asked_at + RETRY_INTERVAL_S
        try:
            answer = await self._ask(SRV_PREFIX + host)
        except OSError as error:
            if not self._is_failing:
                self._is_failing = True
                reason = error.strerror or str(error) or "timed out"
                log.warning(
                    "nodes not asked for; the last known ones stay", extra={"name": SRV_PREFIX + host, "reason": reason}
                )
            return
        self._is_failing = False
        lifetime_s = answer.lifetime_s if answer.records else ASK_INTERVAL_S_MAX
        self._due_at = self._asked_at + min(max(lifetime_s, ASK_INTERVAL_S_MIN), ASK_INTERVAL_S_MAX)
        self._take(read_records(host, port, answer), is_cluster=bool(answer.records))

    def _take(self, found: NodeList, *, is_cluster: bool) -> None:
        before, self.list = self.list, found
        first, self._has_answer = not self._has_answer, True
        if found.problem and found.problem != before.problem:
            log.warning("nodes in DNS are not as they should be", extra={"reason": found.problem})
        if self._file is not None:
            if is_cluster:
                self._file.write(found.nodes)
            elif found.nodes:
                self._file.remove()
        if found != before or first:
            log.info("nodes", extra={"nodes": ", ".join(map(str, found.nodes))})
            self.on_change()
