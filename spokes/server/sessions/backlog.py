"""Rules on their way between one link and the store: done at once, or again and again once the store is back.

A database that is away must neither end a session that carries traffic nor hold up what else the session says. So what
the store failed waits here, beside the link's own coroutine, in a task that lives as long as something waits.
Bound: one list of services, the newest, since each is whole; ANSWERS_DUE_MAX lists that it answers for. A client that
says more is not heard until they are answered.
Fails: whatever is no fault of the store's is told to the link (WorkFailed), and raised by what is asked next.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Protocol

from spokes.errors import StoreError
from spokes.server.base.worker_loop import wait_until_set
from spokes.server.sessions.link import Link, WorkFailed
from spokes.server.sessions.registry import Session
from spokes.wire.messages import Delayed, Fault, Services

log = logging.getLogger(__name__)

STORE_RETRY_S = 5.0
STORE_RETRY_S_MAX = 30.0  # every session may be waiting, and the store has one thread
RETRY_INTERVAL_S_MIN = 1.0  # however often the store answers something else meanwhile
ANSWERS_DUE_MAX = 16


class BringConfig(Protocol):
    async def __call__(self, link: Link, session: Session) -> None: ...


class TakeServices(Protocol):
    async def __call__(self, link: Link, session: Session, services: Services, answer_count: int) -> None: ...


class Backlog:
    """Of one primary link."""

    __slots__ = (
        "_answers_due", "_bring", "_bring_config", "_failed", "_fault", "_link", "_room",
        "_services", "_session", "_take_services", "_task", "_told", "_tried", "_tried_at", "_try_now",
    )  # fmt: skip

    def __init__(
        self, link: Link, session: Session, *, bring_config: BringConfig, take_services: TakeServices
    ) -> None:
        self._link = link
        self._session = session
        self._bring_config = bring_config
        self._take_services = take_services
        self._bring = False  # the stored rules are to be sent
        self._services: Services | None = None
        self._answers_due = 0  # lists that wait with `_services`, which took their place, and itself
        self._fault: Fault | None = None  # why something waits
        self._told = False  # the client knows that its newest list waits
        self._failed: Exception | None = None
        self._room = asyncio.Event()
        self._try_now = asyncio.Event()
        self._tried = asyncio.Event()
        self._tried_at = 0.0  # loop time of the latest attempt that failed
        self._task: asyncio.Task[None] | None = None

    async def bring_config(self) -> None:
        self._bring = True
        await self._begin()

    async def take_services(self, services: Services) -> None:
        while self._answers_due >= ANSWERS_DUE_MAX and self._task is not None:
            self._room.clear()
            await self._room.wait()
        if self._failed is not None:
            raise self._failed
        self._services = services
        self._answers_due += 1
        self._told = False
        self._tell()
        await self._begin()

    async def store_answered(self) -> None:
        """The store did something else for the session: what waits is tried at once, and before that is told."""
        now = asyncio.get_running_loop().time()
        if self._task is not None and now - self._tried_at >= RETRY_INTERVAL_S_MIN:
            self._tried.clear()
            self._try_now.set()
            await self._tried.wait()

    def cancel(self) -> None:
        """The link is over."""
        if self._task is not None:
            self._task.cancel()

    async def _begin(self) -> None:
        """Does it now, or leaves it to the task that waits for the store."""
        if self._task is not None:
            return
        if await self._try() is not None:
            self._task = asyncio.get_running_loop().create_task(self._retry(), name=f"backlog {self._link.id}")

    async def _retry(self) -> None:
        wait_s = STORE_RETRY_S
        try:
            while True:
                await wait_until_set(
                    self._try_now, random.uniform(0.5, 1.0) * wait_s  # noqa: S311 (spreads load, guards nothing)
                )
                self._try_now.clear()
                wait_s = min(2 * wait_s, STORE_RETRY_S_MAX)
                if await self._try() is None:
                    return
        except Exception as error:
            self._failed = error
            self._link.tell(WorkFailed(error))
        finally:
            self._task = None
            self._room.set()
            self._tried.set()

    async def _try(self) -> StoreError | None:
        """Everything that waits; the rules at the server first, which a list may not know."""
        try:
            while self._bring or self._services is not None:
                if self._bring:
                    await self._try_config()
                else:
                    await self._try_services()
        except StoreError as error:
            log.error("store failed a session", extra={"code": error.code, "detail": str(error)})
            self._fault = Fault.of(error)
            self._tried_at = asyncio.get_running_loop().time()
            self._tried.set()
            self._tell()
            return error
        self._fault = None
        return None

    async def _try_config(self) -> None:
        self._bring = False
        try:
            await self._bring_config(self._link, self._session)
        except StoreError:
            self._bring = True
            raise

    async def _try_services(self) -> None:
        services, answer_count = self._services, self._answers_due
        assert services is not None
        self._services, self._answers_due = None, 0
        try:
            await self._take_services(self._link, self._session, services, answer_count)
        except StoreError:
            if self._services is None:  # else a newer one came meanwhile
                self._services = services
            self._answers_due += answer_count
            raise
        self._room.set()

    def _tell(self) -> None:
        """That lists wait, once for each of them."""
        if self._fault is not None and self._services is not None and not self._told:
            self._told = True
            self._link.send(Delayed(error=self._fault))
