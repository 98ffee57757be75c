"""One node of the server: its session kept up for as long as it is wanted, with its links and its round-trip time.

A single server is the only node of itself. A node that is wanted for a watch has a control session, which proves that
it would take a login and serves nobody.
Owns: the node's tunnel in the engine, its session, the waits between attempts.
Fails: never by itself; a refusal for good is the owner's to judge.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from spokes.client.additional_links import AdditionalLinks
from spokes.client.endpoint import Endpoint
from spokes.client.engine import ClientEngine
from spokes.client.link import Link
from spokes.client.links import Links
from spokes.client.node_list import NodeAddress
from spokes.client.reconnect import Backoff
from spokes.client.rules_in_force import RulesInForce
from spokes.client.session import Session, log_in
from spokes.client.tasks import Tasks
from spokes.errors import (
    InternalError,
    NobodyThereError,
    RemoteError,
    ServerKeyError,
    SpokesError,
    UnreachableError,
)
from spokes.wire.messages import Ready

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 10.0
DRAIN_CHECK_INTERVAL_S = 0.1
PATH_ANSWER_S = 0.8  # for a PING after a change of the network, or three round trips where those take longer


class Wanted(enum.Enum):
    """What the node's session is wanted for."""

    NOTHING = "nothing"
    SERVE = "serve"
    WATCH = "watch"


class NodeOwner(Protocol):
    """What a node needs of the client."""

    def node_connecting(self, node: Node) -> None:
        """An attempt begins: another list of nodes may be due."""
        ...

    def node_served(self, node: Node) -> None:
        """The server has taken the login, and visitors may come; the rules are not announced yet."""
        ...

    async def node_online(self, node: Node) -> None: ...
    def node_watched(self, node: Node) -> None: ...
    def node_lost(self, node: Node, error: SpokesError, wait_s: float) -> None:
        """An attempt failed or a session ended; the next attempt begins after the wait."""
        ...

    def node_refused(self, node: Node, error: RemoteError) -> bool:
        """The server says that trying again is of no use. True: the client ends."""
        ...

    def address_changed(self, node: Node) -> None: ...
    def note_trouble(self, error: SpokesError) -> None: ...


class Node:
    def __init__(
        self,
        address: NodeAddress,
        owner: NodeOwner,
        engine: ClientEngine,
        links: Links,
        rules: RulesInForce,
        tasks: Tasks,
        *,
        endpoints: Sequence[Endpoint],
        key: str,
        backoff: Backoff,
    ) -> None:
        """`endpoints`: the node's address with each key that may be its own; tried in turn."""
        self.address = address
        self.state = "idle"  # idle | connecting | online | watched | waiting | draining
        self.role = ""  # in its cluster: "master", "replica", or "" where nobody has said
        self.since = time.monotonic()  # of the state
        self.online_since = 0.0  # Unix time
        self.session: Session | None = None  # that serves
        self.ready: Ready | None = None  # of the present or the last session
        self.refusal: RemoteError | None = None  # what the server refused for good last
        self.duplicate_of = ""  # another node whose name leads to the same server
        self.peer = ""  # address and port of the server that was asked for a session last
        self.tunnel = engine.open_tunnel()
        self.backoff = backoff
        self.additional = AdditionalLinks(
            engine, links, spawn=tasks.spawn, streams_open=self.streams_open, tunnel=self.tunnel
        )
        self._owner = owner
        self._engine = engine
        self._links = links
        self._rules = rules
        self._tasks = tasks
        self._endpoints = tuple(endpoints)
        self._key = key
        self._wanted = Wanted.NOTHING
        self._is_wanted = asyncio.Event()
        self._attempt: asyncio.Task[None] | None = None
        self._is_given_up = False  # the attempt, or the session, by us
        self._watch_link: Link | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._away_since = time.monotonic()  # when the last session that worked ended, or the first attempt began
        self._redial = asyncio.Event()  # another endpoint or key: no use in waiting
        self._network_changed = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None  # whether the links outlived a change of the network

    def __str__(self) -> str:
        return str(self.address)

    # what is wanted

    @property
    def wanted(self) -> Wanted:
        return self._wanted

    def want(self, wanted: Wanted) -> None:
        """Returns at once. A session that is wanted no more is drained first."""
        if wanted is self._wanted:
            return
        self._wanted = wanted
        if wanted is Wanted.NOTHING:
            self._is_wanted.clear()
        else:
            self._is_wanted.set()
        if self.session is not None:
            if wanted is not Wanted.SERVE:
                self.leave()
        elif self.state in ("connecting", "watched") or wanted is Wanted.NOTHING:
            self._give_up()

    def leave(self) -> asyncio.Task[None]:
        """No new streams; those open may end, within reason; then the session ends."""
        if self._leaving is None or self._leaving.done():
            self._leaving = self._tasks.spawn(self._leave())
        return self._leaving

    async def _leave(self) -> None:
        self._set_state("draining")
        self.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # Looked at again and again: the engine counts streams and does not tell of each.
                while self.streams_open():  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_CHECK_INTERVAL_S)
        links = self.open_links()
        self._is_given_up = self.session is not None
        for link in links:
            link.close()
        await asyncio.gather(*(link.wait_down() for link in links))

    def _give_up(self) -> None:
        """End an attempt, a watch or a wait at once."""
        if self._attempt is not None and not self._attempt.done():
            self._is_given_up = True
            self._attempt.cancel()

    # life

    async def run(self) -> None:
        """Keep up what is wanted, until cancelled."""
        while True:
            if not self._is_wanted.is_set():
                self._set_state("idle")
                await self._is_wanted.wait()
            self._is_given_up = False
            self._attempt = asyncio.create_task(self._attempt_once())
            try:
                await self._attempt
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            if self._is_given_up:
                self.session = None

    async def _attempt_once(self) -> None:
        """One session from the login to its end, and the wait after it."""
        self._set_state("connecting")
        self._owner.node_connecting(self)
        try:
            if self._wanted is Wanted.WATCH:
                await self._watch_once()
            else:
                await self._serve_once()
        except RemoteError as error:
            if self._is_given_up:
                return
            if error.retryable:
                await self._wait(error, error.retry_after_s)
                return
            self.refusal = error
            self.session = None
            if self._owner.node_refused(self, error):
                await asyncio.Event().wait()
            await self._wait(error, 0.0)
        except SpokesError as error:
            if not self._is_given_up:
                await self._wait(error, self.session.retry_after_s if self.session else 0.0)
        except Exception:
            log.exception("session failed")
            await self._wait(InternalError("the client failed; its log says why"), 0.0)

    async def _serve_once(self) -> None:
        """Always raises."""
        self._redial.clear()
        self._network_changed.clear()
        await self._rules.serve_first()  # routes before streams, which may come right behind `ready`
        link, ready, endpoint = await self._log_in(Wanted.SERVE)
        if self._redial.is_set():
            link.abort()
            raise UnreachableError("the configuration changed meanwhile")
        session = Session(
            link,
            ready,
            on_config=lambda config: self._rules.take_config(session, config),
            on_address=lambda: self._take_address(session),
            on_delayed=self._rules.take_delayed,
            on_late=lambda services, accepted: self._rules.take_late(session, services, accepted),
            on_resumed=lambda services: self._rules.take_resumed(session, services),
            next_link=self.additional.take_next,
            node=str(self.address),
        )
        reading = self._tasks.spawn(session.run())

        def served() -> None:
            self.session, self.ready, self.refusal = session, session.ready, None
            self.additional.begin(session, endpoint)
            self._owner.node_served(self)

        try:
            await self._rules.begin(session, served)
            await self._rules.announce_first(session)
            self.online_since = time.time()
            self._set_state("online")
            await self._owner.node_online(self)
            await reading
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not self._is_given_up:
                raise  # the client ends, and says so over the links that are open
            reading.cancel()
            session.link.abort()
            self.additional.abort()
            raise

    async def _watch_once(self) -> None:
        """Always raises."""
        self._redial.clear()
        link, ready, _ = await self._log_in(Wanted.WATCH)
        self._watch_link = link
        reading = self._tasks.spawn(Session(link, ready).run())
        try:
            self._set_state("watched")
            self._owner.node_watched(self)
            await reading
        finally:
            reading.cancel()
            self._watch_link = None
            link.close()

    async def _log_in(self, wanted: Wanted) -> tuple[Link, Ready, Endpoint]:
        """Fails with the key that was refused where none of the endpoints is the right one."""
        is_serving = wanted is Wanted.SERVE
        refused = ServerKeyError("no key is known for the node")
        for endpoint in self._endpoints:
            try:
                link, ready = await log_in(
                    self._links,
                    endpoint,
                    key=self._key,
                    mode="serve" if is_serving else "control",
                    bind=self._bind if is_serving else None,
                )
            except ServerKeyError as error:
                refused = error
                continue
            others = (one for one in self._endpoints if one is not endpoint)
            self._endpoints = (endpoint, *others)  # next time its key is tried first
            return link, ready, endpoint
        raise refused

    def _bind(self, link: Link) -> None:
        self.peer = link.peer
        self.additional.bind(link)

    async def _wait(self, error: SpokesError, retry_after_s: float) -> None:
        if self.state in ("online", "watched"):  # however short: what counts is that it worked
            self.backoff.reset()
            self._away_since = time.monotonic()
        self.session = None
        self._set_state("waiting")
        nobody_since_s = time.monotonic() - self._away_since if isinstance(error, NobodyThereError) else None
        wait_s = self.backoff.next_wait_s(retry_after_s, nobody_since_s=nobody_since_s)
        self._owner.node_lost(self, error, wait_s)
        deadline = time.monotonic() + wait_s
        while not self._redial.is_set() and (left_s := deadline - time.monotonic()) > 0:
            await self._wait_for_news(left_s)
            if self._network_changed.is_set() and not retry_after_s:
                self._network_changed.clear()
                self.backoff.reset()
                deadline = min(deadline, time.monotonic() + self.backoff.next_wait_s())

    async def _wait_for_news(self, within_s: float) -> None:
        """Until the configuration or the network changed, or the time is over."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._redial, self._network_changed)]
        try:
            await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _set_state(self, state: str) -> None:
        if state != self.state:
            self.state, self.since = state, time.monotonic()

    def _take_address(self, session: Session) -> None:
        if self.session is session and self.state == "online":
            self.ready = session.ready
            self._owner.address_changed(self)

    # changes from outside

    def redial(self, endpoints: Sequence[Endpoint], key: str) -> None:
        """Begin a new session there, with that key."""
        self._endpoints, self._key = tuple(endpoints), key
        self._redial.set()
        self.additional.abort()
        if self.session is not None:
            self.session.link.close(message="configuration changed")
        elif self._watch_link is not None:
            self._watch_link.close(message="configuration changed")

    def close(self) -> None:
        """The session ends at once: the configuration names another server."""
        self.additional.abort()
        for link in self.open_links():
            link.close(message="configuration changed")

    def network_changed(self) -> None:
        """Another address, another route, or back from a suspend: what kept the node away may be over, and what seems
        to be up may be dead."""
        self._network_changed.set()
        if self.open_links() and (self._checking is None or self._checking.done()):
            self._checking = self._tasks.spawn(self._check_links())

    async def _check_links(self) -> None:
        """Give up links on which the server does not answer: their deadline is far, and a new one is quick."""
        links = self.open_links()
        for link in links:
            link.ask()
        within_s = max(PATH_ANSWER_S, 3 * self.rtt_ms() / 1000)
        answers = await asyncio.gather(*(link.wait_answered(within_s) for link in links))
        for link in (link for link, answered in zip(links, answers, strict=True) if not answered):
            if link.ended is None:
                log.info("link given up", extra={"reason": "no answer after a change of the network"})
                link.abort()

    def drain(self) -> None:
        """No new streams."""
        for link in self.open_links():
            self._engine.drain_link(link.id)

    # figures

    @property
    def is_online(self) -> bool:
        return self.state == "online" and self.session is not None and self.session.ended is None

    def open_links(self) -> list[Link]:
        first = [self.session.link] if self.session is not None else []
        watch = [self._watch_link] if self._watch_link is not None else []
        return [link for link in (*first, *self.additional.links, *watch) if link.ended is None]

    def streams_open(self) -> int:
        return self._engine.tunnel_counters(self.tunnel)[2]

    def traffic_bytes(self) -> tuple[int, int]:
        """From visitors, to visitors. The engine counts into links and out of them, named as the server sees it."""
        to_visitors, from_visitors, *_ = self._engine.tunnel_counters(self.tunnel)
        return from_visitors, to_visitors

    def rtt_ms(self) -> float:
        return self._engine.link_rtt_ms(self.session.link.id) if self.session is not None else 0.0
