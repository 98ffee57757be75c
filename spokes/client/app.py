"""The running client: one engine, a session to each node of the server that is wanted, the rules it serves, and what it
reports.

Owns: the engine's life, the nodes, draining. Policy only; the engine moves the bytes.
Fails: only for what trying again cannot mend (every node said so: `bye` without retry). A network fault never ends it.
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
from spokes.client import additional_links
from spokes.client.config import ACTIVE_ACTIVE, ClientConfig
from spokes.client.configured_rules import Rules
from spokes.client.console import Console, Trouble
from spokes.client.endpoint import Endpoint
from spokes.client.engine import ClientEngine
from spokes.client.health_reports import HealthReporter
from spokes.client.links import Links
from spokes.client.network import NetworkWatch
from spokes.client.node import DRAIN_CHECK_INTERVAL_S, DRAIN_TIMEOUT_S, Node
from spokes.client.node_discovery import NodeDiscovery
from spokes.client.node_file import NodeFile
from spokes.client.node_list import NodeAddress
from spokes.client.nodes import Nodes
from spokes.client.reconnect import Backoff
from spokes.client.routes import Routes
from spokes.client.rules_in_force import RulesInForce
from spokes.client.service_addresses import ServiceAddresses
from spokes.client.service_health import ServiceHealth
from spokes.client.session import Session
from spokes.client.tasks import Tasks
from spokes.client.webroots import WebRoots
from spokes.config_values import Address
from spokes.errors import CopyError, InternalError, RemoteError, ReplacedError, SpokesError, UnreachableError
from spokes.resolver import Resolver
from spokes.supervisor import Supervisor
from spokes.tcp_memory import TcpMemoryWatch
from spokes.wire.messages import Fault, Ready
from spokes.wire.rules import Port, Site

log = logging.getLogger(__name__)

ERRORS_SHOWN = 5
MASTER = "master"
SINGLE_NODE = "session"  # task of a server without other nodes


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
        ha_mode: str = ACTIVE_ACTIVE,
        node_file: NodeFile | None = None,
        removed_drain_s: float = 0.0,
        make_backoff: Callable[[], Backoff] = Backoff,
        reread: Callable[[], ClientConfig] | None = None,
    ) -> None:
        """`endpoint`: the server, or the host name of its cluster."""
        self.endpoint = endpoint
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
        self._make_backoff = make_backoff
        self._ready: Ready | None = None  # of the last session
        self._bytes_of_former_nodes = (0, 0)
        self._is_draining = False
        self._stopped = asyncio.Event()
        self._ended_by: RemoteError | None = None  # the server: for good
        self._drain_first = False
        self._force_stop = asyncio.Event()
        self.supervisor = Supervisor(on_failed=self._task_failed)
        self._reread = reread
        self._reloading = asyncio.Lock()
        self._node_file = node_file
        self.discovery = NodeDiscovery(resolver.services, endpoint.host, endpoint.port, file=node_file)
        self.nodes = Nodes(
            self._make_node, self._end_node, supervisor=self.supervisor, tasks=self._tasks, mode=ha_mode,
            task_name=self._task_name,
        )  # fmt: skip

    # life

    async def run(self) -> None:
        """Serve until `stop`. Raises only what ends the tunnel for good."""
        self._engine.start()
        self._links.start()
        try:
            health = HealthReporter(
                self.service_health,
                self._routes,
                online_sessions=self._online_sessions,
                on_changes=lambda changes: self._console.health_changed(changes),
            )
            keep = self.supervisor.keep
            keep("nodes", self._keep_nodes)
            keep("display", lambda: self._console.run(self))
            keep("service addresses", self._addresses.run)
            keep("web roots", self._web_roots.run)
            keep("health", health.run)
            keep("additional links", self._tend_additional_links)
            keep("network", NetworkWatch(self.network_changed).run)
            keep("kernel memory", TcpMemoryWatch(self._engine).run)
            await self._stopped.wait()
            if self._ended_by is not None:
                raise self._ended_by
            if self._drain_first:
                await self._unless_forced(self._drain())
        finally:
            self.nodes.stop()
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

    async def _keep_nodes(self) -> None:
        """The nodes as DNS has them, from the first session on."""
        if not self.nodes.listed:
            await self.discovery.first()
        self.discovery.on_change = self._nodes_changed
        self._nodes_changed()
        await self.discovery.run()

    def _nodes_changed(self) -> None:
        if self._node_file is not None:
            self._links.addresses.seed(self._node_file.addresses)
        self.nodes.take_list(self.discovery.nodes)
        if self.discovery.problem:
            self.note_trouble(UnreachableError(self.discovery.problem, hint="correct the records"))

    def network_changed(self) -> None:
        for node in self.nodes:
            node.network_changed()

    async def _tend_additional_links(self) -> None:
        """Give links up when nothing has used a node's session for long."""
        while True:
            await asyncio.sleep(additional_links.LINK_CHECK_INTERVAL_S)
            for node in self.nodes:
                node.additional.tend()

    # nodes

    def _make_node(self, address: NodeAddress) -> Node:
        return Node(
            address,
            self,
            self._engine,
            self._links,
            self.rules,
            self._tasks,
            endpoints=self.endpoint.nodes_at(address.host, address.port),
            key=self._key,
            backoff=self._make_backoff(),
        )

    def _end_node(self, node: Node) -> None:
        before = self._bytes_of_former_nodes
        of_node = node.traffic_bytes()
        self._bytes_of_former_nodes = before[0] + of_node[0], before[1] + of_node[1]
        self._engine.close_tunnel(node.tunnel)
        self.rules_changed()

    def _task_name(self, address: NodeAddress) -> str:
        is_single = address.key == (self.endpoint.host, self.endpoint.port)
        return SINGLE_NODE if is_single else f"{SINGLE_NODE} {address}"

    def node_connecting(self, node: Node) -> None:
        self.discovery.ask_soon()
        if not self.is_online():
            self._console.connecting()

    def node_served(self, node: Node) -> None:
        if self._preferred() is node:
            self._ready = node.ready

    async def node_online(self, node: Node) -> None:
        self.nodes.choose()
        self._ready = self.ready
        if self._node_file is not None and self.is_cluster:
            self._node_file.note_addresses(node.address.host, self._links.addresses.found(node.address.host))
        if [one for one in self.nodes if one.is_online] == [node]:
            await self._console.online(self)
        else:
            self._console.node_changed(self, node, None)

    def node_watched(self, node: Node) -> None:
        self.nodes.choose()

    def node_lost(self, node: Node, error: SpokesError, wait_s: float) -> None:
        self.note_trouble(error)
        if error.code == CopyError.code and node in self.nodes.listed:
            # The other client may be this one, under a name of that server which is listed no more.
            self.nodes.part_with_leaving()
        if self.is_online():
            self._console.node_changed(self, node, error)
        else:
            self._console.offline(error, wait_s)
        self.nodes.choose()

    def node_refused(self, node: Node, error: RemoteError) -> bool:
        """Another client of this tunnel ends this one wherever it logs in; of other refusals each node has its own,
        since one that lags may not know the tunnel yet."""
        if error.code == ReplacedError.code:
            # The login of ours that replaced this session may have been answered or not.
            others = (one for one in self.nodes if one is not node and one.state in ("connecting", "online"))
            twin = next((one for one in others if one.peer == node.peer), None)
            if twin is not None:
                node.duplicate_of = str(twin)
                words = f"{node} is the same server as {twin}; one of its names gets a session"
                self.note_trouble(UnreachableError(words, hint="correct the records"))
                self.nodes.choose()
                return False
        elif not all(one.refusal is not None for one in self.nodes.listed):
            return False
        self._ended_by = error
        self._stopped.set()
        return True

    def address_changed(self, node: Node) -> None:
        if self._preferred() is node:
            self._ready = node.ready
            self._console.changed(self)

    def _preferred(self) -> Node | None:
        """The node that is told what the user changes: the master where it is known, else the first that is on-line."""
        nodes = [node for node in self.nodes if node.session is not None and node.session.ended is None]
        order = {node: at for at, node in enumerate(nodes)}
        return min(nodes, key=lambda node: (not node.is_online, node.role != MASTER, order[node]), default=None)

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
                if config.ha_mode != self.nodes.mode:
                    log.info("configuration read again", extra={"server": str(endpoint), "ha": config.ha_mode})
                    self.nodes.use_mode(config.ha_mode)
                if (endpoint, config.key) != (self.endpoint, self._key):
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "new"})
                    self._use(endpoint, config.key)
                elif self.rules.differ_from_file():
                    log.info("configuration read again", extra={"server": str(endpoint), "session": "same"})
                    await self.rules.apply()
            except SpokesError as error:
                log.error("configuration not taken", extra={"code": error.code, "detail": error.line()})
                self.note_trouble(error)
            except Exception:
                log.exception("configuration not taken")
                self.note_trouble(InternalError("the configuration could not be taken; the client's log says why"))

    def _use(self, endpoint: Endpoint, key: str) -> None:
        """Another server, or another key of it or of the tunnel."""
        is_same_place = (endpoint.host, endpoint.port) == (self.endpoint.host, self.endpoint.port)
        if not is_same_place:  # by the names of tasks that are told from the former server's
            self.nodes.replace(())
        self.endpoint, self._key = endpoint, key
        if is_same_place:
            for node in self.nodes:
                node.redial(endpoint.nodes_at(node.address.host, node.address.port), key)
        else:
            self.discovery.use(endpoint.host, endpoint.port)
            self.nodes.take_list(self.discovery.nodes)

    async def ask(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """A request to the server over a present session."""
        session = self.session_for_changes()
        if session is None:
            raise UnreachableError("not connected to the server", hint="try again when the client is on-line")
        return await session.request(op, args)

    # for the rules and the health of services

    def session_for_changes(self) -> Session | None:
        node = self._preferred()
        return node.session if node is not None else None

    def has_other_session(self, session: Session) -> bool:
        return any(
            node.session is not None and node.session is not session and node.session.ended is None
            for node in self.nodes
        )

    def is_online(self) -> bool:
        return self.state == "online"

    def _online_sessions(self) -> list[Session]:
        return [node.session for node in self.nodes if node.is_online and node.session is not None]

    def rules_changed(self) -> None:
        self._console.changed(self)

    def rules_delayed(self, error: SpokesError) -> None:
        self._console.delayed(self, error)

    # the end

    async def _drain(self) -> None:
        """No new streams; those open may end, within reason."""
        self._is_draining = True
        for node in self.nodes:
            node.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                # Looked at again and again: the engine counts streams and does not tell of each.
                while self.streams_open():  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_CHECK_INTERVAL_S)

    async def _close_links(self) -> None:
        for node in self.nodes:
            for link in node.open_links():
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

    def _task_failed(self, name: str, words: str) -> None:
        self.note_trouble(InternalError(f"task {name} failed and begins again: {words}"))

    # figures

    @property
    def state(self) -> str:
        """connecting | online | waiting | draining; of the nodes together: the best of theirs."""
        if self._is_draining:
            return "draining"
        states = {node.state for node in self.nodes}
        if any(node.is_online for node in self.nodes):
            return "online"
        return "connecting" if not states or "connecting" in states else "waiting"

    @property
    def online_since(self) -> float:
        """Unix time."""
        node = self._preferred()
        return node.online_since if node is not None else 0.0

    @property
    def ready(self) -> Ready | None:
        """Of a present session, or the last one."""
        node = self._preferred()
        return node.ready if node is not None and node.ready is not None else self._ready

    @property
    def is_cluster(self) -> bool:
        """The server has, or may have, several nodes."""
        return not self.discovery.is_single

    @property
    def delayed(self) -> Fault | None:
        """Why a server has not taken the rules that were announced last."""
        faults = (node.session.delayed for node in self.nodes if node.session is not None)
        return next((fault for fault in faults if fault is not None), None)

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
        return sum(node.streams_open() for node in self.nodes)

    def traffic_bytes(self) -> tuple[int, int]:
        """From visitors, to visitors."""
        figures = [self._bytes_of_former_nodes, *(node.traffic_bytes() for node in self.nodes)]
        return sum(one[0] for one in figures), sum(one[1] for one in figures)

    def rtt_ms(self) -> float:
        node = self._preferred()
        return node.rtt_ms() if node is not None else 0.0

    def link_count(self) -> int:
        return sum(len(node.open_links()) for node in self.nodes)

    def stats(self) -> dict[str, int]:
        return self._engine.stats()
