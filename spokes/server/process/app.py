"""The server put together: what starts in which order, and how it ends.

Owns: the order. A server that cannot serve (address in use, directory locked, store too new) fails before it says that
it is ready; one that is told to stop lets streams end first. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

from spokes import clock
from spokes._fastpath.engine import Engine, ListenerKind
from spokes.config import SETTINGS, ServerConfig, changed_settings, reloaded
from spokes.config_values import Address
from spokes.control import CONTROL_SOCKET_NAME
from spokes.errors import SpokesError
from spokes.log import setup_logging
from spokes.model.operation import SYSTEM, perform
from spokes.model.tokens import CreateToken
from spokes.pages import hand_pages
from spokes.server.base.datadir import (
    FIRST_TOKEN_NAME,
    DataLock,
    prepare_directory,
    write_private,
)
from spokes.server.base.events import EventPump
from spokes.server.base.limits import (
    OPEN_FILES_LOW,
    memory_budget,
    open_files_of_ports,
    raise_open_files_limit,
    visitor_count_max,
    visitor_count_per_address_max,
    visitor_count_per_tunnel_max,
)
from spokes.server.base.storethread import StoreThread
from spokes.server.base.worker_loop import wait_until_set
from spokes.server.certificates.certificates import Certificate, ensure_certificates
from spokes.server.certificates.shown_certificates import ShownCertificates
from spokes.server.notify.notifications import Notifications
from spokes.server.process import admin_process
from spokes.server.process.admin_process import AdminProcess, admin_command, admin_environment, admin_upstream
from spokes.server.process.control import ControlSocket
from spokes.server.process.domain_verification import DomainVerification
from spokes.server.process.operations import Operations
from spokes.server.process.retention import apply_retention
from spokes.server.routing.availability import Availability
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.listeners import BoundAddress, check_free
from spokes.server.routing.ports import PortListeners
from spokes.server.routing.public import PublicPorts
from spokes.server.routing.routes import RouteTable
from spokes.server.routing.users import Users
from spokes.server.sessions.admission import Admission
from spokes.server.sessions.presence import PresenceWriter
from spokes.server.sessions.registry import Registry
from spokes.server.sessions.requests import Requests
from spokes.server.sessions.sessions import Sessions
from spokes.server.usage.access_records import ACCESS_RECORD_COUNT_MAX, DAY_S, AccessRecordWriter
from spokes.server.usage.bandwidth import BandwidthLimits
from spokes.server.usage.traffic import TrafficMeter
from spokes.supervisor import Make, Supervisor
from spokes.tcp_memory import TcpMemoryWatch

log = logging.getLogger(__name__)

DRAIN_CHECK_INTERVAL_S = 0.05  # how often the count of open streams is read while draining
HTTPS_PORT = 443  # where clients look when they are told no port
BYE_S = 0.2  # for every `bye` to leave before the engine stops
RETRY_AFTER_S = 1.0  # what a stopping server asks of its clients; they add jitter


class Server:
    """One running server; start() to serve, stop() to end."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        reread: Callable[[], ServerConfig] | None = None,
        lock: DataLock | None = None,
        make_engine: Callable[..., Engine] = Engine,
        make_admin_command: Callable[[ServerConfig, Path, str, int], list[str]] = admin_command,
    ) -> None:
        """`lock`: of the data directory, where it is held already; the server lets go of it."""
        self.config = config
        self._reread = reread
        self._make_engine = make_engine
        self._make_admin_command = make_admin_command
        self._store = StoreThread()
        self._lock = lock
        self._engine: Engine | None = None
        self.supervisor = Supervisor()
        self._bound: dict[tuple[ListenerKind, Address], BoundAddress] = {}
        self._pump: EventPump | None = None
        self._control: ControlSocket | None = None
        self.admin: AdminProcess | None = None
        self._force_stop = asyncio.Event()
        self.public = PublicPorts()
        self.link_certificate: Certificate
        self.directory: Path
        self.started: clock.Since | None = None  # None: does not serve yet

    # start

    async def start(self) -> None:
        """Returns when visitors and clients are served. What was begun is undone when it fails."""
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise

    async def _start(self) -> None:
        config = self.config
        self.directory = prepare_directory(config.data)
        if self._lock is None:
            self._lock = DataLock(self.directory)
        open_files = self._check_open_files()
        self._bind(config)
        if config.admin and config.metrics is not None:
            check_free(config.metrics)
        await self._store.open(config.store_url)
        self._store.store.settings.verified_domains_only = config.domain_proof
        await self._store.run(self._store.store.presence.reset)
        certificates = await self._store.run(ensure_certificates, self.directory, config.domain)
        self.link_certificate = certificates[1]
        self._engine = engine = self._make_engine(
            workers=config.worker_count,
            memory_limit_bytes=memory_budget(config).limit_bytes,
            accepting=True,
            visitor_count_max=visitor_count_max(open_files),
            visitor_count_per_address_max=visitor_count_per_address_max(config, open_files),
            tunnel_stream_count_max=visitor_count_per_tunnel_max(config, open_files),
            handshakes_per_address_per_s=config.handshakes_per_address_per_s,
            unmetered_networks=list(config.unmetered_networks),
            access_record_count_max=ACCESS_RECORD_COUNT_MAX if config.connection_metrics else 0,
            via=f"spokes-{secrets.token_hex(8)}".encode(),  # of this server alone, or two in a row would be a loop
        )
        hand_pages(engine)
        shown = ShownCertificates(engine)
        shown.show(*certificates)
        engine.start()
        self._assemble(engine, shown, certificates[0])
        await self.follower.load()
        await self.bandwidth.load()
        await self.notifications.load()
        assert self._pump is not None
        self._pump.start()
        for bound in self._bound.values():
            bound.serve(engine)
        self._announce_addresses()
        self._control = ControlSocket(self.directory / CONTROL_SOCKET_NAME, self._operations(engine).by_name())
        await self._control.start()
        control = self._control
        tasks: dict[str, Make] = {
            "change log": self.follower.run,
            "presence": self.presence.run,
            "traffic": self.bandwidth.run,
            "upkeep": lambda: apply_retention(self._store, self.access_records),
            "control socket": lambda: control.keep(self.follower.wake),
            "kernel memory": TcpMemoryWatch(engine).run,
            **self.notifications.tasks(),
        }
        if config.domain_proof:
            tasks["domain verification"] = DomainVerification(self._store, config.domain_resolvers).run
        for name, make in tasks.items():
            self.supervisor.keep(name, make)
        if config.admin:
            command = self._make_admin_command(
                config, self.directory, self.link_certificate.fingerprint, self.public.https or HTTPS_PORT
            )
            socket_path = self.directory / admin_process.SOCKET_NAME
            self.admin = AdminProcess(
                command, admin_environment(config), socket_path=socket_path, supervisor=self.supervisor
            )
            self.admin.start()
        self.started = clock.Since()

    def _assemble(self, engine: Engine, shown: ShownCertificates, certificate: Certificate) -> None:
        config = self.config
        self.registry = Registry(config.link_count_max)
        self.admission = Admission(config.handshakes_per_s)
        own = admin_upstream(self.directory) if config.admin else None
        self.routes = RouteTable(engine, config.domain, own, removed_drain_s=config.removed_drain_s)
        self.routes.https_port = self._public_port(ListenerKind.TLS, config.public_https_port)
        self.ports = PortListeners(engine, config.tcp_address)
        self.users = Users()
        self.follower = ChangeFollower(self._store, self.routes, self.ports, self.users, domain=config.domain)
        self.requests = Requests(self._store, self.follower, self.ports, config.tcp_ports, self.public)
        self.availability = Availability()
        self.presence = PresenceWriter(self._store, config.presence_interval_s)
        self.sessions = Sessions(
            engine=engine,
            store=self._store,
            registry=self.registry,
            admission=self.admission,
            routes=self.routes,
            follower=self.follower,
            requests=self.requests,
            presence=self.presence,
            availability=self.availability,
            public=self.public,
            domain=config.domain,
            on_failed=self.supervisor.follow("links"),
        )
        self.public.is_vouched_for = shown.is_vouched_for
        shown.on_change = self.sessions.certificates_changed
        self.access_records = AccessRecordWriter(
            engine,
            self.routes.counted,
            self._store,
            kept_s=config.connection_metrics_days * DAY_S,
            row_count_max=config.connection_metrics_count_max,
        )
        self.traffic = TrafficMeter(engine, self.routes, self._store, self.access_records)
        self.bandwidth = BandwidthLimits(
            store=self._store,
            meter=self.traffic,
            users=self.users,
            routes=self.routes,
            cut=self.sessions.cut_tunnel,
            interval_s=config.traffic_interval_s,
        )
        self.follower.on_users_changed = self.bandwidth.check
        self.notifications = Notifications(
            config=config,
            directory=self.directory,
            engine=engine,
            store=self._store,
            shown=shown,
            certificate=certificate,
            routes=self.routes,
            registry=self.registry,
            users=self.users,
            bandwidth=self.bandwidth,
            sessions=self.sessions,
            availability=self.availability,
            follower=self.follower,
            supervisor=self.supervisor,
        )
        self._pump = EventPump(engine, self.sessions.on_event, on_failed=self.supervisor.follow("events"))

    def _operations(self, engine: Engine) -> Operations:
        return Operations(
            server=self,
            engine=engine,
            store=self._store,
            registry=self.registry,
            routes=self.routes,
            follower=self.follower,
            sessions=self.sessions,
            notifications=self.notifications,
        )

    def _check_open_files(self) -> int:
        limit = raise_open_files_limit()
        needed = OPEN_FILES_LOW + open_files_of_ports(self.config)
        if limit < needed:
            log.warning("few open files allowed", extra={"limit": limit, "recommended": needed})
        return limit

    def _bind(self, config: ServerConfig) -> None:
        """Opens the listeners of `config` that are not open; on failure none of the new ones."""
        opened: dict[tuple[ListenerKind, Address], BoundAddress] = {}
        try:
            for key in _listeners(config):
                if key not in self._bound:
                    opened[key] = BoundAddress(key[1], key[0], self.config.worker_count)
        except SpokesError:
            for bound in opened.values():
                bound.close_sockets()
            raise
        self._bound |= opened

    def addresses(self, kind: ListenerKind) -> list[Address]:
        """Where visitors are really served."""
        return [address for key, bound in self._bound.items() if key[0] is kind for address in bound.addresses]

    def _announce_addresses(self) -> None:
        self.public.http = self._public_port(ListenerKind.HTTP, self.config.public_http_port)
        self.public.https = self._public_port(ListenerKind.TLS, self.config.public_https_port)
        self.routes.https_port = self.public.https
        self.requests.addresses = tuple(
            str(address) for kind in (ListenerKind.HTTP, ListenerKind.TLS) for address in self.addresses(kind)
        )

    def _public_port(self, kind: ListenerKind, configured: int) -> int | None:
        """What was configured, else where the first listener is; a port of 0 is known only once it is bound."""
        addresses = self.addresses(kind)
        return configured or (addresses[0].port if addresses else None)

    async def offer_first_token(self) -> Path | None:
        """The file with a registration token, made when there is none at all; None once that file was taken away."""
        path = self.directory / FIRST_TOKEN_NAME
        if not await self._store.run(self._store.store.tokens.select):
            token = await self._store.run(perform, self._store.store, SYSTEM, CreateToken("first"))
            write_private(path, token.value.encode() + b"\n")
        return path if path.exists() else None

    # end

    def force_stop(self) -> None:
        """Ends a drain that is under way, or skips the one to come."""
        self._force_stop.set()

    async def stop(self) -> None:
        """Accepts no more, lets streams end for as long as configured, then ends all."""
        if self._engine is not None and self.started is not None:
            await self._drain(self._engine)
        await self._end()

    async def _drain(self, engine: Engine) -> None:
        log.info("draining", extra={"timeout_s": self.config.drain_timeout_s})
        for bound in self._bound.values():
            bound.stop(engine)
        self.ports.close()
        self.sessions.drain(RETRY_AFTER_S)
        deadline = clock.monotonic_s() + self.config.drain_timeout_s
        while engine.stats()["streams_open"] and clock.monotonic_s() < deadline and not self._force_stop.is_set():
            await wait_until_set(self._force_stop, DRAIN_CHECK_INTERVAL_S)
        await self.sessions.close()
        if not self._force_stop.is_set():
            await wait_until_set(self._force_stop, BYE_S)

    async def _end(self) -> None:
        if self.admin is not None:
            await self.admin.stop(0.0 if self._force_stop.is_set() else admin_process.STOP_S)
        await self.supervisor.stop()
        if self._control is not None:
            await self._control.close()
        if self._pump is not None:
            self._pump.stop()
            await self.sessions.close()
            await self.presence.flush()
        for bound in self._bound.values():
            bound.close_sockets()
        self._bound.clear()
        if self._engine is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._engine.stop)
        if self._pump is not None:
            await self.traffic.flush()  # with what the last streams carried
        await self._store.close()
        if self._lock is not None:
            self._lock.close()

    # reload

    async def reload(self) -> list[str]:
        """Reads the configuration again; the names of settings that need a restart. Fails without any effect."""
        self.notifications.certs_extra.wake()
        if self._reread is None:
            return []
        new = self._reread()
        changed = changed_settings(self.config, new)
        later = sorted(name for name in changed if not SETTINGS[name].reloadable)
        if changed & {"http", "https"}:
            self._rebind(new)
        if "tcp_ports" in changed:
            self.requests.tcp_ports = new.tcp_ports
        self.admission.rate_per_s = new.handshakes_per_s
        self.presence.interval_s = new.presence_interval_s
        self.routes.removed_drain_s = new.removed_drain_s
        self.bandwidth.interval_s = new.traffic_interval_s
        self.access_records.kept_s = new.connection_metrics_days * DAY_S
        self.access_records.row_count_max = new.connection_metrics_count_max
        self.notifications.alert_offline_s = new.alert_offline_s
        self.notifications.certs_extra.interval_s = new.certs_extra_interval_s
        if changed & {"log_format", "log_level"}:
            setup_logging(new.log_format, new.log_level)
        self.config = reloaded(self.config, new)
        self._announce_addresses()
        self.sessions.ports_changed()
        log.info("configuration read again", extra={"changed": ",".join(sorted(changed)), "later": ",".join(later)})
        return later

    def _rebind(self, new: ServerConfig) -> None:
        assert self._engine is not None
        wanted = set(_listeners(new))
        before = set(self._bound)
        self._bind(new)
        for key in self._bound.keys() - before:
            self._bound[key].serve(self._engine)
        for key in before - wanted:
            self._bound.pop(key).stop(self._engine)


def _listeners(config: ServerConfig) -> list[tuple[ListenerKind, Address]]:
    return [(ListenerKind.HTTP, address) for address in config.http] + [
        (ListenerKind.TLS, address) for address in config.https
    ]

