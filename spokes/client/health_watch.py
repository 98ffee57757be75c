"""How the local services do, told: read, shown, and sent to the server where it changed.

Bound: one message in REPEAT_S; a link that is lost takes nothing but the last one, which the next link is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from spokes.client.health import CHECK_INTERVAL_S, REPEAT_S, Conditions, Turn
from spokes.client.link import Link
from spokes.client.routes import Routes
from spokes.client.session import Session
from spokes.errors import SpokesError
from spokes.wire.messages import Health


class HealthWatch:
    """run() for as long as the client serves."""

    def __init__(
        self,
        conditions: Conditions,
        routes: Routes,
        *,
        online_session: Callable[[], Session | None],
        on_turns: Callable[[Sequence[Turn]], None],
    ) -> None:
        self._conditions = conditions
        self._routes = routes
        self._online_session = online_session
        self._on_turns = on_turns
        self._session: Session | None = None  # of the message that was sent last
        self._link: Link | None = None
        self._sent: Health | None = None
        self._sent_at = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            turns = self._conditions.check(self._routes.served())
            if turns:
                self._on_turns(turns)
            session = self._online_session()
            if session is not None:
                self._send_changes(session)

    def _send_changes(self, session: Session) -> None:
        link = session.link
        if link is not self._link:
            # what was sent last may have been lost with a link
            self._sent = None if session is self._session else Health()
            self._session, self._link, self._sent_at = session, link, 0.0
        now = self._conditions.message()
        if now != self._sent and time.monotonic() - self._sent_at >= REPEAT_S:
            with contextlib.suppress(SpokesError):  # the link was lost: sent again over the next one
                link.send(now)
                self._sent, self._sent_at = now, time.monotonic()
