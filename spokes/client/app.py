"""The running client: one engine, one session kept up for ever, the rules it serves, and what it reports.

Owns: the engine's life, reconnecting, further links, draining. Policy only; the engine moves the bytes.
Fails: only for what trying again cannot mend (the server said so: `bye` without retry). A network fault never ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from spokes._fastpath import engine as engine_module
from spokes._fastpath.engine import Directory, Upstream
from spokes.client.config import ClientConfig
from spokes.client.further_links import FurtherLinks
from spokes.client.health import LOOK_INTERVAL_S, REPEAT_S, Conditions, Turn
from spokes.client.links import ANSWER_DEADLINE_S, Endpoint, Link, LinkEngine, Links
from spokes.client.network import NetworkWatch
from spokes.client.reconnect import Backoff
from spokes.client.routes import Routes
from spokes.client.rule_limits import with_refused, within_limits
from spokes.client.rulebook import Rules
from spokes.client.service_addresses import ServiceAddresses
from spokes.client.session import Session, delayed_error, log_in
from spokes.client.webroots import WebRoots
from spokes.errors import (
    HeldNameError,
    InternalError,
    NameRefusedError,
    NobodyThereError,
    ProtocolError,
    RemoteError,
    SpokesError,
    TakenError,
    UnreachableError,
    WildcardNameError,
)
from spokes.resolver import Resolver
from spokes.supervisor import Supervisor
from spokes.tcp_memory import TcpMemoryWatch
from spokes.wire.messages import Accepted, Config, Fault, Health, Ready, Services
from spokes.wire.rules import Port, Site

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 10.0
PATH_ANSWER_S = 0.8  # for a PING after a change of the network, or three round trips where those take longer
ERRORS_SHOWN = 5
NAME_CODES = frozenset(kind.code for kind in (HeldNameError, NameRefusedError, TakenError, WildcardNameError))
REMOTE_RULES_INTERVAL_S = 0.1  # between configurations put in force: a server that floods keeps nothing else waiting


class ClientEngine(LinkEngine, Protocol):
    """The part of the engine that a client uses."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def open_tunnel(self) -> int: ...
    def tunnel_counters(self, tunnel: int) -> tuple[int, int, int, float]: ...
    def bind_link(self, link: int, tunnel: int) -> None: ...
    def drain_link(self, link: int) -> None: ...
    def link_rtt_ms(self, link: int) -> float: ...
    def stats(self) -> dict[str, int]: ...
    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None: ...
    def set_route(self, kind: int, key: str | int, site: engine_module.Site) -> None: ...
    def drop_route(self, kind: int, key: str | int) -> None: ...
    def publish(self) -> int: ...
    def retire_upstream(self, upstream: Upstream) -> None: ...
    def end_upstream(self, upstream: Upstream, *, after_s: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that went wrong, for the status block."""

    at: float  # Unix time
    line: str


class Console(Protocol):
    """Where the client says what happens."""

    def connecting(self) -> None: ...
    async def online(self, app: App) -> None:
        """Serving: the server has accepted the rules; again after each reconnect."""
        ...

    def changed(self, app: App) -> None:
        """Rules, or the address to show, changed while serving."""
        ...

    def delayed(self, app: App, error: SpokesError) -> None:
        """The server cannot store the rules now; `changed` follows when it has."""
        ...

    def turned(self, turns: Sequence[Turn]) -> None:
        """Services began to fail, or answer again; once a second at most."""
        ...

    def offline(self, error: SpokesError, wait_s: float) -> None: ...
    async def run(self, app: App) -> None:
        """Show what changes by itself, until cancelled."""
        ...


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
        removed_drain_s: float = 0.0,
        backoff: Backoff | None = None,
        reread: Callable[[], ClientConfig] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.state = "connecting"  # connecting | online | waiting | draining
        self.online_since = 0.0  # Unix time
        self.ready: Ready | None = None  # of the present or the last session
        self.accepted = Accepted()
        self.services = Services()
        self._offered = Services()  # those of them that are within a tunnel's limits
        self._over_limits = Accepted()  # the others, as refused
        self.troubles: deque[Trouble] = deque(maxlen=ERRORS_SHOWN)
        self.conditions = Conditions()
        self._engine = engine
        self._key = key
        self._rules = rules
        self._console = console
        resolver = resolver or Resolver()
        self._links = Links(engine, resolve=resolver.addresses)
        self._addresses = ServiceAddresses(resolver.addresses, files_version=resolver.files_version)
        self._web_roots = WebRoots(Directory)
        self._routes = Routes(engine, self._addresses, self._web_roots, removed_drain_s=removed_drain_s)
        self._links.on_upstream_fault = self._routes.take_fault
        self._backoff = backoff or Backoff()
        self._tunnel = 0
        self._away_since = 0.0  # monotonic: when the last session that worked ended, or the first attempt began
        self._session: Session | None = None
        self._remote_newest: Config | None = None
        self._rules_rev: int | None = None  # of the server's newest rules that are brought together with ours
        self._announce_again = False  # what is offered is not what the server took last
        self._applying_remote = False
        self._stopped = asyncio.Event()
        self._drain_first = False
        self._applying = asyncio.Lock()  # one change at a time: file, routes, announcement
        self._tasks: set[asyncio.Task[Any]] = set()
        self.supervisor = Supervisor(on_failed=self._task_failed)
        self._reread = reread
        self._reloading = asyncio.Lock()
        self._network_changed = asyncio.Event()
        self._checking: asyncio.Task[Any] | None = None  # whether the links outlived a change of the network
        self._redial = asyncio.Event()  # the configuration names another server or key: no use in waiting
        self._further = FurtherLinks(engine, self._links, spawn=self._spawn, streams_open=self.streams_open)
        self._links.on_link_wanted = self._further.want

    # life

    async def run(self) -> None:
        """Serve until `stop`. Raises only what ends the tunnel for good."""
        self._engine.start()
        self._links.start()
        try:
            self._tunnel = self._engine.open_tunnel()
            serving = self._spawn(self._serve_for_ever())
            self.supervisor.keep("display", lambda: self._console.run(self))
            self.supervisor.keep("resolver", self._addresses.run)
            self.supervisor.keep("web roots", self._web_roots.run)
            self.supervisor.keep("health", self._watch_health)
            self.supervisor.keep("further links", self._further.tend)
            self.supervisor.keep("network", NetworkWatch(self.network_changed).run)
            self.supervisor.keep("kernel memory", TcpMemoryWatch(self._engine).run)
            stopping = self._spawn(self._stopped.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            if self._drain_first:
                await self._drain()
        finally:
            await self.supervisor.stop()
            await self._cancel_tasks()
            await self._close_links()
            self._links.stop()
            self._engine.stop()

    def stop(self, *, drain: bool) -> None:
        """End: at once, or after the open streams had a while to end."""
        self._drain_first = drain
        self._stopped.set()

    async def _serve_for_ever(self) -> None:
        self._away_since = time.monotonic()
        while True:
            self.state = "connecting"
            self._console.connecting()
            try:
                await self._serve_once()
            except RemoteError as error:
                if not error.retryable:
                    raise
                await self._wait(error, error.retry_after_s)
            except SpokesError as error:
                await self._wait(error, self._session.retry_after_s if self._session else 0.0)
            except Exception:
                log.exception("session failed")
                await self._wait(InternalError("the client failed; its log says why"), 0.0)

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
            self._checking = self._spawn(self._check_links())

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
            async with self._applying:
                await self._serve_rules()  # routes before streams, which may come right behind `ready`
        endpoint = self.endpoint
        link, ready = await log_in(self._links, endpoint, key=self._key, mode="serve", bind=self._bind)
        if self._redial.is_set():
            link.abort()
            raise UnreachableError("the configuration changed meanwhile")
        session = Session(
            link,
            ready,
            on_config=self._take_config,
            on_address=self._take_address,
            on_delayed=self._take_delayed,
            on_late=self._take_late,
            on_resumed=self._take_resumed,
            next_link=self._further.take_next,
        )
        self._remote_newest, self._announce_again = None, False  # older than what `ready` brings
        reading = self._spawn(session.run())
        try:
            async with self._applying:
                self._rules.take_ready(ready)
                self._rules_rev = ready.rules_rev
                await self._serve_rules()
                self._session, self.ready = session, session.ready
                self._further.begin(session, endpoint, self._tunnel)
            # No deadline, no lock: a store that is away must not end what carries traffic, nor hold other changes up.
            late = asyncio.get_running_loop().call_later(ANSWER_DEADLINE_S, self._note_late)
            try:
                await self._announce(session, serve_newest=self._serve_newest, within_s=None)
            finally:
                late.cancel()
            self.state, self.online_since = "online", time.time()
            await self._console.online(self)
            await reading
        except Exception:
            reading.cancel()
            session.link.abort()
            self._further.abort()
            raise

    def _bind(self, link: Link) -> None:
        self._engine.bind_link(link.id, self._tunnel)

    # the configuration file

    def reload(self) -> None:
        """Read the configuration file again; returns at once."""
        self._spawn(self._reload())

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
                if (endpoint, config.key) != (self.endpoint, self._key):
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "new"})
                    self.endpoint, self._key = endpoint, config.key
                    self._redial.set()
                    self._further.abort()
                    if self._session is not None:
                        self._session.link.close(message="configuration changed")
                elif self._rules.services() != self.services:
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "same"})
                    await self.apply_rules()
            except SpokesError as error:
                log.error("configuration not taken", extra={"code": error.code, "detail": error.line()})
                self.note_trouble(error)
            except Exception:
                log.exception("configuration not taken")
                self.note_trouble(InternalError("the configuration could not be taken; the client's log says why"))

    # rules

    async def apply_rules(self) -> Accepted | None:
        """Serve what the rules say now. None while off-line, or where the session ends before the server has answered:
        the next one announces them."""
        async with self._applying:
            await self._serve_newest_locked()
            session = self._session
            if session is None or session.ended is not None:
                return None
            try:
                accepted = await self._announce(session, serve_newest=self._serve_newest_locked)
            except SpokesError:
                if session.ended is None:
                    raise
                return None
        self._console.changed(self)
        return accepted

    async def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """A request to the server over the present session."""
        if self._session is None:
            raise UnreachableError("not connected to the server", hint="try again when the client is on-line")
        return await self._session.request(op, args)

    def _take_newest(self) -> None:
        """Bring the server's newest rules together with ours; what the file refuses must not come back for ever."""
        remote, self._remote_newest = self._remote_newest, None
        if remote is not None:
            self._rules.take_remote(remote.config)
            self._rules_rev = remote.rules_rev

    async def _serve_rules(self) -> None:
        self.services = self._rules.services()
        self._offered, self._over_limits = within_limits(self.services)
        await self._routes.apply(self._offered.https, self._offered.ports)

    async def _serve_newest(self) -> None:
        async with self._applying:
            await self._serve_newest_locked()

    async def _serve_newest_locked(self) -> None:
        """The caller holds `_applying`."""
        self._take_newest()
        await self._serve_rules()

    def _note_late(self) -> None:
        if self.delayed is None:  # else it was said
            self.note_trouble(UnreachableError("the server has not taken the rules yet", hint="its log may say why"))

    async def _announce(
        self,
        session: Session,
        *,
        serve_newest: Callable[[], Awaitable[None]],
        within_s: float | None = ANSWER_DEADLINE_S,
    ) -> Accepted:
        """What the server put in force. Where it knows newer rules it sent them first: those are served with
        `serve_newest`, and announced again."""
        while True:
            ours = self._offered
            services = msgspec.structs.replace(ours, rules_rev=self._rules_rev)
            accepted = await session.announce(services, within_s=within_s)
            if not accepted.stale:
                break
            if self._remote_newest is None:
                raise ProtocolError("the server calls our rules old and sends no newer ones")
            await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
            await serve_newest()
        self._take_accepted(services, accepted, agreed=ours == self._offered)  # else a later answer tells what is
        return self.accepted

    def _take_accepted(self, services: Services, accepted: Accepted, *, agreed: bool = True) -> None:
        self.accepted = with_refused(accepted, self._over_limits)
        if accepted.rules_rev is not None:
            self._rules_rev = accepted.rules_rev
        if agreed:
            self._rules.take_accepted(services, self.accepted)
        faults = [
            *((site.domain, site.error) for site in self.accepted.https),
            *((f"port {port.port}", port.error) for port in self.accepted.ports),
        ]
        for what, fault in faults:
            if fault is not None:
                cure = f"choose another name, and type: spoke tunnel http rm --domain {what}"
                hint = cure if fault.code in NAME_CODES else ""
                self.note_trouble(RemoteError(f"{what}: {fault.message}", code=fault.code, hint=hint))

    def _take_delayed(self, fault: Fault) -> None:
        error = delayed_error(fault)
        self.note_trouble(error)
        self._console.delayed(self, error)

    def _take_late(self, services: Services, accepted: Accepted) -> None:
        """The answer to a list whose caller gave up. Where it was called stale the newer rules came before it."""
        if accepted.stale:
            self._announce_soon()
            return
        try:
            self._take_accepted(services, accepted)
        except SpokesError as error:
            self.note_trouble(error)
        if self.state == "online":
            self._console.changed(self)

    def _take_resumed(self, services: Services) -> None:
        if msgspec.structs.replace(services, rules_rev=None) != self._offered:
            self._announce_soon()

    def _take_config(self, remote: Config) -> None:
        """Each configuration is whole: while one is put in force only the newest waits, however many come."""
        self._remote_newest = remote
        self._apply_remote_soon()

    def _take_address(self) -> None:
        if self._session is not None and self.state == "online":
            self.ready = self._session.ready
            self._console.changed(self)

    def _announce_soon(self) -> None:
        self._announce_again = True
        self._apply_remote_soon()

    def _apply_remote_soon(self) -> None:
        if not self._applying_remote:
            self._applying_remote = True
            self._spawn(self._apply_remote())

    async def _apply_remote(self) -> None:
        try:
            while self._announce_again or self._remote_newest is not None:
                self._announce_again = False
                try:
                    await self.apply_rules()
                except SpokesError as error:
                    self.note_trouble(error)
                except Exception:
                    log.exception("rules of the server not taken")
                    self.note_trouble(InternalError("the server's rules could not be taken; the client's log says why"))
                await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
        finally:
            self._applying_remote = False

    # how the services do

    async def _watch_health(self) -> None:
        """What comes of the services is read, shown, and told to the server where it changed."""
        spoken: Session | None = None
        link: Link | None = None  # that the server was told over last
        told: Health | None = None
        told_at = 0.0
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            turns = self.conditions.look(self._routes.served())
            if turns:
                self._console.turned(turns)
            session = self._session
            if session is None or session.ended is not None or self.state != "online":
                continue
            if session.link is not link:
                told = None if session is spoken else Health()  # what was told last may have been lost with a link
                spoken, link, told_at = session, session.link, 0.0
            now = self.conditions.message()
            if now != told and time.monotonic() - told_at >= REPEAT_S:
                with contextlib.suppress(SpokesError):  # the link was lost: told again over the next one
                    link.send(now)
                    told, told_at = now, time.monotonic()

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
        await self._links.wait_all_down()

    def _open_links(self) -> list[Link]:
        first = [self._session.link] if self._session is not None else []
        return [link for link in (*first, *self._further.links) if link.ended is None]

    # tasks

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SpokesError):
            log.error("internal fault", exc_info=error)

    def _task_failed(self, name: str, words: str) -> None:
        self.note_trouble(InternalError(f"task {name} failed and begins again: {words}"))

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
            return f"http://{self._rules.hostname()}"
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
