"""Reports the health of the local services: reads it, shows what changed, and sends it to the server.

Bound: one message in REPEAT_S; what a lost link may have taken with it is sent again over the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from spokes.client.link import Link
from spokes.client.routes import Routes
from spokes.client.service_health import CHECK_INTERVAL_S, REPEAT_S, HealthChange, ServiceHealth
from spokes.client.session import Session
from spokes.errors import SpokesError
from spokes.wire.messages import Health


class HealthReporter:
    """`run` reads and reports until it is cancelled."""

    def __init__(
        self,
        service_health: ServiceHealth,
        routes: Routes,
        *,
        online_session: Callable[[], Session | None],
        on_changes: Callable[[Sequence[HealthChange]], None],
    ) -> None:
        self._service_health = service_health
        self._routes = routes
        self._online_session = online_session
        self._on_changes = on_changes
        self._session: Session | None = None  # of the message that was sent last
        self._link: Link | None = None
        self._sent: Health | None = None
        self._sent_at = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            changes = self._service_health.check(self._routes.served())
            if changes:
                self._on_changes(changes)
            session = self._online_session()
            if session is not None:
                self._send_changes(session)

    def _send_changes(self, session: Session) -> None:
        link = session.link
        if link is not self._link:
            # what was sent last may have been lost with the link
            self._sent = None if session is self._session else Health()
            self._session, self._link, self._sent_at = session, link, 0.0
        now = self._service_health.message()
        if now != self._sent and time.monotonic() - self._sent_at >= REPEAT_S:
            with contextlib.suppress(SpokesError):  # the link was lost: sent again over the next one
                link.send(now)
                self._sent, self._sent_at = now, time.monotonic()
