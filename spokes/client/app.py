"""The running client: one engine, one session kept up for ever, the rules it serves, and what it reports.

Owns: the engine's life, reconnecting, additional links, draining. Policy only; the engine moves the bytes.
Fails: only for what trying again cannot mend (the server said so: `bye` without retry). A network fault never ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from spokes._fastpath.engine import Directory
from spokes.client.additional_links import AdditionalLinks
from spokes.client.config import ClientConfig
from spokes.client.configured_rules import Rules
from spokes.client.console import Console, Trouble
from spokes.client.endpoint import Endpoint
from spokes.client.engine import ClientEngine
from spokes.client.health_reports import HealthReporter
from spokes.client.link import Link
from spokes.client.links import Links
from spokes.client.network import NetworkWatch
from spokes.client.reconnect import Backoff
from spokes.client.routes import Routes
from spokes.client.rules_in_force import RulesInForce
from spokes.client.service_addresses import ServiceAddresses
from spokes.client.service_health import ServiceHealth
from spokes.client.session import Session, log_in
from spokes.client.tasks import Tasks
from spokes.client.webroots import WebRoots
from spokes.config_values import Address
from spokes.errors import InternalError, NobodyThereError, RemoteError, SpokesError, UnreachableError
from spokes.resolver import Resolver
from spokes.supervisor import Supervisor
from spokes.tcp_memory import TcpMemoryWatch
from spokes.wire.messages import Fault, Ready
from spokes.wire.rules import Port, Site

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 10.0
PATH_ANSWER_S = 0.8  # for a PING after a change of the network, or three round trips where those take longer
ERRORS_SHOWN = 5


class App:
    def __init__(
        self,
        engine: ClientEngine,
        *,
        endpoint: Endpoint,
        key: str,
        rules: Rules,
        console: Console,
        resolver: Resolver | None = None,
        name_servers: Callable[[ClientConfig], Sequence[Address]] = ClientConfig.name_servers,
        removed_drain_s: float = 0.0,
        backoff: Backoff | None = None,
        reread: Callable[[], ClientConfig] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.state = "connecting"  # connecting | online | waiting | draining
        self.online_since = 0.0  # Unix time
        self.ready: Ready | None = None  # of the present or the last session
        self.troubles: deque[Trouble] = deque(maxlen=ERRORS_SHOWN)
        self.service_health = ServiceHealth()
        self._engine = engine
        self._key = key
        self._console = console
        self._tasks = Tasks()
        self._resolver = resolver = resolver or Resolver()
        self._name_servers = name_servers  # of a configuration that is read again
        self._links = Links(engine, resolve=resolver.addresses)
        self._addresses = ServiceAddresses(resolver.addresses, files_version=resolver.files_version)
        self._web_roots = WebRoots(Directory)
        self._routes = Routes(engine, self._addresses, self._web_roots, removed_drain_s=removed_drain_s)
        self._links.on_upstream_fault = self._routes.take_fault
        self.rules = RulesInForce(rules, self._routes, self, spawn=self._tasks.spawn)
        self._backoff = backoff or Backoff()
        self._tunnel = 0
        self._away_since = 0.0  # monotonic: when the last session that worked ended, or the first attempt began
        self._session: Session | None = None
        self._stopped = asyncio.Event()
        self._ended_by: RemoteError | None = None  # the server: for good
        self._drain_first = False
        self._force_stop = asyncio.Event()
        self.supervisor = Supervisor(on_failed=self._task_failed)
        self._reread = reread
        self._reloading = asyncio.Lock()
        self._network_changed = asyncio.Event()
        self._checking: asyncio.Task[Any] | None = None  # whether the links outlived a change of the network
        self._redial = asyncio.Event()  # the configuration names another server or key: no use in waiting
        self._additional = AdditionalLinks(
            engine, self._links, spawn=self._tasks.spawn, streams_open=self.streams_open
        )
        self._links.on_link_wanted = self._additional.want

    # life

    async def run(self) -> None:
        """Serve until `stop`. Raises only what ends the tunnel for good."""
        self._engine.start()
        self._links.start()
        try:
            self._tunnel = self._engine.open_tunnel()
            health = HealthReporter(
                self.service_health,
                self._routes,
                online_session=self._online_session,
                on_changes=lambda changes: self._console.health_changed(changes),
            )
            self._away_since = time.monotonic()
            keep = self.supervisor.keep
            keep("session", self._serve_for_ever)
            keep("display", lambda: self._console.run(self))
            keep("service addresses", self._addresses.run)
            keep("web roots", self._web_roots.run)
            keep("health", health.run)
            keep("additional links", self._additional.tend)
            keep("network", NetworkWatch(self.network_changed).run)
            keep("kernel memory", TcpMemoryWatch(self._engine).run)
            await self._stopped.wait()
            if self._ended_by is not None:
                raise self._ended_by
            if self._drain_first:
                await self._unless_forced(self._drain())
        finally:
            await self.supervisor.stop()
            await self._tasks.cancel()
            await self._close_links()
            self._links.stop()
            self._engine.stop()

    def stop(self, *, drain: bool) -> None:
        """End: at once, or after the open streams had a while to end. A second call forces the stop: nothing that the
        first one began is waited for."""
        if self._stopped.is_set():
            self._force_stop.set()
            return
        self._drain_first = drain
        self._stopped.set()

    async def _serve_for_ever(self) -> None:
        """Ends with `stop`, or by the server's word."""
        while self._ended_by is None:
            self.state = "connecting"
            self._console.connecting()
            try:
                await self._serve_once()
            except RemoteError as error:
                if not error.retryable:
                    self._ended_by = error
                    self._stopped.set()
                    continue
                await self._wait(error, error.retry_after_s)
            except SpokesError as error:
                await self._wait(error, self._session.retry_after_s if self._session else 0.0)
            except Exception:
                log.exception("session failed")
                await self._wait(InternalError("the client failed; its log says why"), 0.0)
        await asyncio.Event().wait()

    async def _wait(self, error: SpokesError, retry_after_s: float) -> None:
        if self.state == "online":  # however short: what counts is that it worked
            self._backoff.reset()
            self._away_since = time.monotonic()
        self._session = None
        self.state = "waiting"
        nobody_since_s = time.monotonic() - self._away_since if isinstance(error, NobodyThereError) else None
        wait_s = self._backoff.next_wait_s(retry_after_s, nobody_since_s=nobody_since_s)
        self.note_trouble(error)
        self._console.offline(error, wait_s)
        deadline = time.monotonic() + wait_s
        while not self._redial.is_set() and (left_s := deadline - time.monotonic()) > 0:
            await self._wait_for_news(left_s)
            if self._network_changed.is_set() and not retry_after_s:
                self._network_changed.clear()
                self._backoff.reset()
                deadline = min(deadline, time.monotonic() + self._backoff.next_wait_s())

    async def _wait_for_news(self, within_s: float) -> None:
        """Until the configuration or the network changed, or the time is over."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._redial, self._network_changed)]
        try:
            await asyncio.wait(waiting, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def network_changed(self) -> None:
        """Another address, another route, or back from a suspend: what kept the client away may be over, and what
        seems to be up may be dead."""
        self._network_changed.set()
        if self._session is not None and (self._checking is None or self._checking.done()):
            self._checking = self._tasks.spawn(self._check_links())

    async def _check_links(self) -> None:
        """Give up links on which the server does not answer: their deadline is far, and a new one is quick."""
        links = self._open_links()
        for link in links:
            link.ask()
        within_s = max(PATH_ANSWER_S, 3 * self.rtt_ms() / 1000)
        answers = await asyncio.gather(*(link.wait_answered(within_s) for link in links))
        for link in (link for link, answered in zip(links, answers, strict=True) if not answered):
            if link.ended is None:
                log.info("link given up", extra={"reason": "no answer after a change of the network"})
                link.abort()

    async def _serve_once(self) -> None:
        """One session from login to its end; always raises."""
        self._redial.clear()
        self._network_changed.clear()
        if self.ready is None:
            await self.rules.serve()  # routes before streams, which may come right behind `ready`
        endpoint = self.endpoint
        link, ready = await log_in(self._links, endpoint, key=self._key, mode="serve", bind=self._bind)
        if self._redial.is_set():
            link.abort()
            raise UnreachableError("the configuration changed meanwhile")
        session = Session(
            link,
            ready,
            on_config=self.rules.take_config,
            on_address=self._take_address,
            on_delayed=self.rules.take_delayed,
            on_late=self.rules.take_late,
            on_resumed=self.rules.take_resumed,
            next_link=self._additional.take_next,
        )
        self.rules.forget_remote()
        reading = self._tasks.spawn(session.run())

        def served() -> None:
            self._session, self.ready = session, session.ready
            self._additional.begin(session, endpoint, self._tunnel)

        try:
            await self.rules.begin(ready, served)
            await self.rules.announce_first(session)
            self.state, self.online_since = "online", time.time()
            await self._console.online(self)
            await reading
        except Exception:
            reading.cancel()
            session.link.abort()
            self._additional.abort()
            raise

    def _bind(self, link: Link) -> None:
        self._engine.bind_link(link.id, self._tunnel)

    # the configuration file

    def reload(self) -> None:
        """Read the configuration file again; returns at once."""
        self._tasks.spawn(self._reload())

    async def _reload(self) -> None:
        """What did not change is not touched: another server or key begins a new session, other rules are announced. A
        file that cannot be taken changes nothing."""
        async with self._reloading:
            try:
                assert self._reread is not None
                config = self._reread()
                config.require_identity()
                endpoint = Endpoint.of(config)
                self._routes.removed_drain_s = config.removed_drain_s
                self._resolver.use_servers(self._name_servers(config))
                if (endpoint, config.key) != (self.endpoint, self._key):
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "new"})
                    self.endpoint, self._key = endpoint, config.key
                    self._redial.set()
                    self._additional.abort()
                    if self._session is not None:
                        self._session.link.close(message="configuration changed")
                elif self.rules.differ_from_file():
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "same"})
                    await self.rules.apply()
            except SpokesError as error:
                log.error("configuration not taken", extra={"code": error.code, "detail": error.line()})
                self.note_trouble(error)
            except Exception:
                log.exception("configuration not taken")
                self.note_trouble(InternalError("the configuration could not be taken; the client's log says why"))

    async def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """A request to the server over the present session."""
        if self._session is None:
            raise UnreachableError("not connected to the server", hint="try again when the client is on-line")
        return await self._session.request(op, args)

    # for the rules and the health of services

    def present_session(self) -> Session | None:
        return self._session

    def is_online(self) -> bool:
        return self.state == "online"

    def _take_address(self) -> None:
        if self._session is not None and self.is_online():
            self.ready = self._session.ready
            self._console.changed(self)

    def _online_session(self) -> Session | None:
        session = self._session
        return session if session is not None and session.ended is None and self.is_online() else None

    def rules_changed(self) -> None:
        self._console.changed(self)

    def rules_delayed(self, error: SpokesError) -> None:
        self._console.delayed(self, error)

    # the end

    async def _drain(self) -> None:
        """No new streams; those open may end, within reason."""
        self.state = "draining"
        for link in self._open_links():
            self._engine.drain_link(link.id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # Looked at again and again: the engine counts streams and does not tell of each.
                while self.streams_open():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    async def _close_links(self) -> None:
        for link in self._open_links():
            link.close()
        await self._unless_forced(self._links.wait_all_down())

    async def _unless_forced(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for `work`, but not once the stop is forced."""
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(work), asyncio.create_task(self._force_stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _open_links(self) -> list[Link]:
        first = [self._session.link] if self._session is not None else []
        return [link for link in (*first, *self._additional.links) if link.ended is None]

    def _task_failed(self, name: str, words: str) -> None:
        self.note_trouble(InternalError(f"task {name} failed and begins again: {words}"))

    # figures

    @property
    def delayed(self) -> Fault | None:
        """Why the server has not taken the rules that were announced last."""
        return self._session.delayed if self._session is not None else None

    def note_trouble(self, error: SpokesError) -> None:
        self.troubles.append(Trouble(at=time.time(), line=error.line()))

    def public_url(self) -> str:
        """Where visitors reach the tunnel's own name. The server says it: a router before it may translate ports, and
        it knows whether they will trust the certificate that they are shown."""
        if self.ready is None:
            return f"http://{self.rules.hostname()}"
        return self.ready.url or next(iter(self.ready.urls), f"http://{self.ready.hostname}")

    def public_address(self, rule: Site | Port) -> str:
        return self.public_url() if isinstance(rule, Site) else f"{self.endpoint.host}:{rule.port}"

    def streams_open(self) -> int:
        return self._engine.tunnel_counters(self._tunnel)[2]

    def traffic_bytes(self) -> tuple[int, int]:
        """From visitors, to visitors. The engine counts into links and out of them, named as the server sees it."""
        to_visitors, from_visitors, *_ = self._engine.tunnel_counters(self._tunnel)
        return from_visitors, to_visitors

    def rtt_ms(self) -> float:
        return self._engine.link_rtt_ms(self._session.link.id) if self._session is not None else 0.0

    def link_count(self) -> int:
        return len(self._open_links())

    def stats(self) -> dict[str, int]:
        return self._engine.stats()
