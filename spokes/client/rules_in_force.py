"""The rules in force: file and server merged, served by the engine, announced, and what the server accepted of them.

Owns: the newest revision that was merged, and the server's answer to the announced rules.
Every node of a cluster sends its copy of the server's rules. A list of a revision that another node's had already, or
of an older one, changes nothing: that node only lags. Each node is announced the rules with the revision of its own
copy; what the user changes goes to one node.
Bound: one change of the file and the engine at a time, one announcement with a deadline for each session. Of lists of
one session only the newest waits, however many come.
Fails: never by itself; what the server or the file refuses is noted as trouble.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
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
from spokes.wire.messages import Accepted, Config, Fault, Services

log = logging.getLogger(__name__)

NAME_CODES = frozenset(kind.code for kind in (HeldNameError, NameRefusedError, TakenError, WildcardNameError))
REMOTE_RULES_INTERVAL_S = 0.1  # between configurations put in force: a server that floods keeps nothing else waiting


class Client(Protocol):
    """What the rules need of the client that serves them."""

    def session_for_changes(self) -> Session | None:
        """Of the node that is told what the user changes."""
        ...

    def has_other_session(self, session: Session) -> bool:
        """Whether another node has taken the login."""
        ...

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
        self._revision_of = ""  # node that said so
        self._offered = Services()  # those of `services` that are within a tunnel's limits
        self._over_limits = Accepted()  # the others, as refused
        self._rules = rules
        self._routes = routes
        self._client = client
        self._spawn = spawn
        self._applying = asyncio.Lock()  # one change at a time: file, routes, announcement
        self._has_served = False
        self._remote: dict[Session, Config] = {}  # the newest list of each session that is not merged yet
        self._due: set[Session] = set()  # what is offered is not what these servers took last
        self._announcing: set[Session] = set()  # those that are told now because it was due
        self._applying_remote = False

    def hostname(self) -> str:
        return self._rules.hostname()

    def differ_from_file(self) -> bool:
        return self._rules.services() != self.services

    async def serve_first(self) -> None:
        """What the rules say, before any server has answered."""
        async with self._applying:
            if not self._has_served:
                await self._serve_rules()

    async def begin(self, session: Session, on_served: Callable[[], None]) -> None:
        """Serve what a new session's server and the file say together; `on_served` before any other change."""
        async with self._applying:
            if self._is_news(session.ready.rules_rev, session):
                self._rules.take_ready(session.ready)
                self._note_revision(session, session.ready.rules_rev)
            await self._serve_rules()
            on_served()

    async def announce_first(self, session: Session) -> None:
        # No deadline, no lock: a store that is away must not end what carries traffic, nor hold other changes up.
        late = asyncio.get_running_loop().call_later(ANSWER_DEADLINE_S, self._note_late, session)
        try:
            await self._announce(session, within_s=None)
        finally:
            late.cancel()

    async def apply(self) -> Accepted | None:
        """Serve what the rules say now. None while off-line, or where the session ends before the server has answered:
        the next one announces them."""
        await self._serve_newest()
        session = self._client.session_for_changes()
        if session is None or session.ended is not None:
            return None
        try:
            async with session.announcing:
                accepted = await self._announce(session)
        except SpokesError:
            if session.ended is None:
                raise
            return None
        self._client.rules_changed()
        return accepted

    # from the session

    def take_config(self, session: Session, remote: Config) -> None:
        """Each configuration is whole."""
        self._remote[session] = remote
        self._apply_remote_soon()

    def take_delayed(self, fault: Fault) -> None:
        error = delayed_error(fault)
        self._client.note_trouble(error)
        self._client.rules_delayed(error)

    def take_late(self, session: Session, services: Services, accepted: Accepted) -> None:
        """The answer to a list whose caller gave up. Where it was called stale the newer rules came before it."""
        if accepted.stale:
            self._announce_soon(session)
            return
        try:
            self._take_accepted(session, services, accepted)
        except SpokesError as error:
            self._client.note_trouble(error)
        if self._client.is_online():
            self._client.rules_changed()

    def take_resumed(self, session: Session, services: Services) -> None:
        if msgspec.structs.replace(services, rules_rev=None) != self._offered:
            self._announce_soon(session)

    # in force here

    def _take_newest(self) -> None:
        """Merge the servers' newest rules with ours, older revisions first; what the file refuses must not come back
        for ever."""
        remote, self._remote = self._remote, {}
        for session, config in sorted(remote.items(), key=lambda item: item[1].rules_rev or 0):
            if session.ended is not None:  # what the next `ready` brings is newer
                continue
            if self._is_news(config.rules_rev, session):
                self._rules.take_remote(config.config)
                self._note_revision(session, config.rules_rev)
            session.revision = config.rules_rev
            self._due.add(session)

    def _is_news(self, revision: int | None, session: Session) -> bool:
        """Whether a list of this session's server is to be merged."""
        if revision is None or self.revision is None or revision > self.revision:
            return True
        # That very node may have gone back, as by a restore from a backup; another one lags.
        return session.node == self._revision_of and not self._client.has_other_session(session)

    def _note_revision(self, session: Session, revision: int | None) -> None:
        self.revision, self._revision_of = revision, session.node

    async def _serve_rules(self) -> None:
        self._has_served = True
        self.services = self._rules.services()
        self._offered, self._over_limits = within_limits(self.services)
        await self._routes.apply(self._offered.https, self._offered.ports)

    async def _serve_newest(self) -> None:
        async with self._applying:
            self._take_newest()
            await self._serve_rules()

    # at the server

    def _note_late(self, session: Session) -> None:
        if session.delayed is None:  # else it was said
            self._client.note_trouble(
                UnreachableError("the server has not taken the rules yet", hint="its log may say why")
            )

    async def _announce(self, session: Session, *, within_s: float | None = ANSWER_DEADLINE_S) -> Accepted:
        """What the server put in force. Where it knows newer rules it sent them first: those are served and announced
        again."""
        while True:
            ours, config_count = self._offered, session.config_count
            services = msgspec.structs.replace(ours, rules_rev=session.revision)
            accepted = await session.announce(services, within_s=within_s)
            if not accepted.stale:
                break
            if session.config_count == config_count:
                raise ProtocolError("the server calls our rules old and sends no newer ones")
            await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
            await self._serve_newest()
            self._due.discard(session)  # it is told now
        # Else a later answer tells what is.
        return self._take_accepted(session, services, accepted, agreed=ours == self._offered)

    def _take_accepted(
        self, session: Session, services: Services, accepted: Accepted, *, agreed: bool = True
    ) -> Accepted:
        """What counts is the answer of the node that is told of changes; of others what they alone refuse is noted."""
        if accepted.rules_rev is not None:
            session.revision = accepted.rules_rev
            if self.revision is None or accepted.rules_rev > self.revision or not self._has_others(session):
                self._note_revision(session, accepted.rules_rev)
        accepted = with_refused(accepted, self._over_limits)
        known = _faults(self.accepted)
        if not self._has_others(session) or self._client.session_for_changes() is session:
            known = {}
            self.accepted = accepted
            if agreed:
                self._rules.take_accepted(services, accepted)
        for what, fault in _faults(accepted).items():
            if what not in known:
                cure = f"choose another name, and type: spoke tunnel http rm --domain {what}"
                hint = cure if fault.code in NAME_CODES else ""
                self._client.note_trouble(RemoteError(f"{what}: {fault.message}", code=fault.code, hint=hint))
        return accepted

    def _has_others(self, session: Session) -> bool:
        return self._client.has_other_session(session)

    def _announce_soon(self, session: Session) -> None:
        self._due.add(session)
        self._apply_remote_soon()

    def _apply_remote_soon(self) -> None:
        if not self._applying_remote:
            self._applying_remote = True
            self._spawn(self._apply_remote())

    async def _apply_remote(self) -> None:
        try:
            while self._remote or self._due - self._announcing:
                try:
                    await self._serve_newest()
                except SpokesError as error:
                    self._client.note_trouble(error)
                except Exception:
                    log.exception("rules of the server not taken")
                    self._client.note_trouble(
                        InternalError("the server's rules could not be taken; the client's log says why")
                    )
                self._due = {session for session in self._due if session.ended is None}
                for session in self._due - self._announcing:
                    self._spawn(self._announce_due(session))  # by itself: a node that hangs delays no other
                await asyncio.sleep(REMOTE_RULES_INTERVAL_S)
        finally:
            self._applying_remote = False

    async def _announce_due(self, session: Session) -> None:
        self._announcing.add(session)
        try:
            async with session.announcing:
                self._due.discard(session)
                await self._announce(session)
            self._client.rules_changed()
        except SpokesError as error:
            if session.ended is None:
                self._client.note_trouble(error)
        except Exception:
            log.exception("rules not announced")
            self._client.note_trouble(InternalError("the rules could not be announced; the client's log says why"))
        finally:
            self._announcing.discard(session)
            if session in self._due:
                self._apply_remote_soon()


def _faults(accepted: Accepted) -> dict[str, Fault]:
    """What is refused, by what it is called."""
    results = [
        *((site.domain, site.error) for site in accepted.https),
        *((f"port {port.port}", port.error) for port in accepted.ports),
    ]
    return {what: fault for what, fault in results if fault is not None}
