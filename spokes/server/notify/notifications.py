"""Alerts, the checks that raise them, webhooks and e-mail, put together."""

from __future__ import annotations

import os
from pathlib import Path

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.config import ServerConfig
from spokes.errors import ConfigError, NotFoundError
from spokes.resolver import Resolve, Resolver
from spokes.server.base.set_aside import MORE, Subject
from spokes.server.base.storethread import StoreThread
from spokes.server.certificates.certificates import Certificate
from spokes.server.certificates.certs_extra import CertsExtra
from spokes.server.certificates.shown_certificates import ShownCertificates
from spokes.server.certificates.ticket_keys import TicketKeys
from spokes.server.notify.alerts import AlertBoard
from spokes.server.notify.certificate_watch import CertificateWatch
from spokes.server.notify.mail import PASSWORD_VARIABLE, Mailer, SmtpServer
from spokes.server.notify.watch import TASK_ALERT, Clocks, Offline, Watch, disk_figures
from spokes.server.notify.webhook_events import WebhookEvents
from spokes.server.notify.webhooks import WebhookDispatcher
from spokes.server.routing.availability import Availability
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.routes import RouteTable
from spokes.server.routing.users import Users
from spokes.server.sessions import copies
from spokes.server.sessions.registry import Registry
from spokes.server.sessions.sessions import Sessions
from spokes.server.usage.bandwidth import BandwidthLimits
from spokes.store import Severity, TunnelState
from spokes.supervisor import Make, Supervisor

ASIDE_ALERT = "change"


class Notifications:
    """Everything that may be told late and is never waited for."""

    def __init__(
        self,
        *,
        config: ServerConfig,
        directory: Path,
        engine: Engine,
        store: StoreThread,
        shown: ShownCertificates,
        certificate: Certificate,
        routes: RouteTable,
        registry: Registry,
        users: Users,
        bandwidth: BandwidthLimits,
        sessions: Sessions,
        availability: Availability,
        follower: ChangeFollower,
        supervisor: Supervisor,
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._store = store
        self._routes = routes
        self._registry = registry
        self._bandwidth = bandwidth
        self._clocks = Clocks()
        self._offline = Offline()
        self.alert_offline_s = config.alert_offline_s
        self.alerts = AlertBoard(store)
        self.watch = Watch(self.alerts)
        resolve = Resolver(servers=config.resolver).addresses
        self.dispatcher = WebhookDispatcher(store, self.alerts, resolve)
        self.events = WebhookEvents(store, users, registry, on_queued=self.dispatcher.wake)
        self.mailer = make_mailer(config, resolve)
        self.alerts.listeners.append(self.events.alert_changed)
        if self.mailer is not None:
            self.alerts.listeners.append(self.mailer.put)
        supervisor.on_failed = self._task_failed
        supervisor.on_steady = lambda name: self.alerts.settle(TASK_ALERT, name)
        self._asides = (follower.set_aside, self.events.set_aside)
        for aside in self._asides:
            aside.on_put = self._set_aside
            aside.on_settled = self._no_longer_aside
        availability.on_moves = self.events.services_moved
        follower.on_changes = self.changed
        sessions.unauthenticated.on_client_clock = self._clocks.note
        self._copies = sessions.copies
        self._copies.on_copy = lambda uid, words: self.alerts.raise_(copies.ALERT, uid, Severity.WARNING, words)
        self.tickets = TicketKeys(engine, directory)
        self.certificates = CertificateWatch(
            shown=shown,
            watch=self.watch,
            directory=directory,
            domain=config.domain,
            certificate=certificate,
        )
        self.certs_extra = CertsExtra(
            directory, shown, self.watch.certificate_files, interval_s=config.certs_extra_interval_s
        )
        self.shown = shown
        checks = (
            self.certificates.check, self.tickets.check, self._check_server, self._check_disk,
            self._check_silent_tunnels,
        )
        for check in checks:
            self.watch.add(check)

    def changed(self) -> None:
        """The change log grew, or somebody asked for a delivery to be sent again."""
        self.events.wake()
        self.dispatcher.wake()

    async def load(self) -> None:
        await self.tickets.check()
        await self.certs_extra.check()
        await self.alerts.load()
        await self.events.load()
        for kind in (TASK_ALERT, ASIDE_ALERT):  # of an earlier life of the server; this one finds its own
            for subject in self.alerts.subjects(kind):
                if not any(subject == str(one) for aside in self._asides for one in aside.subjects()):
                    self.alerts.settle(kind, subject)

    def tasks(self) -> dict[str, Make]:
        """To be run for as long as the server runs, by name."""
        tasks: dict[str, Make] = {
            "alerts": self.alerts.run, "watch": self.watch.run, "webhooks": self.dispatcher.run,
            "webhook events": self.events.run, "certs-extra": self.certs_extra.run,
        }
        return tasks if self.mailer is None else {**tasks, "e-mail": self.mailer.run}

    def set_aside_count(self) -> int:
        return sum(aside.total_count for aside in self._asides)

    def _task_failed(self, name: str, words: str) -> None:
        self.alerts.raise_(TASK_ALERT, name, Severity.WARNING, f"task {name} failed and begins again: {words}")

    def _set_aside(self, subject: Subject, words: str) -> None:
        what = f"{subject} than have alerts of their own are" if subject.kind == MORE else f"a change of {subject} is"
        told = f"{what} not in force, or not told: {words}. The log has the details"
        self.alerts.raise_(ASIDE_ALERT, str(subject), Severity.CRITICAL, told)

    def _no_longer_aside(self, subject: Subject) -> None:
        if not any(subject in aside.subjects() for aside in self._asides):
            self.alerts.settle(ASIDE_ALERT, str(subject))

    async def _check_server(self) -> None:
        stats = self._engine.stats()
        for name, expires_at in self.shown.ends().items():
            self.watch.certificate((name,), expires_at, clock.wall_s())
        self.watch.memory(stats.get("buffer_bytes", 0), stats.get("buffer_limit_bytes", 0))
        self.watch.bandwidth(self._bandwidth.standings())
        self.watch.clocks(self._clocks.ours_skew_s())
        for uid in set(self.alerts.subjects(copies.ALERT)) - self._copies.tunnels():
            self.alerts.settle(copies.ALERT, uid)

    async def _check_disk(self) -> None:
        free_bytes, total_bytes = await disk_figures(self._directory)
        self.watch.disk(self._directory, free_bytes, total_bytes)

    async def _check_silent_tunnels(self) -> None:
        if not self.alert_offline_s:
            self.watch.offline({})
            return
        silent = self._offline.check(
            self._routes.slots(), lambda uid: self._registry.get(uid) is not None, clock.monotonic_s()
        )
        names: dict[str, str] = {}
        for uid in (uid for uid, silent_s in silent.items() if silent_s >= self.alert_offline_s):
            name = self._routes.hostname(uid)
            if self.alerts.is_open("offline", uid) or await self._is_missed(uid):
                names[uid] = name
        self.watch.offline(names)

    async def _is_missed(self, tunnel_uid: str) -> bool:
        """One that never connected, or that the operator shut down, is not."""
        try:
            tunnel = await self._store.run(self._store.store.tunnels.get, tunnel_uid)
        except NotFoundError:
            return False
        return tunnel.state in (TunnelState.ONLINE, TunnelState.OFFLINE)


def make_mailer(config: ServerConfig, resolve: Resolve) -> Mailer | None:
    """None where no e-mail is wanted. Fails: ConfigError for settings that cannot be used together."""
    if not config.smtp:
        return None
    if not config.mail_from or not config.mail_to:
        raise ConfigError("smtp is set, but not whom mail comes from and goes to", hint="set mail_from and mail_to")
    server = SmtpServer(config.smtp, _password(config.smtp_password_file), resolve, greeted_as=config.domain)
    return Mailer(server, sender=config.mail_from, recipients=config.mail_to, domain=config.domain)


def _password(path: str) -> str:
    if not path:
        return os.environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"smtp_password_file {path} cannot be read: {error}") from None
