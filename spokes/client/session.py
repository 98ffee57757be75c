"""One session: greeting, login, then messages until no link is left to carry them.

The coroutine of a session reads its primary link alone, in order; requests wait for their answers by id.
Fails: whatever ended the last link; RemoteError carries the server's `bye`.
Source: docs/protocol.md, "Handshake", "Afterwards" and "Losing a link".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import msgspec

import spokes
from spokes.client.endpoint import Endpoint
from spokes.client.link import ANSWER_DEADLINE_S, Link
from spokes.client.links import Links
from spokes.errors import InternalError, RemoteError, SpokesError, UnreachableError
from spokes.wire.messages import (
    PROTOCOL_VERSIONS,
    Accepted,
    Address,
    Agent,
    Answer,
    Config,
    Delayed,
    Drain,
    Fault,
    Hello,
    Join,
    Joined,
    Lead,
    Leading,
    Login,
    Message,
    Ready,
    Register,
    Registered,
    Request,
    Services,
    Welcome,
)

log = logging.getLogger(__name__)

Bind = Callable[[Link], None]

CLOCK_SKEW_TOLERATED_S = 120
LOGIN_DEADLINE_S = 45.0  # after a restart a server lets its clients in one after the other


def agent() -> Agent:
    return Agent(version=spokes.__version__, os=platform.system().lower(), arch=platform.machine())


def _hello() -> Hello:
    return Hello(versions=PROTOCOL_VERSIONS, agent=agent(), time=int(time.time()))


async def _greet(link: Link, first: Message) -> None:
    """Hello with the first real message right behind it; the welcome."""
    link.send(_hello())
    link.send(first)
    welcome = await link.expect(Welcome)
    assert isinstance(welcome, Welcome)
    skew_s = int(time.time()) - welcome.time
    if abs(skew_s) > CLOCK_SKEW_TOLERATED_S:
        log.warning("this host's clock differs from the server's; set it right", extra={"ahead_s": skew_s})


async def register(links: Links, endpoint: Endpoint, *, token: str, name: str) -> Registered:
    """A new tunnel for a registration token."""
    link = await links.dial(endpoint)
    try:
        await _greet(link, Register(token=token, name=name))
        registered = await link.expect(Registered, within_s=LOGIN_DEADLINE_S)
        assert isinstance(registered, Registered)
        return registered
    finally:
        link.close()


async def log_in(
    links: Links, endpoint: Endpoint, *, key: str, mode: Literal["serve", "control"], bind: Bind | None = None
) -> tuple[Link, Ready]:
    """`bind` is called before the server is asked to serve: it may open streams as soon as it has said `ready`."""
    link = await links.dial(endpoint)
    try:
        if bind is not None:
            bind(link)
        await _greet(link, Login(key=key, mode=mode, supports_failover=mode == "serve"))
        ready = await link.expect(Ready, within_s=LOGIN_DEADLINE_S)
    except BaseException:
        link.abort()
        raise
    assert isinstance(ready, Ready)
    return link, ready


async def join(links: Links, endpoint: Endpoint, session: str, *, bind: Bind | None = None) -> Link:
    """An additional link of a session that is up; `bind` as for log_in."""
    link = await links.dial(endpoint)
    try:
        if bind is not None:
            bind(link)
        await _greet(link, Join(session=session))
        await link.expect(Joined)
    except BaseException:
        link.abort()
        raise
    return link


def delayed_error(fault: Fault) -> RemoteError:
    """What it means for the rules here that the server cannot store them now."""
    return RemoteError(
        f"the server cannot store the rules now: {fault.message}",
        code=fault.code,
        hint="they are kept here, and in force as soon as the server has stored them",
        retryable=True,
    )


class _Announced(NamedTuple):
    """A list on its way. Its answer is due also when whoever said it has given up, `answer` being done."""

    services: Services
    answer: asyncio.Future[Accepted]
    has_deadline: bool  # whoever announced it waits for a limited time


class Session:
    """A session after `ready`: what goes over its primary link.

    `next_link` gives another link of the session to be primary in place of a lost one, or None. `on_delayed` hears that
    the server cannot store what was announced now, `on_late` the answer to a list whose caller gave up, `on_resumed`
    which list the server took after it had said so: others may have been refused here meanwhile.
    """

    def __init__(
        self,
        link: Link,
        ready: Ready,
        *,
        on_config: Callable[[Config], None] | None = None,
        on_address: Callable[[], None] | None = None,
        on_delayed: Callable[[Fault], None] | None = None,
        on_late: Callable[[Services, Accepted], None] | None = None,
        on_resumed: Callable[[Services], None] | None = None,
        next_link: Callable[[], Link | None] | None = None,
        node: str = "",
    ) -> None:
        """`node`: which of the server's nodes it is with."""
        self.node = node
        self.link = link
        self.ready = ready
        self.ended: SpokesError | None = None
        self.draining = False  # the server takes no more links and streams
        self.retry_after_s = 0.0  # what a draining server asked for
        self.delayed: Fault | None = None  # why the server has not taken what was announced
        self.revision = ready.rules_rev  # of this server's rules that are brought together with ours
        self.config_count = 0  # lists of rules that this server has sent
        self.announcing = asyncio.Lock()  # held by whoever announces with a deadline
        self._on_config = on_config
        self._on_address = on_address
        self._on_delayed = on_delayed
        self._on_late = on_late
        self._on_resumed = on_resumed
        self._next_link = next_link
        self._request_ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._announced: deque[_Announced] = deque()

    async def run(self) -> None:
        """Take messages until no link is left; always raises."""
        try:
            while True:
                try:
                    self._take(await self.link.receive())
                except UnreachableError as error:
                    await self._move(error)
        except SpokesError as error:
            self._give_up(error)
            raise
        except Exception:
            self._give_up(InternalError("the client failed at a message; its log says why"))
            raise

    async def _move(self, loss: UnreachableError) -> None:
        """Go on over another link; fails with the loss where there is none."""
        while self.ready.supports_failover and self._next_link is not None and (link := self._next_link()) is not None:
            try:
                await self._lead(link)
            except UnreachableError:
                continue  # lost as well
            self.link = link
            log.info("session goes on over another link", extra={"reason": str(loss)})
            self._say_again()
            return
        raise loss

    async def _lead(self, link: Link) -> None:
        """Make it the primary link."""
        try:
            link.send(Lead())
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                while not isinstance(message := await link.receive(), Leading):
                    self._take(message)
        except TimeoutError:
            link.abort()
            raise UnreachableError("the server does not answer") from None
        except BaseException:
            link.abort()
            raise

    def _say_again(self) -> None:
        """What was on its way over the lost link. A list of services may come twice; a request may have been done, so
        whoever made it is to decide."""
        self.delayed = None  # said again where it still holds
        for announced in self._announced:
            self.link.send(announced.services)
        self._fail(self._answers.values(), UnreachableError("the link broke before the answer", hint="try again"))
        self._answers.clear()

    def _take(self, message: Message) -> None:
        match message:
            case Answer():
                waiting = self._answers.pop(message.id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Accepted():
                if self._announced:
                    self._take_accepted(self._announced.popleft(), message)
            case Delayed():
                if self._announced:
                    self._take_delayed(message)
            case Config():
                self.config_count += 1
                if self._on_config is not None:
                    self._on_config(message)
            case Address():
                self.ready = msgspec.structs.replace(self.ready, url=message.url)
                if self._on_address is not None:
                    self._on_address()
            case Drain():
                self.draining = True
                self.retry_after_s = message.retry_after_s
                log.info("server is about to stop", extra={"retry_after_s": message.retry_after_s})

    def _take_accepted(self, first: _Announced, accepted: Accepted) -> None:
        was_delayed, self.delayed = self.delayed is not None, None
        if not first.answer.done():
            first.answer.set_result(accepted)
        elif self._on_late is not None:
            self._on_late(first.services, accepted)
        if was_delayed and self._on_resumed is not None:
            self._on_resumed(first.services)

    def _take_delayed(self, message: Delayed) -> None:
        """Whoever waits with a deadline hears it now; the answer comes all the same."""
        self.delayed = message.error
        self._fail((one.answer for one in self._announced if one.has_deadline), delayed_error(message.error))
        if self._on_delayed is not None:
            self._on_delayed(message.error)

    def _give_up(self, error: SpokesError) -> None:
        self.ended = error
        self._fail(self._answers.values(), error)
        self._fail((one.answer for one in self._announced), error)
        self._answers.clear()
        self._announced.clear()

    @staticmethod
    def _fail(everyone: Iterable[asyncio.Future[Any]], error: SpokesError) -> None:
        for waiting in everyone:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # seen; whoever waits still gets it

    async def request(self, op: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the server; RemoteError when it refuses."""
        self._require_up()
        request_id = next(self._request_ids)
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = waiting
        try:
            self.link.send(Request(id=request_id, op=op, args=args or {}))
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                answer = await waiting
        except TimeoutError:
            raise UnreachableError("the server does not answer", hint="try again") from None
        finally:
            self._answers.pop(request_id, None)
        if answer.error is not None:
            raise RemoteError(answer.error.message, code=answer.error.code, retryable=answer.error.retry)
        return answer.result or {}

    async def announce(self, services: Services, *, within_s: float | None = ANSWER_DEADLINE_S) -> Accepted:
        """Tell what is served now; what the server put in force of it. `within_s` None: for as long as the session
        lives; a server whose store is away answers when it is back. With a deadline that is an error at once; the list
        is the server's to take all the same, and no other is said before it has.
        """
        self._require_up()
        has_deadline = within_s is not None
        if has_deadline and self.delayed is not None:
            await self._ask_whether_delayed()
        waiting: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._announced.append(_Announced(services, waiting, has_deadline))
        self.link.send(services)
        try:
            async with asyncio.timeout(within_s):
                return await waiting
        except TimeoutError:
            raise UnreachableError("the server does not answer", hint="try again") from None

    async def _ask_whether_delayed(self) -> None:
        """A server whose store answers anything tries what waits at once, and says so first."""
        with contextlib.suppress(SpokesError):
            await self.request("tunnel.info")
        self._require_up()
        if self.delayed is not None:
            raise delayed_error(self.delayed)

    def _require_up(self) -> None:
        if self.ended is not None:
            raise self.ended
