"""Links as the event loop sees them: the engine's events become answers to wait for.

Owns: the engine's event descriptor in the loop, and each link's conversation (wire.handshake).
Bound: a link's inbox holds what one batch of events brings; the session's coroutine empties it at once.
Fails: ServerKeyError where the server is not the pinned one, UnreachableError for everything a network can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from spokes._fastpath.engine import Event, EventKind, LinkDown
from spokes.client.config import ClientConfig, join_host_port
from spokes.client.server_addresses import ServerAddresses
from spokes.errors import (
    NobodyThereError,
    ProtocolError,
    RemoteError,
    ServerKeyError,
    SpokesError,
    UnreachableError,
)
from spokes.pins import parse_fingerprint
from spokes.resolver import Resolve, Resolver
from spokes.wire.handshake import ClientHandshake, State
from spokes.wire.messages import Bye, Message, Reason

log = logging.getLogger(__name__)

UNTRUSTED_WORDS = "certificate verify failed"  # how the engine begins what OpenSSL found wrong with a chain
LINK_UP_DEADLINE_S = 20.0  # TCP and TLS together; the engine has its own, shorter ones
ATTEMPT_DELAY_S = 1.0  # before another attempt begins beside one that has no connection yet
ATTEMPT_COUNT_MAX = 5  # at once: a path that comes back meanwhile is found within a second, on any kernel
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server, and what proves that it is the right one: a pinned key, else authorities (given or the system's)."""

    host: str
    port: int
    pin_sha256: bytes = b""
    ca_file: str = ""

    @classmethod
    def of(cls, config: ClientConfig) -> Endpoint:
        host, port = config.server_address()
        pin = parse_fingerprint(config.server_key) if config.server_key else b""
        return cls(host=host, port=port, pin_sha256=pin, ca_file=config.server_ca)

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


class Link:
    """One link: wait until it is up, then send and receive control messages."""

    def __init__(self, engine: LinkEngine, link_id: int) -> None:
        self.id = link_id
        self.ended: SpokesError | None = None  # why it is down; None while it lives
        self.bye: Bye | None = None
        self.connected = False  # TCP stands
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
        """Say goodbye and close when that is sent."""
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

    def take_up(self) -> None:
        self.connected = True
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


class Links:
    """All links of one engine."""

    def __init__(self, engine: LinkEngine, *, resolve: Resolve | None = None) -> None:
        self._engine = engine
        self._addresses = ServerAddresses(resolve or Resolver().addresses)
        self._links: dict[int, Link] = {}
        self.on_link_wanted: Callable[[], None] | None = None
        self.on_upstream_fault: Callable[[int], None] | None = None

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._engine.event_fd, self._drain)

    def stop(self) -> None:
        self._addresses.stop()
        asyncio.get_running_loop().remove_reader(self._engine.event_fd)

    async def dial(self, endpoint: Endpoint) -> Link:
        """A link that is up. Looks the name up afresh and tries its addresses in turn; where an attempt gets no answer,
        the next one begins beside it, from the first address again after the last."""
        addresses = await self._addresses.of(endpoint.host)
        turns = itertools.cycle(addresses)
        begun_count = 0
        attempts: dict[asyncio.Task[None], tuple[str, Link]] = {}
        failures: dict[str, UnreachableError] = {}  # why, by address
        deadline = time.monotonic() + LINK_UP_DEADLINE_S
        next_due = True
        try:
            while attempts or begun_count < len(addresses):
                if next_due or not attempts:
                    begun_count += 1
                    address = next(turns)
                    try:
                        link = self._begin(address, endpoint)
                    except UnreachableError as error:
                        failures[address] = error
                        continue
                    attempts[asyncio.create_task(link.wait_up())] = address, link
                answering = self._has_connection(attempts)
                done, _ = await asyncio.wait(
                    attempts, timeout=None if answering else ATTEMPT_DELAY_S, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    address, link = attempts.pop(task)
                    try:
                        task.result()
                        return link
                    except ServerKeyError as error:
                        raise ServerKeyError(f"{endpoint}: {error}", hint=error.hint) from None
                    except UnreachableError as error:
                        failures[address] = error
                if time.monotonic() > deadline:
                    late = NobodyThereError("the connection attempt timed out")
                    failures |= dict.fromkeys((address for address, _ in attempts.values()), late)
                    break
                untried = begun_count < len(addresses)
                next_due = untried if done else not self._has_connection(attempts) and len(attempts) < ATTEMPT_COUNT_MAX
        finally:
            for task, (_, link) in attempts.items():
                task.cancel()
                link.abort()
        nobody = all(isinstance(error, NobodyThereError) for error in failures.values())
        kind = NobodyThereError if nobody else UnreachableError
        hints = {error.hint for error in failures.values()}
        hint = hints.pop() if len(hints) == 1 else ""
        raise kind(
            f"cannot reach {endpoint}: {_all_reasons(failures)}", hint=hint or "check the address and the network"
        )

    @staticmethod
    def _has_connection(attempts: Mapping[asyncio.Task[None], tuple[str, Link]]) -> bool:
        return any(link.connected for _, link in attempts.values())

    async def wait_all_down(self) -> None:
        """Return when every link is gone, so that a last goodbye was sent; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(link.wait_down() for link in list(self._links.values())))

    def _begin(self, address: str, endpoint: Endpoint) -> Link:
        try:
            link_id = self._engine.connect_link(
                address,
                endpoint.port,
                server_name=endpoint.host,
                pin_sha256=endpoint.pin_sha256,
                ca_file=endpoint.ca_file,
            )
        except OSError as error:
            raise NobodyThereError(error.strerror or str(error)) from None
        link = self._links[link_id] = Link(self._engine, link_id)
        return link

    def _drain(self) -> None:
        """Hand out everything that waits; a batch that was not full was the last."""
        batch_event_count = 256
        while True:
            events = self._engine.drain_events(batch_event_count)
            for event in events:
                self._take(event)
            if len(events) < batch_event_count:
                return

    def _take(self, event: Event) -> None:
        if event.kind == EventKind.UPSTREAM_FAULT:
            if self.on_upstream_fault is not None:
                self.on_upstream_fault(event.link)
            return
        link = self._links.get(event.link)
        if link is None:
            return
        match event.kind:
            case EventKind.LINK_CONNECTED:
                link.take_connected()
            case EventKind.LINK_UP:
                link.take_up()
            case EventKind.PONG:
                link.take_pong()
            case EventKind.CONTROL:
                link.take_control(event.data, event.code)
            case EventKind.LINK_WANTED if self.on_link_wanted is not None:
                self.on_link_wanted()
            case EventKind.LINK_DOWN:
                del self._links[event.link]
                words = event.data.decode("ascii", "replace")
                link.take_down(down_error(event.code, words) if link.connected else _no_connection(event.code, words))


def _all_reasons(failures: Mapping[str, UnreachableError]) -> str:
    """Each address with its own reason, since any of them may be the one that tells; one where all are the same."""
    reasons = {address: str(error) for address, error in failures.items()}
    if len(set(reasons.values())) > 1:
        return ", ".join(f"{reason} ({address})" for address, reason in reasons.items())
    return next(iter(reasons.values()), "its name has no address")


def _no_connection(code: int, words: str) -> SpokesError:
    """What the end of a link means that never had a TCP connection."""
    error = down_error(code, words)
    if isinstance(error, ServerKeyError) or code not in (LinkDown.SYSTEM, LinkDown.HANDSHAKE):
        return error
    return NobodyThereError("the connection attempt timed out" if code == LinkDown.HANDSHAKE else str(error))


def down_error(code: int, words: str) -> SpokesError:
    """What a LINK_DOWN means to the user."""
    match code:
        case LinkDown.PIN:
            return ServerKeyError(
                words or "the server's key is not the trusted one",
                hint="nothing was sent; compare with the fingerprint that `spokes server` prints at its start",
            )
        case LinkDown.TLS | LinkDown.HANDSHAKE if words.startswith(UNTRUSTED_WORDS):
            return ServerKeyError(
                f"the server's certificate is not trusted here: {words}",
                hint="nothing was sent; pin the server's key with --server-key, or name its authority with --ca",
            )
        case LinkDown.PROTOCOL:
            return UnreachableError(f"the server broke the link protocol ({words})")
        case LinkDown.DEAD:
            return UnreachableError("nothing heard from the server for 25 s")
        case LinkDown.TLS | LinkDown.HANDSHAKE:
            return UnreachableError(
                f"no TLS with the server ({words})", hint="name the port that it listens on for HTTPS"
            )
        case LinkDown.CLOSED:
            return UnreachableError("the server closed the connection")
        case LinkDown.LOCAL:
            return UnreachableError("the connection was closed here")
        case _:
            return UnreachableError(words or "the connection broke")


_HINTS = {  # what a server cannot know; the rest it says itself
    "SPK-REPLACED": "two clients use this configuration; give each its own with: spoke configure",
    "SPK-VERSION": "install the same version on both sides",
}


def bye_error(bye: Bye) -> RemoteError:
    return RemoteError(
        bye.message or "the server ended the session",
        code=bye.code,
        hint=_HINTS.get(bye.code, ""),
        retryable=bye.retry,
        retry_after_s=bye.retry_after_s,
    )
