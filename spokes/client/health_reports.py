"""Reports the health of the local services: reads it, shows what changed, and sends it to every node of the server.

Bound: one message of each session in REPEAT_S. What a lost link may have taken with it is sent again over the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        online_sessions: Callable[[], Sequence[Session]],
        on_changes: Callable[[Sequence[HealthChange]], None],
    ) -> None:
        self._service_health = service_health
        self._routes = routes
        self._online_sessions = online_sessions
        self._on_changes = on_changes
        self._sent: dict[Session, _Sent] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            changes = self._service_health.check(self._routes.served())
            if changes:
                self._on_changes(changes)
            sessions = self._online_sessions()
            for gone in self._sent.keys() - set(sessions):
                del self._sent[gone]
            for session in sessions:
                self._send_changes(session)

    def _send_changes(self, session: Session) -> None:
        sent = self._sent.get(session)
        if sent is None:
            sent = self._sent[session] = _Sent(session.link, Health())
        elif sent.link is not session.link:
            # what was sent last may have been lost with the link
            sent = self._sent[session] = _Sent(session.link, None)
        now = self._service_health.message()
        if now != sent.message and time.monotonic() - sent.at >= REPEAT_S:
            with contextlib.suppress(SpokesError):  # the link was lost: sent again over the next one
                session.link.send(now)
                sent.message, sent.at = now, time.monotonic()


@dataclass(slots=True)
class _Sent:
    """The message that was sent last over a session."""

    link: Link
    message: Health | None  # None: it may have been lost
    at: float = 0.0  # monotonic
