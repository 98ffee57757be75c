"""Logins: the keys and registration tokens that links show, and the tunnel that each is for.

Bound: the queue of `admission`; a source that showed too many wrong ones is refused before it costs a turn.
Fails: TokenError and InactiveError for good, AdmissionRefusedError for now; nothing was stored then.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from spokes.errors import InactiveError, TokenError
from spokes.model.operation import UNAUTHENTICATED, perform
from spokes.model.tunnels import RegisterTunnel
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.routes import RouteTable
from spokes.server.routing.stored_config import StoredConfig, config_of
from spokes.server.sessions.admission import Admission, FailedLogins
from spokes.server.sessions.link import Link
from spokes.store import Store, Tunnel
from spokes.wire.messages import Login, Register, Registered
from spokes.wire.rules import TunConfig

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """A tunnel that may log in now."""

    tunnel: Tunnel
    config: TunConfig
    revision: int  # of the rules
    slot: int  # of the route table


class Logins:
    """Asks the store, a bounded number at a time."""

    def __init__(
        self, *, store: StoreThread, admission: Admission, follower: ChangeFollower, routes: RouteTable, domain: str
    ) -> None:
        self._store = store
        self._admission = admission
        self._follower = follower
        self._routes = routes
        self._domain = domain
        self._failed = FailedLogins()

    async def register(self, link: Link, request: Register) -> None:
        """Makes a tunnel, tells its key, and ends the link."""
        store = self._store.store
        async with self._turn(link):
            operation = RegisterTunnel(token=request.token, name=request.name, domain=self._domain)
            tunnel, key = await self._store.perform(perform, store, UNAUTHENTICATED, operation)
            await self._follower.catch_up()
        link.send(Registered(tunnel=tunnel.uid, hostname=tunnel.hostname, key=key))
        link.close()
        log.info("tunnel registered", extra={"tunnel_uid": tunnel.uid, "hostname": tunnel.hostname, "peer": link.peer})

    async def find(self, link: Link, request: Login) -> Found:
        async with self._turn(link):
            tunnel, (config, revision) = await self._store.run(
                _find_login, self._store.store, request.key, self._domain
            )
            if self._routes.slot(tunnel.uid) is None:
                await self._follower.catch_up()
        slot = self._routes.slot(tunnel.uid)
        if slot is None or self._follower.is_blocked(tunnel.uid):
            raise InactiveError("this tunnel was shut down or deleted", hint="ask the operator")
        return Found(tunnel, config, revision, slot)

    @asynccontextmanager
    async def _turn(self, link: Link) -> AsyncIterator[None]:
        self._failed.check(link.source)
        async with self._admission.turn():
            try:
                async with self._store.patience():
                    yield
            except TokenError:
                self._failed.note(link.source)
                raise


def _find_login(store: Store, key: str, domain: str) -> tuple[Tunnel, StoredConfig]:
    """The tunnel that logs in with this key, and its rules."""
    tunnel = store.tunnels.find_by_key(key)
    return tunnel, config_of(store, tunnel, domain)
