"""The rules in force: file and server merged, served by the engine, announced, and what the server accepted of them.

Owns: the revision that both sides agreed on last, and the server's answer to the announced rules.
Bound: one change at a time. Of configurations that come meanwhile only the newest waits, however many come.
Fails: never by itself; what the server or the file refuses is noted as trouble.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from spokes.client.configured_rules import Rules
from spokes.client.link import ANSWER_DEADLINE_S
from spokes.client.routes import Routes
from spokes.client.rule_limits import with_refused, within_limits
from spokes.client.session import Session, delayed_error
from spokes.client.tasks import Spawn
from spokes.errors import (
    HeldNameError,
    InternalError,
    NameRefusedError,
    ProtocolError,
    RemoteError,
    SpokesError,
    TakenError,
    UnreachableError,
    WildcardNameError,
)
from spokes.wire.messages import Accepted, Config, Fault, Ready, Services

log = logging.getLogger(__name__)

NAME_CODES = frozenset(kind.code for kind in (HeldNameError, NameRefusedError, TakenError, WildcardNameError))
REMOTE_RULES_INTERVAL_S = 0.1  # between configurations put in force: a server that floods keeps nothing else waiting


class Client(Protocol):
    """What the rules need of the client that serves them."""

    def present_session(self) -> Session | None: ...
    def is_online(self) -> bool: ...
    def note_trouble(self, error: SpokesError) -> None: ...
    def rules_changed(self) -> None:
        """Others are in force."""
        ...

    def rules_delayed(self, error: SpokesError) -> None:
        """The server cannot store them now; `rules_changed` follows when it has."""
        ...


class RulesInForce:
    def __init__(self, rules: Rules, routes: Routes, client: Client, *, spawn: Spawn) -> None:
        self.accepted = Accepted()
        self.services = Services()
        self.revision: int | None = None  # of the server's newest rules that are brought together with ours
        self._offered = Services()  # those of `services` that are within a tunnel's limits
        self._over_limits = Accepted()  # the others, as refused
        self._rules = rules
        self._routes = routes
        self._client = client
        self._spawn = spawn
        self._applying = asyncio.Lock()  # one change at a time: file, routes, announcement
        self._remote_newest: Config | None = None
        self._announce_again = False  # what is offered is not what the server took last
        self._applying_remote = False

    def hostname(self) -> str:
        return self._rules.hostname()

    def differ_from_file(self) -> bool:
        return self._rules.services() != self.services

    async def serve(self) -> None:
        """What the rules say, before any server has answered."""
        async with self._applying:
            await self._serve_rules()

    def forget_remote(self) -> None:
        """What came is older than what the next `ready` brings."""
        self._remote_newest, self._announce_again = None, False

    async def begin(self, ready: Ready, on_served: Callable[[], None]) -> None:
        """Serve what a new session's server and the file say together; `on_served` before any other change."""
        async with self._applying:
            self._rules.take_ready(ready)
            self.revision = ready.rules_rev
            await self._serve_rules()
            on_served()

    async def announce_first(self, session: Session) -> None:
        # No deadline, no lock: a store that is away must not end what carries traffic, nor hold other changes up.
        late = asyncio.get_running_loop().call_later(ANSWER_DEADLINE_S, self._note_late, session)
        try:
            await self._announce(session, serve_newest=self._serve_newest, within_s=None)
        finally:
            late.cancel()

    async def apply(self) -> Accepted | None:
        """Serve what the rules say now. None while off-line, or where the session ends before the server has answered:
        the next one announces them."""
        async with self._applying:
            await self._serve_newest_locked()
            session = self._client.present_session()
            if session is None or session.ended is not None:
                return None
            try:
                accepted = await self._announce(session, serve_newest=self._serve_newest_locked)
            except SpokesError:
                if session.ended is None:
                    raise
                return None
        self._client.rules_changed()
        return accepted

    # from the session

    def take_config(self, remote: Config) -> None:
        """Each configuration is whole."""
        self._remote_newest = remote
        self._apply_remote_soon()

    def take_delayed(self, fault: Fault) -> None:
        error = delayed_error(fault)
        self._client.note_trouble(error)
        self._client.rules_delayed(error)

    def take_late(self, services: Services, accepted: Accepted) -> None:
        """The answer to a list whose caller gave up. Where it was called stale the newer rules came before it."""
        if accepted.stale:
            self._announce_soon()
            return
        try:
            self._take_accepted(services, accepted)
        except SpokesError as error:
            self._client.note_trouble(error)
        if self._client.is_online():
            self._client.rules_changed()

    def take_resumed(self, services: Services) -> None:
        if msgspec.structs.replace(services, rules_rev=None) != self._offered:
            self._announce_soon()

    # in force here

    def _take_newest(self) -> None:
        """Bring the server's newest rules together with ours; what the file refuses must not come back for ever."""
        remote, self._remote_newest = self._remote_newest, None
        if remote is not None:
            self._rules.take_remote(remote.config)
            self.revision = remote.rules_rev

    async def _serve_rules(self) -> None:
        self.services = self._rules.services()
        self._offered, self._over_limits = within_limits(self.services)
        await self._routes.apply(self._offered.https, self._offered.ports)

    async def _serve_newest(self) -> None:
        async with self._applying:
            await self._serve_newest_locked()

    async def _serve_newest_locked(self) -> None:
        """The caller holds `_applying`."""
        self._take_newest()
        await self._serve_rules()

    # at the server

    def _note_late(self, session: Session) -> None:
        if session.delayed is None:  # else it was said
            self._client.note_trouble(
                UnreachableError("the server has not taken the rules yet", hint="its log may say why")
            )

    async def _announce(
        self,
        session: Session,
        *,
        serve_newest: Callable[[], Awaitable[None]],
        within_s: float | None = ANSWER_DEADLINE_S,
    ) -> Accepted:
        """What the server put in force. Where it knows newer rules it sent them first: those are served with
        `serve_newest`, and announced again."""
        while True:
            ours = self._offered
            services = msgspec.structs.replace(ours, rules_rev=self.revision)
            accepted = await session.announce(services, within_s=within_s)
            if not accepted.stale:
                break
            if self._remote_newest is None:
                raise ProtocolError("the server calls our rules old and sends no newer ones")
            await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
            await serve_newest()
        self._take_accepted(services, accepted, agreed=ours == self._offered)  # else a later answer tells what is
        return self.accepted

    def _take_accepted(self, services: Services, accepted: Accepted, *, agreed: bool = True) -> None:
        self.accepted = with_refused(accepted, self._over_limits)
        if accepted.rules_rev is not None:
            self.revision = accepted.rules_rev
        if agreed:
            self._rules.take_accepted(services, self.accepted)
        faults = [
            *((site.domain, site.error) for site in self.accepted.https),
            *((f"port {port.port}", port.error) for port in self.accepted.ports),
        ]
        for what, fault in faults:
            if fault is not None:
                cure = f"choose another name, and type: spoke tunnel http rm --domain {what}"
                hint = cure if fault.code in NAME_CODES else ""
                self._client.note_trouble(RemoteError(f"{what}: {fault.message}", code=fault.code, hint=hint))

    def _announce_soon(self) -> None:
        self._announce_again = True
        self._apply_remote_soon()

    def _apply_remote_soon(self) -> None:
        if not self._applying_remote:
            self._applying_remote = True
            self._spawn(self._apply_remote())

    async def _apply_remote(self) -> None:
        try:
            while self._announce_again or self._remote_newest is not None:
                self._announce_again = False
                try:
                    await self.apply()
                except SpokesError as error:
                    self._client.note_trouble(error)
                except Exception:
                    log.exception("rules of the server not taken")
                    self._client.note_trouble(
                        InternalError("the server's rules could not be taken; the client's log says why")
                    )
                await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
        finally:
            self._applying_remote = False
