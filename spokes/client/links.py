"""All links of an engine: dialling the server, and the engine's events handed to the links that they are of.

Owns: the engine's event descriptor in the loop.
Bound: ATTEMPT_COUNT_MAX attempts at once for one link.
Fails: ServerKeyError where the server is not the pinned one, UnreachableError for everything a network can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping

from spokes._fastpath.engine import Event, EventKind
from spokes.client.endpoint import Endpoint
from spokes.client.link import CLOSE_TIMEOUT_S, Link, LinkEngine
from spokes.client.link_faults import down_error, no_connection_error
from spokes.client.server_addresses import ServerAddresses
from spokes.errors import NobodyThereError, ServerKeyError, UnreachableError
from spokes.resolver import Resolve

LINK_UP_DEADLINE_S = 20.0  # TCP and TLS together; the engine has its own, shorter ones
ATTEMPT_DELAY_S = 1.0  # before another attempt begins beside one that has no connection yet
ATTEMPT_COUNT_MAX = 5  # at once: a path that comes back meanwhile is found within a second, on any kernel


class Links:
    """All links of one engine."""

    def __init__(self, engine: LinkEngine, *, resolve: Resolve) -> None:
        self._engine = engine
        self.addresses = ServerAddresses(resolve)
        self._links: dict[int, Link] = {}
        self.on_upstream_fault: Callable[[int], None] | None = None

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._engine.event_fd, self._drain)

    def stop(self) -> None:
        self.addresses.stop()
        asyncio.get_running_loop().remove_reader(self._engine.event_fd)

    async def dial(self, endpoint: Endpoint) -> Link:
        """A link that is up. Looks the name up afresh and tries its addresses in turn; where an attempt gets no answer,
        the next one begins beside it, from the first address again after the last."""
        addresses = await self.addresses.of(endpoint.host)
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
        """Return when every link is gone, so that a last bye was sent; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(link.wait_down() for link in list(self._links.values())))

    def _begin(self, address: str, endpoint: Endpoint) -> Link:
        try:
            link_id = self._engine.connect_link(
                address,
                endpoint.port,
                server_name=endpoint.server_name or endpoint.host,
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
                link.take_up(event.data.decode("ascii", "replace"))
            case EventKind.PONG:
                link.take_pong()
            case EventKind.CONTROL:
                link.take_control(event.data, event.code)
            case EventKind.LINK_WANTED if link.on_wanted is not None:
                link.on_wanted()
            case EventKind.LINK_DOWN:
                del self._links[event.link]
                words = event.data.decode("ascii", "replace")
                describe = down_error if link.connected else no_connection_error
                link.take_down(describe(event.code, words))


def _all_reasons(failures: Mapping[str, UnreachableError]) -> str:
    """Each address with its own reason, since any of them may be the one that tells; one where all are the same."""
    reasons = {address: str(error) for address, error in failures.items()}
    if len(set(reasons.values())) > 1:
        return ", ".join(f"{reason} ({address})" for address, reason in reasons.items())
    return next(iter(reasons.values()), "its name has no address")
