"""One link as the control plane sees it: its handshake, and the messages and notifications that wait to be read.

Bound: messages are taken at a pace, because reading them costs the one thread that all links share; INBOX_BYTES_MAX
and INBOX_PARTS_MAX wait meanwhile, and more than that ends the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from spokes._fastpath.engine import Engine
from spokes.errors import ProtocolError, SpokesError, UnreachableError
from spokes.server.base.token_bucket import TokenBucket
from spokes.server.routing.decisions import RulesChanged
from spokes.wire.handshake import Handshake, ServerHandshake, State
from spokes.wire.messages import Bye, Message, Reason
from spokes.wire.parts import MESSAGE_BYTES_MAX, PART_BYTES_MAX, Part

INBOX_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
INBOX_PARTS_MAX = 1024
PART_RATE_PER_S = 10.0  # of one link in the long run; a client in order is far below
PART_BURST = 100
CLOSE_GRACE_S = 2.0  # for a bye to leave; a peer that reads nothing gets no longer

_REASONS = {"SPK-PROTOCOL": Reason.PROTOCOL, "SPK-LIMIT": Reason.LIMIT, "SPK-BUSY": Reason.LIMIT}


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """What was done for the link, apart from its own coroutine, met an error that no trying again mends."""

    error: Exception


Notification = RulesChanged | WorkFailed


class Link:
    """Sends and receives control messages on one engine link."""

    __slots__ = (
        "_arrived", "_askers", "_engine", "_inbox", "_inbox_bytes", "_is_over", "_notifications", "bucket", "handshake",
        "id", "lost", "nonce", "peer", "source", "task",
    )  # fmt: skip

    def __init__(self, engine: Engine, link: int, peer: str, handshake: Handshake | None = None) -> None:
        """`handshake`: of a link that was dialled here."""
        self._engine = engine
        self._inbox: deque[Part] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._notifications: dict[type[Notification], Notification] = {}  # the newest of each kind
        self.handshake = handshake or ServerHandshake()
        self.nonce = secrets.token_hex(16)
        self.id = link
        self._is_over = False
        self.lost = False  # the network's doing: neither end meant it
        self.bucket = TokenBucket(PART_RATE_PER_S, PART_BURST)
        self.peer = peer
        self.source = source_of(peer)
        self.task: asyncio.Task[None] | None = None
        self._askers: set[Callable[[], None]] = set()  # logins that are under way, each for a moment

    def ask(self, on_pong: Callable[[], None]) -> None:
        """Asks the peer whether it is there; calls back when it is. Others may be asking it too."""
        self._askers.add(on_pong)
        self._engine.ping_link(self.id)

    def forget(self, on_pong: Callable[[], None]) -> None:
        """The asker waits no longer."""
        self._askers.discard(on_pong)

    def take_pong(self) -> None:
        askers, self._askers = self._askers, set()
        for on_pong in askers:
            on_pong()

    async def is_there(self, within_s: float) -> bool:
        """Whether the peer answers in time."""
        answered = asyncio.Event()
        self.ask(answered.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await answered.wait()
        finally:
            self.forget(answered.set)
        return answered.is_set()

    def feed(self, payload: bytes, flags: int) -> None:
        """A CONTROL frame came."""
        self._inbox.append(Part(payload, flags))
        self._inbox_bytes += len(payload)
        if self._inbox_bytes > INBOX_BYTES_MAX or len(self._inbox) > INBOX_PARTS_MAX:
            self._inbox.clear()
            self._inbox_bytes = 0
            raise ProtocolError("control messages come faster than they can be answered")
        self._arrived.set()

    def tell(self, notification: Notification) -> None:
        """Tells the link's own coroutine. A newer notification replaces one of its kind that was not taken yet."""
        self._notifications[type(notification)] = notification
        self._arrived.set()

    def end(self) -> None:
        """The link, one that was dialled here, is down: who waits for a message is told."""
        self._is_over = True
        self._arrived.set()

    async def receive(self) -> Message:
        """The next message; notifications are left for receive_any()."""
        while (message := await self._arrived_message()) is None:
            if self._is_over:
                raise UnreachableError("the link was lost")
            self._arrived.clear()
            await self._arrived.wait()
        return message

    async def receive_any(self) -> Message | Notification:
        """The next message, or a notification once every message that arrived was taken."""
        while True:
            if (message := await self._arrived_message()) is not None:
                return message
            if self._notifications:
                return self._notifications.pop(next(iter(self._notifications)))
            self._arrived.clear()
            await self._arrived.wait()

    async def _arrived_message(self) -> Message | None:
        """One that is whole already."""
        while self._inbox:
            await self.bucket.turn(1.0 + len(self._inbox[0].payload) / PART_BYTES_MAX)
            part = self._inbox.popleft()
            self._inbox_bytes -= len(part.payload)
            message = self.handshake.receive(part.payload, part.flags)
            if message is not None:
                return message
        return None

    def send(self, message: Message) -> None:
        for part in self.handshake.send(message):
            self._engine.send_control(self.id, part.payload, part.flags)

    def send_bye(self, error: SpokesError, *, retry: bool, retry_after_s: float = 0.0) -> None:
        """`bye` where one may still be sent, then closed; cut when the peer does not read it."""
        if self.handshake.state is not State.CLOSED:
            words = f"{error.told}; {error.hint}" if error.hint else error.told
            reason = _REASONS.get(error.code, Reason.INTERNAL if error.http_status >= 500 else Reason.GONE)
            self.send(
                Bye(code=error.code, reason=reason, message=words[:1000], retry=retry, retry_after_s=retry_after_s)
            )
        self.close()

    def close(self) -> None:
        self._engine.close_link(self.id)
        asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self._engine.abort_link, self.id)


def source_of(peer: str) -> str:
    """What counts as one talker: an IPv4 address, or the /64 that one IPv6 subscriber has."""
    text = peer.partition(" ")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv4Address):
        return text
    return str(ipaddress.ip_network((address, 64), strict=False))
