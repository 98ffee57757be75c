"""Whom the server tells of what, put together: alerts, the looks that raise them, webhooks, e-mail."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.config import ServerConfig
from spokes.errors import ConfigError, NotFoundError
from spokes.server.alerts import AlertBoard
from spokes.server.availability import Availability
from spokes.server.bandwidth import BandwidthLimits
from spokes.server.certificate_watch import CertificateWatch
from spokes.server.certificates import Certificate
from spokes.server.changes import ChangeFollower
from spokes.server.mail import PASSWORD_VARIABLE, Mailer, SmtpServer
from spokes.server.registry import Registry
from spokes.server.routes import RouteTable
from spokes.server.sessions import Sessions
from spokes.server.storethread import StoreThread
from spokes.server.users import Users
from spokes.server.watch import Clocks, Offline, Watch, disk_figures
from spokes.server.webhook_events import WebhookEvents
from spokes.server.webhooks import WebhookDispatcher
from spokes.store import TunnelState


class Notices:
    """Everything that may be told late and is never waited for."""

    def __init__(
        self,
        *,
        config: ServerConfig,
        directory: Path,
        engine: Engine,
        store: StoreThread,
        certificate: Certificate,
        routes: RouteTable,
        registry: Registry,
        users: Users,
        bandwidth: BandwidthLimits,
        sessions: Sessions,
        availability: Availability,
        follower: ChangeFollower,
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
        self.dispatcher = WebhookDispatcher(store, self.alerts)
        self.events = WebhookEvents(store, users, registry, on_queued=self.dispatcher.wake)
        self.mailer = make_mailer(config)
        self.alerts.listeners.append(self.events.alert_changed)
        if self.mailer is not None:
            self.alerts.listeners.append(self.mailer.put)
        availability.on_moves = self.events.services_moved
        follower.on_changes = self.changed
        sessions.strangers.on_client_clock = self._clocks.note
        self.certificates = CertificateWatch(
            engine=engine,
            routes=routes,
            watch=self.watch,
            directory=directory,
            domain=config.domain,
            certificate=certificate,
        )
        looks = (self.certificates.look, self._look_inside, self._look_at_disk, self._look_for_silent_tunnels)
        for look in looks:
            self.watch.add(look)

    def changed(self) -> None:
        """The change log grew, or somebody asked for a delivery to be sent again."""
        self.events.wake()
        self.dispatcher.wake()

    async def load(self) -> None:
        await self.alerts.load()
        await self.events.load()

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """To be run for as long as the server runs."""
        works = [self.alerts.run(), self.watch.run(), self.dispatcher.run(), self.events.run()]
        return works if self.mailer is None else [*works, self.mailer.run()]

    async def _look_inside(self) -> None:
        stats = self._engine.stats()
        certificate = self.certificates.current
        self.watch.certificate(certificate.names, certificate.expires_at, clock.wall_s())
        self.watch.memory(stats.get("buffer_bytes", 0), stats.get("buffer_limit_bytes", 0))
        self.watch.bandwidth(self._bandwidth.standings())
        self.watch.clocks(self._clocks.ours_skew_s())

    async def _look_at_disk(self) -> None:
        free_bytes, total_bytes = await disk_figures(self._directory)
        self.watch.disk(self._directory, free_bytes, total_bytes)

    async def _look_for_silent_tunnels(self) -> None:
        if not self.alert_offline_s:
            self.watch.offline({})
            return
        silent = self._offline.look(
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
            tunnel = await self._store.run(self._store.store.get_tunnel, tunnel_uid)
        except NotFoundError:
            return False
        return tunnel.state in (TunnelState.ONLINE, TunnelState.OFFLINE)


def make_mailer(config: ServerConfig) -> Mailer | None:
    """None where no e-mail is wanted. Fails: ConfigError for settings that cannot be used together."""
    if not config.smtp:
        return None
    if not config.mail_from or not config.mail_to:
        raise ConfigError("smtp is set, but not whom mail comes from and goes to", hint="set mail_from and mail_to")
    server = SmtpServer(config.smtp, _password(config.smtp_password_file))
    return Mailer(server, sender=config.mail_from, recipients=config.mail_to, domain=config.domain)


def _password(path: str) -> str:
    if not path:
        return os.environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"smtp_password_file {path} cannot be read: {error}") from None
