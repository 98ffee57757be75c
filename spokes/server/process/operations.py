"""Operations of the control socket: one method for each, by its name.

Owns: nothing; it asks the server's parts and tells them. Fails: an operation given the wrong words refuses them
(ValueRefusedError), a tunnel that is not on-line here is NotFoundError; nothing has happened then.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import spokes
from spokes import clock
from spokes._fastpath.engine import Engine, ListenerKind
from spokes.config import ServerConfig
from spokes.config_values import Address
from spokes.errors import NotFoundError, ValueRefusedError
from spokes.server.base.storethread import StoreThread
from spokes.server.certificates.certificates import Certificate
from spokes.server.notify.notifications import Notifications
from spokes.server.process.admin_process import AdminProcess
from spokes.server.process.control import Args, Operation
from spokes.server.process.metrics import (
    TUNNEL_COUNT_DEFAULT,
    alert_figures,
    process_figures,
    service_traffic_figures,
    session_figures,
    tunnel_traffic_figures,
    webhook_figures,
)
from spokes.server.process.status import traffic_figures, tunnel_count_figures, tunnel_figures
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.ports import PortListeners
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.live import Live
from spokes.server.sessions.registry import Registry
from spokes.server.sessions.sessions import Sessions
from spokes.supervisor import Supervisor


class Serving(Protocol):
    """What only the server as a whole knows, or does."""

    config: ServerConfig
    admin: AdminProcess | None
    started: clock.Since | None
    ports: PortListeners
    supervisor: Supervisor
    link_certificate: Certificate

    def addresses(self, kind: ListenerKind) -> list[Address]: ...

    async def reload(self) -> list[str]: ...


class Operations:
    """The operations of one running server."""

    def __init__(
        self,
        *,
        server: Serving,
        engine: Engine,
        store: StoreThread,
        registry: Registry,
        routes: RouteTable,
        follower: ChangeFollower,
        sessions: Sessions,
        notifications: Notifications,
    ) -> None:
        self._server = server
        self._engine = engine
        self._store = store
        self._registry = registry
        self._routes = routes
        self._follower = follower
        self._sessions = sessions
        self._notifications = notifications
        self._live = Live(engine, registry, routes)

    def by_name(self) -> dict[str, Operation]:
        return {
            "health": self.health,
            "status": self.status,
            "certificates": self.certificates,
            "tunnels": self.tunnels,
            "live": self.live,
            "metrics": self.metrics,
            "close_tunnel": self.close_tunnel,
            "stop_tunnel": self.stop_tunnel,
            "webhook_test": self.webhook_test,
            "changed": self.changed,
            "reload": self.reload,
        }

    # what is

    async def health(self, _args: Args) -> dict[str, Any]:
        """Nothing but that the event loop goes round."""
        return {}

    async def status(self, _args: Args) -> dict[str, Any]:
        server, store = self._server, self._store.store
        return {
            "version": spokes.__version__,
            "pid": os.getpid(),
            "domain": server.config.domain,
            "uptime_s": int(server.started.lasted_s()) if server.started else 0,
            "http": [str(address) for address in server.addresses(ListenerKind.HTTP)],
            "https": [str(address) for address in server.addresses(ListenerKind.TLS)],
            "tcp_ports": str(self._server.config.tcp_ports),
            "tunnels": tunnel_count_figures(self._registry, self._routes),
            **traffic_figures(self._engine),
            "link_key": server.link_certificate.fingerprint,
            "certificates": [self._certificate()],
            "store": {"where": store.where, "statements_total": store.statement_count},
            "admin": {"pid": server.admin.pid, "starts_total": server.admin.start_count} if server.admin else None,
            "role": "standalone",
            "change_seq": self._follower.seq,
            "changes_set_aside": [str(one) for one in self._follower.set_aside.subjects()],
            "tasks": server.supervisor.figures(),
        }

    async def certificates(self, _args: Args) -> list[dict[str, Any]]:
        own = self._notifications.shown.own()
        return [*([own] if own is not None else []), *self._notifications.certs_extra.list()]

    async def tunnels(self, _args: Args) -> list[dict[str, Any]]:
        return [tunnel_figures(self._engine, self._routes, session) for session in self._registry.sessions()]

    async def live(self, args: Args) -> dict[str, Any]:
        return self._live.figures(args)

    async def metrics(self, args: Args) -> dict[str, Any]:
        tunnel_count = args.get("tunnel_count", TUNNEL_COUNT_DEFAULT)
        admin = self._server.admin
        return {
            "version": spokes.__version__,
            "started_at": self._server.started.wall_s if self._server.started else 0.0,
            "engine": self._engine.stats(),
            "workers": self._engine.worker_stats(),
            "process": process_figures(),
            "store": {"statements_total": self._store.store.statement_count, "change_seq": self._follower.seq},
            "sessions": session_figures(self._registry, self._sessions.link_count, self._routes),
            "tunnels": tunnel_traffic_figures(self._engine, self._registry, self._routes, tunnel_count),
            "services": service_traffic_figures(self._engine, self._routes, tunnel_count),
            "webhooks": webhook_figures(self._notifications.dispatcher),
            "alerts": alert_figures(self._notifications.alerts),
            "tasks": self._server.supervisor.figures(),
            "set_aside_total": self._notifications.set_aside_count(),
            "certificates": [self._certificate()],
            "admin": {"starts_total": admin.start_count if admin else 0},
        }

    def _certificate(self) -> dict[str, Any]:
        certificate = self._notifications.certificates.current
        return {
            "names": list(certificate.names),
            "expires": certificate.expires_at,
            "fingerprint": certificate.fingerprint,
        }

    # what is to happen

    async def close_tunnel(self, args: Args) -> dict[str, Any]:
        return _ended(self._sessions.close_tunnel(_tunnel_named(args)))

    async def stop_tunnel(self, args: Args) -> dict[str, Any]:
        return _ended(self._sessions.stop_tunnel(_tunnel_named(args)))

    async def webhook_test(self, args: Args) -> dict[str, Any]:
        webhook_uid = args.get("webhook_uid")
        if not isinstance(webhook_uid, str):
            raise ValueRefusedError("the webhook's id is missing")
        await self._notifications.events.queue_test(webhook_uid)
        return {}

    async def changed(self, _args: Args) -> dict[str, Any]:
        await self._follower.catch_up()
        self._notifications.changed()  # deliveries to be sent again are no changes
        return {"seq": self._follower.seq, "refused_ports": sorted(self._server.ports.faults)}

    async def reload(self, _args: Args) -> dict[str, Any]:
        return {"restart_needed_for": await self._server.reload()}


def _tunnel_named(args: Args) -> str:
    tunnel_uid = args.get("id")
    if not isinstance(tunnel_uid, str):
        raise ValueRefusedError("the tunnel's id is missing")
    return tunnel_uid


def _ended(was_online: bool) -> dict[str, Any]:
    if not was_online:
        raise NotFoundError("this tunnel is not on-line here")
    return {}
