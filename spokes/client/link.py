"""One link as the event loop sees it: up, then messages in order, then down for one reason.

Owns: the link's side of the handshake (wire.handshake).
Bound: its inbox holds what one batch of events brings; the session's coroutine empties it at once.
Fails: with what ended the link.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from spokes._fastpath.engine import Event
from spokes.client.link_faults import bye_error
from spokes.errors import ProtocolError, SpokesError, UnreachableError
from spokes.wire.handshake import ClientHandshake, State
from spokes.wire.messages import Bye, Message, Reason

ANSWER_DEADLINE_S = 15.0
CLOSE_TIMEOUT_S = 2.0


class LinkEngine(Protocol):
    """The part of the engine that is used here."""

    event_fd: int

    def connect_link(
        self, address: str, port: int, *, server_name: str, pin_sha256: bytes = b"", ca_file: str = ""
    ) -> int: ...
    def send_control(self, link: int, payload: bytes, flags: int = 0) -> None: ...
    def ping_link(self, link: int) -> None: ...
    def close_link(self, link: int) -> None: ...
    def abort_link(self, link: int) -> None: ...
    def drain_events(self, event_count_max: int = 256) -> list[Event]: ...


class Link:
    """One link: wait until it is up, then send and receive control messages."""

    def __init__(self, engine: LinkEngine, link_id: int) -> None:
        self.id = link_id
        self.ended: SpokesError | None = None  # why it is down; None while it lives
        self.bye: Bye | None = None
        self.connected = False  # TCP stands
        self.peer = ""  # address and port, once it is up
        self.on_wanted: Callable[[], None] | None = None  # every link of its session is busy
        self._engine = engine
        self._handshake = ClientHandshake()
        self._up = asyncio.Event()  # up, or down before it ever was
        self._down = asyncio.Event()
        self._heard = asyncio.Event()
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()

    @property
    def state(self) -> State:
        return self._handshake.state

    async def wait_up(self) -> None:
        await self._up.wait()
        if self.ended is not None:
            raise self.ended

    def send(self, message: Message) -> None:
        for payload, flags in self._handshake.send(message):
            self._engine.send_control(self.id, payload, flags)

    async def wait_down(self) -> None:
        await self._down.wait()

    async def receive(self) -> Message:
        """The next message; raises what ended the link, a `bye` included."""
        message = await self._inbox.get()
        if message is None:
            assert self.ended is not None
            raise self.ended
        if isinstance(message, Bye):
            self.bye = message
            raise bye_error(message)
        return message

    async def expect(self, kind: type[Message], *, within_s: float = ANSWER_DEADLINE_S) -> Message:
        """The next message, which has to be of this kind."""
        try:
            async with asyncio.timeout(within_s):
                message = await self.receive()
        except TimeoutError:
            self.abort()
            raise UnreachableError("the server does not answer") from None
        if not isinstance(message, kind):
            raise ProtocolError(f"{type(message).__name__.lower()} where {kind.__name__.lower()} was due")
        return message

    def close(self, code: str = "SPK-CLOSED", message: str = "client ends") -> None:
        """Send a bye, and close when that is out."""
        if self.ended is None:
            if self._up.is_set() and self.state not in (State.NEW, State.CLOSED):
                self.send(Bye(code=code, reason=Reason.DRAIN.value, message=message, retry=False))
            self._engine.close_link(self.id)

    def abort(self) -> None:
        if self.ended is None:
            self._engine.abort_link(self.id)

    def ask(self) -> None:
        """Ask the peer whether it is there; `answered` tells."""
        self._heard.clear()
        if self.ended is None:
            self._engine.ping_link(self.id)

    @property
    def answered(self) -> bool:
        """Something came since the peer was asked."""
        return self._heard.is_set()

    async def wait_answered(self, within_s: float) -> bool:
        """Whether the peer answered in time; not when the link ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._heard.wait()
        return self.ended is None and self.answered

    # from Links

    def take_connected(self) -> None:
        self.connected = True

    def take_up(self, peer: str) -> None:
        self.connected = True
        self.peer = peer
        self._up.set()

    def take_pong(self) -> None:
        self._heard.set()

    def take_control(self, payload: bytes, flags: int) -> None:
        try:
            message = self._handshake.receive(payload, flags)
        except ProtocolError as error:
            self._refuse(error)
            return
        if message is not None:
            self._inbox.put_nowait(message)

    def _refuse(self, error: ProtocolError) -> None:
        """The server broke the protocol: it is told so, and has CLOSE_TIMEOUT_S to read it."""
        if self.ended is None and self.state is not State.CLOSED:
            self.send(Bye(code=error.code, reason=Reason.PROTOCOL.value, message=str(error)[:1000]))
        self._engine.close_link(self.id)
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._engine.abort_link, self.id)
        self.take_down(error)

    def take_down(self, error: SpokesError) -> None:
        if self.ended is None:
            self.ended = error
            self._inbox.put_nowait(None)
            self._up.set()
            self._heard.set()
            self._down.set()
