"""The links of a session beside its primary one: opened on demand, replaced when lost, given up when idle, and next in
line to be primary.

Bound: as many as the server allows the session; one is being opened at a time.
Fails: a link that cannot be opened is logged; the session goes on with those it has.
Source: docs/protocol.md, "Losing a link".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from spokes.client.endpoint import Endpoint
from spokes.client.link import Link
from spokes.client.links import Links
from spokes.client.reconnect import Backoff
from spokes.client.session import Session, join
from spokes.errors import RemoteError, SessionUnknownError, SpokesError

log = logging.getLogger(__name__)

LINK_IDLE_CLOSE_S = 60.0  # additional links are given up when no stream was open for so long
LINK_CHECK_INTERVAL_S = 5.0


class BindingEngine(Protocol):
    """The part of the engine that is used here."""

    def bind_link(self, link: int, tunnel: int) -> None: ...
    def drain_link(self, link: int) -> None: ...


class AdditionalLinks:
    def __init__(
        self,
        engine: BindingEngine,
        links: Links,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        streams_open: Callable[[], int],
        tunnel: int,
    ) -> None:
        self._engine = engine
        self._links = links
        self._spawn = spawn
        self._streams_open = streams_open
        self._session: Session | None = None
        self._endpoint: Endpoint
        self._tunnel = tunnel
        self._readers: dict[Link, asyncio.Task[None]] = {}
        self._draining: list[Link] = []
        self._joining = asyncio.Lock()
        self._opening = False
        self._idle_since = time.monotonic()
        self._restoring = False
        self._lost_count = 0  # links that are to be replaced

    @property
    def links(self) -> list[Link]:
        return [link for link in self._readers if link.ended is None]

    def begin(self, session: Session, endpoint: Endpoint) -> None:
        """The session that links are for from now on."""
        self._session, self._endpoint, self._lost_count = session, endpoint, 0

    def abort(self) -> None:
        """The session is over."""
        self._session = None
        for link in self.links:
            link.abort()

    def want(self) -> None:
        """Open one more, unless the session has all it may have."""
        session = self._session
        if session is not None and not self._opening and self._may_join(session):
            self._opening = True
            self._spawn(self._open(session))

    def take_next(self) -> Link | None:
        """A link that is up, to be primary in place of a lost one; it is none of these any more."""
        usable = [link for link in self.links if link not in self._draining]
        if self._session is None or not usable:
            return None
        self._readers.pop(usable[0]).cancel()
        self._replace()
        return usable[0]

    def tend(self) -> None:
        """Give links up when nothing has used the session for long. Called every LINK_CHECK_INTERVAL_S."""
        if self._streams_open():
            self._idle_since = time.monotonic()
            return
        for link in self._draining:  # drained one interval ago and still no stream: none can be on it
            link.close(message="idle")
        self._draining = []
        if time.monotonic() - self._idle_since > LINK_IDLE_CLOSE_S:
            self._draining = self.links
            for link in self._draining:
                self._engine.drain_link(link.id)

    def _may_join(self, session: Session) -> bool:
        return (
            session is self._session
            and session.ended is None
            and not session.draining
            and bool(session.ready.session)
            and 1 + len(self.links) < session.ready.link_count_max
        )

    async def _open(self, session: Session) -> None:
        try:
            await self._join(session)
        except SpokesError as error:
            log.warning("no additional link", extra={"reason": error.line()})
        except Exception:
            log.exception("no additional link")
        finally:
            self._opening = False

    async def _join(self, session: Session) -> None:
        async with self._joining:
            if not self._may_join(session):
                return
            link = await join(self._links, self._endpoint, session.ready.session, bind=self.bind)
            if self._session is not session or session.ended is not None:
                link.abort()
                return
            self._readers[link] = self._spawn(self._read(link, session))
        log.info("additional link", extra={"link_count": 1 + len(self.links)})

    def bind(self, link: Link) -> None:
        """Before the server is asked to use the link: it may open streams at once."""
        self._engine.bind_link(link.id, self._tunnel)
        link.on_wanted = self.want

    async def _read(self, link: Link, session: Session) -> None:
        """An additional link carries streams; what is to be heard on it is its end."""
        try:
            while True:
                await link.receive()
        except SpokesError as error:
            log.info("additional link ended", extra={"reason": str(error)})
            self._readers.pop(link, None)
            link.abort()
            if link.bye is None and link not in self._draining and session is self._session:
                self._replace()

    def _replace(self) -> None:
        self._lost_count += 1
        if not self._restoring:
            self._restoring = True
            self._spawn(self._restore())

    async def _restore(self) -> None:
        """As many links as there were before some were lost; tried for as long as the session lives."""
        backoff = Backoff()
        try:
            while self._lost_count and (session := self._session) is not None and self._may_join(session):
                try:
                    await self._join(session)
                    self._lost_count -= 1
                except RemoteError as error:
                    if error.code == SessionUnknownError.code:
                        return
                    await asyncio.sleep(backoff.next_wait_s(error.retry_after_s))
                except SpokesError:
                    await asyncio.sleep(backoff.next_wait_s())
                except Exception:
                    log.exception("no additional link")
                    await asyncio.sleep(backoff.next_wait_s())
        finally:
            self._restoring = False
            self._lost_count = 0
