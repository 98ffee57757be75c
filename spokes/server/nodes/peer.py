"""One other node of the cluster: its links, whoever dialled them, and whether it is there.

Owns: the node's number in the engine and its slots by worker, from the first link to the last.
Bound: LINK_COUNT_MAX links that we dial, one at least to each of its workers; one dialling at a time for each.
Fails: a node that does not answer within SILENCE_S loses all its links at once, so that visitors go elsewhere; dialling
goes on, at growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.config_values import Address
from spokes.errors import HandshakeTimeoutError, NodeError, ProtocolError, SpokesError, UnreachableError
from spokes.server.sessions.link import Link
from spokes.wire.handshake import HELLO_DEADLINE_S
from spokes.wire.messages import Agent, Bye, Hello, Linked, Message, Node, Presence, Welcome

log = logging.getLogger(__name__)

LINK_COUNT_MAX = 64
HEARTBEAT_S = 1.0
SILENCE_S = 2.5  # of a node that is dead or stopped; with the time until it is noticed, three seconds
WHOLE_INTERVAL_S = 10.0  # the whole set of who is on-line, in case a difference was lost in a fault of ours
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0


class PeerState(StrEnum):
    CONNECTED = "connected"
    CONNECTING = "connecting"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """Another node, as the cluster's list has it."""

    uid: str
    hostname: str
    port: int
    public_key: str  # of its node key, base64
    pin_sha256: bytes  # of its link key


@dataclass(frozen=True, slots=True)
class Here:
    """What this node says of itself; shared by all peers."""

    uid: str
    incarnation: str  # of this run
    workers: int
    sign: Callable[[str, str, str], str]  # NodeKey.sign
    agent: Agent


M = TypeVar("M", bound=Message)
Dial = Callable[..., Awaitable[Link]]
Resolve = Callable[[str], Awaitable[tuple[str, ...]]]


class Peer:
    """`on_presence` is told what the node says, `on_change` when it came, went, or has a link more or less."""

    def __init__(
        self,
        info: NodeInfo,
        *,
        engine: Engine,
        here: Here,
        dial: Dial,
        resolve: Resolve,
        whole_set: Callable[[], Iterator[Presence]],
        on_presence: Callable[[Peer, Presence], None],
        on_begin: Callable[[Peer, str], None],
        on_change: Callable[[Peer], None],
    ) -> None:
        self.info = info
        self.number = engine.open_node()
        self.error = ""
        self._engine = engine
        self._here = here
        self._dial = dial
        self._resolve = resolve
        self._whole_set = whole_set
        self._on_presence = on_presence
        self._on_begin = on_begin
        self._on_change = on_change
        self._primary: Link | None = None
        self._links: dict[int, int] = {}  # link: the worker there that it leads to
        self._workers = 0  # that the node has
        self._incarnation = ""

    @property
    def state(self) -> PeerState:
        if self._primary is not None:
            return PeerState.CONNECTED
        return PeerState.UNREACHABLE if self.error else PeerState.CONNECTING

    @property
    def is_connected(self) -> bool:
        return bool(self._links)

    @property
    def link_count(self) -> int:
        return len(self._links)

    @property
    def rtt_ms(self) -> float:
        return self._engine.link_rtt_ms(self._primary.id) if self._primary is not None else 0.0

    # --- links that stand ---

    async def serve(self, link: Link, workers: int, worker: int, incarnation: str, *, primary: bool) -> None:
        """A link on which both have said who they are, until it is over. `worker`: of the node, that has it."""
        if self._incarnation and incarnation != self._incarnation and self._links:
            log.warning("node started anew, or is there twice", extra={"node": self.info.hostname, "peer": link.peer})
            self._cut()
        self._incarnation, self._workers = incarnation, workers
        self._links[link.id] = worker
        self._engine.bind_link(link.id, self._engine.node_worker(self.number, worker))
        try:
            if primary:
                await self._serve_primary(link, incarnation)
            else:
                self._on_change(self)
                await _until_bye(link)
        finally:
            self._links.pop(link.id, None)
            self._on_change(self)

    async def _serve_primary(self, link: Link, incarnation: str) -> None:
        if self._primary is not None:           # one that is dead for the node; we did not notice yet
            self._engine.abort_link(self._primary.id)
        self._primary, self.error = link, ""
        log.info("node connected", extra={"node": self.info.hostname, "peer": link.peer})
        self._on_begin(self, incarnation)
        self._on_change(self)
        beating = asyncio.get_running_loop().create_task(self._beat(link), name=f"heartbeat {self.info.hostname}")
        try:
            while True:
                match await link.receive():
                    case Presence() as told:
                        self._on_presence(self, told)
                    case Bye() as bye:
                        raise NodeError(f"the node ended the link: {bye.message or bye.code}")
        finally:
            beating.cancel()
            if self._primary is link:
                self._primary = None
                log.info("node disconnected", extra={"node": self.info.hostname})

    async def _beat(self, link: Link) -> None:
        """Tells the whole set now and then, and cuts a node that is silent."""
        told_s = -WHOLE_INTERVAL_S
        while True:
            now_s = clock.monotonic_s()
            if now_s - told_s >= WHOLE_INTERVAL_S:
                for part in self._whole_set():
                    link.send(part)
                told_s = now_s
            if not await link.is_there(SILENCE_S - HEARTBEAT_S):
                log.warning("node is silent", extra={"node": self.info.hostname})
                self.error = f"silent for {SILENCE_S:g} s"
                self._cut()
                return
            await asyncio.sleep(HEARTBEAT_S)

    def tell(self, presence: Presence) -> None:
        """A difference; the whole set tells it to who is not connected now."""
        if self._primary is not None:
            self._primary.send(presence)

    def _cut(self) -> None:
        for link_id in list(self._links):
            self._engine.abort_link(link_id)

    def close(self) -> None:
        """The node is in the cluster no longer, or we stop. Whoever runs `run` has ended it."""
        self._cut()
        self._engine.close_node(self.number)

    # --- links that we dial ---

    async def run(self) -> None:
        """Keeps the links; for the one of two nodes that dials."""
        pause_s = PAUSE_S_MIN
        while True:
            began_s = clock.monotonic_s()
            try:
                await self._keep_links()
                self.error = "the link was lost"
            except (SpokesError, OSError) as error:
                words = str(error) or type(error).__name__
                if words != self.error:
                    log.warning("node cannot be reached", extra={"node": self.info.hostname, "detail": words})
                self.error = words
            if clock.monotonic_s() - began_s > PAUSE_S_MAX:
                pause_s = PAUSE_S_MIN
            await asyncio.sleep(pause_s * (0.5 + random.random()))     # noqa: S311  spreads nodes, hides nothing
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _keep_links(self) -> None:
        """While the primary one stands. The first link tells how many workers there are."""
        addresses = await self._resolve(self.info.hostname)
        if not addresses:
            raise UnreachableError(f"{self.info.hostname} has no address")
        where = Address(addresses[0], self.info.port)
        link, linked = await self._open(where, 0, -1, primary=True)
        loop = asyncio.get_running_loop()
        additional = [
            loop.create_task(self._keep_additional(where, worker, peer_worker))
            for worker, peer_worker in _pairs(self._here.workers, linked.workers)
            if (worker, peer_worker) != (0, linked.worker)
        ]
        try:
            await self.serve(link, linked.workers, linked.worker, linked.incarnation, primary=True)
        finally:
            for task in additional:
                task.cancel()
            await asyncio.gather(*additional, return_exceptions=True)

    async def _keep_additional(self, where: Address, worker: int, peer_worker: int) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            try:
                link, linked = await self._open(where, worker, peer_worker, primary=False)
                pause_s = PAUSE_S_MIN
                await self.serve(link, linked.workers, linked.worker, linked.incarnation, primary=False)
            except (SpokesError, OSError) as error:
                log.debug("no additional link", extra={"node": self.info.hostname, "detail": str(error)})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def _open(self, where: Address, worker: int, peer_worker: int, *, primary: bool) -> tuple[Link, Linked]:
        """Dials, and says who we are."""
        link = await self._dial(where, self.info.pin_sha256, worker=worker, peer_worker=peer_worker)
        try:
            async with asyncio.timeout(HELLO_DEADLINE_S):
                link.send(Hello(versions=(1,), agent=self._here.agent, time=int(clock.wall_s())))
                welcome = _expect(Welcome, await link.receive())
                link.send(Node(
                    node=self._here.uid,
                    incarnation=self._here.incarnation,
                    worker=worker,
                    workers=self._here.workers,
                    signature=self._here.sign(welcome.nonce, self._here.uid, self.info.uid),
                    primary=primary,
                ))
                linked = _expect(Linked, await link.receive())
            if linked.node != self.info.uid:
                raise NodeError("another node answers there", hint="check the host name in the list of nodes")
        except TimeoutError:
            self._engine.abort_link(link.id)
            raise HandshakeTimeoutError("the node does not answer") from None
        except BaseException:
            self._engine.abort_link(link.id)
            raise
        return link, linked


def _expect(kind: type[M], message: Message) -> M:
    if isinstance(message, Bye):
        raise NodeError(f"the node refused the link: {message.message or message.code} [{message.code}]")
    if not isinstance(message, kind):
        raise ProtocolError(f"{type(message).__name__.lower()} in place of {kind.__name__.lower()}")
    return message


def _pairs(workers: int, peer_workers: int) -> list[tuple[int, int]]:
    """(worker here, worker there): each of theirs once, then again from another of ours, as far as links go."""
    pairs = [((there + turn) % workers, there) for turn in range(workers) for there in range(peer_workers)]
    return pairs[:LINK_COUNT_MAX]


async def _until_bye(link: Link) -> None:
    while not isinstance(await link.receive(), Bye):
        pass
