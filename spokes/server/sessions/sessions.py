"""Sessions: one coroutine for each link, from its hello to its end; what begins, fails over and ends a session.

Owns: what happens on a link event; the registry is told here and nowhere else. Never waits for a peer without a
deadline before it is known, and never for an old session when a new one comes.
Fails: whatever a peer sends ends its own link only; so does a fault of ours, which `on_failed` is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from spokes import clock
from spokes._fastpath.engine import Engine, Event, EventKind, LinkDown
from spokes.errors import (
    AdmissionRefusedError,
    ClosedByOperatorError,
    CopyError,
    HandshakeTimeoutError,
    InactiveError,
    InternalError,
    LimitError,
    NodeError,
    ProtocolError,
    ReplacedError,
    SessionUnknownError,
    ShutdownError,
    SpokesError,
    StoppedByOperatorError,
    StoreError,
)
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.availability import Availability
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.decisions import Decision, RulesChanged, RulesUnreadable, TunnelBlocked, TunnelDeleted
from spokes.server.routing.public import PublicPorts
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.admission import Admission
from spokes.server.sessions.backlog import STORE_RETRY_S
from spokes.server.sessions.copies import Copies
from spokes.server.sessions.link import Link, Notification, WorkFailed
from spokes.server.sessions.logins import Logins
from spokes.server.sessions.presence import PresenceWriter
from spokes.server.sessions.registry import Registry, Session
from spokes.server.sessions.requests import Requests
from spokes.server.sessions.session_loop import SessionLoop, on_bye
from spokes.server.sessions.unauthenticated import UnauthenticatedLinks
from spokes.store import PresenceUpdate, Tunnel, TunnelState
from spokes.wire.handshake import DRAINABLE, HELLO_DEADLINE_S, LEAD_DEADLINE_S, State
from spokes.wire.messages import Address, Agent, Bye, Drain, Join, Joined, Lead, Leading, Login, Node, Ready, Register

log = logging.getLogger(__name__)

CONTROL_LINK_COUNT_MAX = 32  # of one tunnel: every `spoke` verb is one, for as long as it runs
_LOSSES = frozenset({LinkDown.CLOSED, LinkDown.SYSTEM, LinkDown.TLS, LinkDown.DEAD})  # what a network does to a link
_LINK_DOWN = {int(reason): reason.name.lower() for reason in LinkDown}


class Sessions:
    """Every link of this server."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: StoreThread,
        registry: Registry,
        admission: Admission,
        routes: RouteTable,
        follower: ChangeFollower,
        requests: Requests,
        presence: PresenceWriter,
        availability: Availability,
        public: PublicPorts,
        domain: str,
        on_failed: Callable[[Exception], None],
        hello_deadline_s: float = HELLO_DEADLINE_S,
        primary_deadline_s: float = LEAD_DEADLINE_S,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._routes = routes
        self._presence = presence
        self._availability = availability
        self._public = public
        self._below_domain = f".{domain}"
        self._primary_deadline_s = primary_deadline_s
        self._on_failed = on_failed
        self._logins = Logins(store=store, admission=admission, follower=follower, routes=routes, domain=domain)
        self._session_loop = SessionLoop(
            store=store,
            registry=registry,
            follower=follower,
            requests=requests,
            availability=availability,
            domain=domain,
        )
        self.copies = Copies()
        self._links: dict[int, Link] = {}
        self._control_links: defaultdict[str, set[int]] = defaultdict(set)  # by tunnel
        self.unauthenticated = UnauthenticatedLinks(domain, deadline_s=hello_deadline_s)
        self._retry_after_s = 0.0
        self._draining = False
        self.on_node: Callable[[Link, Node], Awaitable[None]] = _refuse_node
        follower.on_decision = self.take
        follower.has_older_rules = self._has_older_rules

    @property
    def link_count(self) -> int:
        return len(self._links)

    # events of the engine

    def on_event(self, event: Event) -> None:
        match event.kind:
            case EventKind.LINK_UP:
                self._link_up(event.link, event.data)
            case EventKind.CONTROL:
                self._control(event.link, event.data, event.code)
            case EventKind.LINK_DOWN:
                self._link_down(event.link, event.code, event.data)
            case EventKind.PONG if event.link in self._links:
                self._links[event.link].take_pong()
            case _:
                return  # LINK_WANTED and DRAIN are answered by the client, which opens the links

    def _link_up(self, link_id: int, data: bytes) -> None:
        link = Link(self._engine, link_id, _peer_text(data))
        self._links[link_id] = link
        if self._draining:
            link.send_bye(ShutdownError("the server is stopping"), retry=True, retry_after_s=self._retry_after_s)
        elif self.unauthenticated.are_too_many(link.source):
            link.send_bye(LimitError("too many links at once"), retry=True, retry_after_s=STORE_RETRY_S)
        else:
            link.task = asyncio.get_running_loop().create_task(self._converse(link), name=f"link {link_id}")

    def _control(self, link_id: int, payload: bytes, flags: int) -> None:
        link = self._links.get(link_id)
        if link is None or link.task is None:
            return
        try:
            link.feed(payload, flags)
        except ProtocolError as error:
            log.warning("link flooded", extra={"peer": link.peer, "code": error.code})
            link.task.cancel()
            self._engine.abort_link(link_id)

    def _link_down(self, link_id: int, code: int, detail: bytes) -> None:
        link = self._links.pop(link_id, None)
        if link is None:
            return
        link.lost = code in _LOSSES
        if link.task is not None:
            link.task.cancel()
            link.task = None  # it keeps its CancelledError, whose frames hold the link: a ring until a full collection
        why = _LINK_DOWN.get(code, str(code))
        words = detail.decode("ascii", "replace")
        # The engine has told the peer; the operator is to know why as well.
        level = logging.INFO if code == LinkDown.PROTOCOL else logging.DEBUG
        log.log(level, "link down", extra={"peer": link.peer, "why": why, "detail": words})

    # one link

    async def _converse(self, link: Link) -> None:
        try:
            agent, request = await self.unauthenticated.meet(link)
            match request:
                case Register():
                    await self._logins.register(link, request)
                case Join():
                    await self._join(link, request)
                case Login():
                    await self._login(link, agent, request)
                case Node():
                    await self.on_node(link, request)
                case _:
                    link.close()  # bye before anything was asked
        except (AdmissionRefusedError, CopyError) as error:
            link.send_bye(error, retry=True, retry_after_s=error.retry_after_s)
        except StoreError as error:
            log.error("session refused by the store", extra={"peer": link.peer, "detail": str(error)})
            link.send_bye(error, retry=True, retry_after_s=STORE_RETRY_S)
        except SpokesError as error:
            log.info("link refused", extra={"peer": link.peer, "code": error.code, "detail": str(error)})
            link.send_bye(error, retry=error.retryable)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.warning("link failed", extra={"peer": link.peer})
            self._on_failed(error)
            link.send_bye(InternalError("the server failed"), retry=True, retry_after_s=STORE_RETRY_S)

    async def _join(self, link: Link, request: Join) -> None:
        session = self._registry.join(request.session, link.id)
        slot = self._routes.slot(session.tunnel_uid)
        try:
            if slot is None:
                raise InactiveError("this tunnel was deleted")
            link.send(Joined())
            self._engine.bind_link(link.id, slot)
            match await link.receive():
                case Lead():
                    await self._fail_over(link, session)
                case Bye() as bye:
                    on_bye(link, bye)
                case _:  # the handshake lets a joined link say nothing else
                    link.close()
        finally:
            self._part(session, link)

    async def _fail_over(self, link: Link, session: Session) -> None:
        """The link takes the place of the primary one. What was on its way there may be lost: the client says its part
        again, and hears the stored rules again."""
        if not self._registry.is_live(session):
            raise SessionUnknownError("this session is over", hint="log in again")
        before = self._registry.set_primary(session, link.id)
        session.peer = link.peer
        link.send(Leading())
        self._tell_address(session)
        if before is not None:  # dead for the client; we did not notice yet
            self._abort(before)
        log.info("session moved", extra={"tunnel_uid": session.tunnel_uid, "peer": link.peer})
        await self._session_loop.run(link, session.tunnel_uid, session, bring_rules=True)

    # one session

    async def _login(self, link: Link, agent: Agent, request: Login) -> None:
        found = await self._logins.find(link, request)
        is_control = link.handshake.state is State.LOGGING_IN_CONTROL
        if not is_control:
            sitting = self._primary_link(self._registry.get(found.tunnel.uid))
            if await self.copies.admit(found.tunnel.uid, found.tunnel.hostname, link, sitting):
                found = await self._logins.find(link, request)  # key and tunnel may have been blocked meanwhile
        tunnel = found.tunnel
        ready = Ready(
            tunnel=tunnel.uid,
            hostname=tunnel.hostname,
            name=tunnel.name,
            generation=self._registry.generation(tunnel.uid),
            session="",
            config=found.config,
            rules_rev=found.revision,
            link_count_max=1,
            urls=self._public.urls(tunnel.hostname),
            url=self._public.url(tunnel.hostname),
        )
        if is_control:
            await self._run_control(link, ready)
            return
        session = self._take_over(link, agent, tunnel, supports_failover=request.supports_failover)
        try:
            session.config, session.revision = found.config, found.revision
            session.hostname, session.url = ready.hostname, ready.url
            self._engine.bind_link(link.id, found.slot)
            link.send(
                msgspec.structs.replace(
                    ready,
                    generation=session.generation,
                    session=session.token,
                    link_count_max=self._registry.link_count_max,
                    supports_failover=request.supports_failover,
                )
            )
            await self._session_loop.run(link, tunnel.uid, session)
        finally:
            self._part(session, link)

    async def _run_control(self, link: Link, ready: Ready) -> None:
        if len(self._control_links.get(ready.tunnel, ())) >= CONTROL_LINK_COUNT_MAX:
            raise LimitError(f"a tunnel has at most {CONTROL_LINK_COUNT_MAX} control links at once")
        self._control_links[ready.tunnel].add(link.id)
        try:
            link.send(ready)
            await self._session_loop.run(link, ready.tunnel, None)
        finally:
            self._control_links[ready.tunnel].discard(link.id)
            if not self._control_links[ready.tunnel]:
                del self._control_links[ready.tunnel]

    def _take_over(self, link: Link, agent: Agent, tunnel: Tunnel, *, supports_failover: bool) -> Session:
        """The tunnel's new session; nobody waits for the old one, whose peer may be long gone."""
        session, replaced = self._registry.open(
            tunnel.uid, link=link.id, peer=link.peer, agent=agent, supports_failover=supports_failover
        )
        if replaced is not None:
            self._put_out(replaced, tunnel.hostname, link)
        self._presence.put(self._seen(session, TunnelState.ONLINE))
        log.info(
            "tunnel on-line",
            extra={
                "tunnel_uid": tunnel.uid,
                "hostname": tunnel.hostname,
                "peer": link.peer,
                "generation": session.generation,
                "replaced": replaced is not None,
            },
        )
        return session

    def _put_out(self, replaced: Session, hostname: str, by: Link) -> None:
        """From now on the replaced session serves nothing; its links are cut once it is known whether they live."""
        primary, link_ids = self._primary_link(replaced), list(replaced.links)

        def cut() -> None:
            if primary is not None and primary.id in self._links:
                error = ReplacedError("another client logged in as this tunnel")
                primary.send_bye(error, retry=error.retryable)
            for link_id in link_ids:
                self._engine.abort_link(link_id)

        for link_id in link_ids:
            self._engine.drain_link(link_id)
            link = self._links.get(link_id)
            if link is not None and link.task is not None:
                link.task.cancel()
        if primary is None:
            cut()
        else:
            self.copies.when_known(replaced.tunnel_uid, hostname, primary, by, cut)

    def _part(self, session: Session, link: Link) -> None:
        """A link of the session is over. The session goes on while another is the primary one, or is about to be: a
        client that lost its primary link to the network names another one, unless it is an old client."""
        was_primary = session.primary == link.id
        self._registry.part(session, link.id)
        if session.links and (not was_primary or (link.lost and session.supports_failover)):
            if was_primary and self._registry.is_live(session):
                asyncio.get_running_loop().call_later(self._primary_deadline_s, self._expect_primary, session)
            return
        self._leave(session)

    def _expect_primary(self, session: Session) -> None:
        if session.primary is None and self._registry.is_live(session):
            log.info("session has no primary link", extra={"tunnel_uid": session.tunnel_uid})
            self._cut(session, HandshakeTimeoutError("no link took the lead"))
            self._leave(session)

    def _leave(self, session: Session) -> None:
        """The session is over; links that are left have nothing to belong to."""
        if not self._registry.close(session):
            return
        for link_id in session.links:
            self._engine.close_link(link_id)
        self._presence.put(self._seen(session, TunnelState.OFFLINE))
        self._availability.offline(session.tunnel_uid)
        log.info(
            "tunnel off-line",
            extra={"tunnel_uid": session.tunnel_uid, "peer": session.peer, "generation": session.generation},
        )

    def _cut(self, session: Session, error: SpokesError) -> None:
        """Ends a session now: a word to who still listens, then every link is aborted."""
        primary = self._primary_link(session)
        if primary is not None:
            primary.send_bye(error, retry=error.retryable)
        for link_id in session.links:
            self._abort(link_id)

    def _abort(self, link_id: int) -> None:
        link = self._links.get(link_id)
        if link is not None and link.task is not None:
            link.task.cancel()
        self._engine.abort_link(link_id)

    def _primary_link(self, session: Session | None) -> Link | None:
        return self._links.get(session.primary) if session is not None and session.primary is not None else None

    def _end_link(self, link_id: int, error: SpokesError) -> None:
        link = self._links.get(link_id)
        if link is not None:
            link.send_bye(error, retry=error.retryable)
        self._abort(link_id)

    # what others decide

    def take(self, decision: Decision) -> None:
        """Of a change of configuration: to the tunnel's session, where it has one."""
        match decision:
            case RulesChanged(tunnel_uid=tunnel_uid):
                self._tell(tunnel_uid, decision)
            case RulesUnreadable(tunnel_uid=tunnel_uid, error=error):
                self._tell(tunnel_uid, WorkFailed(error))
            case TunnelBlocked(tunnel_uid=tunnel_uid, reason=reason):
                self._block(tunnel_uid, reason)
            case TunnelDeleted(tunnel_uid=tunnel_uid, reason=reason):
                self._block(tunnel_uid, reason)
                self._registry.forget_tunnel(tunnel_uid)

    def _has_older_rules(self, tunnel_uid: str, revision: int) -> bool:
        """Whether the tunnel's client is here with rules from before that revision. Those that it announced itself it
        has."""
        session = self._registry.get(tunnel_uid)
        return session is not None and session.revision < revision

    def _tell(self, tunnel_uid: str, notification: Notification) -> None:
        link = self._primary_link(self._registry.get(tunnel_uid))
        if link is not None:
            link.tell(notification)

    def _block(self, tunnel_uid: str, error: SpokesError) -> None:
        for link_id in list(self._control_links.get(tunnel_uid, ())):
            self._end_link(link_id, error)
        self._end_session(tunnel_uid, error)

    def certificates_changed(self, names: Iterable[str]) -> None:
        """Clients hear of another address to show. Their host names are all below the domain."""
        if any(name.endswith(self._below_domain) for name in names):
            for session in self._registry.sessions():
                self._tell_address(session)

    def ports_changed(self) -> None:
        """Clients hear of another address to show, where visitors reach this server by another port now."""
        for session in self._registry.sessions():
            self._tell_address(session)

    def _tell_address(self, session: Session) -> None:
        url, link = self._public.url(session.hostname), self._primary_link(session)
        if session.hostname and link is not None and url != session.url:
            session.url = url
            link.send(Address(url=url))

    def close_tunnel(self, tunnel_uid: str) -> bool:
        """Ends the tunnel's session; its client may come back at once. False when it has none."""
        return self._end_session(tunnel_uid, ClosedByOperatorError("the operator closed the session"))

    def stop_tunnel(self, tunnel_uid: str) -> bool:
        """Ends the tunnel's session, and its client does not come back by itself. False when it has none."""
        error = StoppedByOperatorError("the operator stopped the tunnel", hint="start the client again when it may run")
        return self._end_session(tunnel_uid, error)

    def _end_session(self, tunnel_uid: str, error: SpokesError) -> bool:
        session = self._registry.get(tunnel_uid)
        if session is None:
            return False
        self._cut(session, error)
        self._leave(session)
        return True

    def cut_tunnel(self, tunnel_uid: str, error: SpokesError) -> None:
        """Ends the tunnel's session and every stream of it, if it has one; the error says whether it may come back."""
        self._end_session(tunnel_uid, error)

    def drain(self, retry_after_s: float) -> None:
        """No new streams and no new sessions; what runs may end."""
        self._draining = True
        self._retry_after_s = retry_after_s
        for link_id, link in self._links.items():
            if link.handshake.state in DRAINABLE:
                link.send(Drain(retry_after_s=retry_after_s))
            self._engine.drain_link(link_id)

    async def close(self) -> None:
        """Says bye on every link and ends the coroutines."""
        self._draining = True
        tasks = [link.task for link in self._links.values() if link.task is not None]
        for link in self._links.values():
            link.send_bye(ShutdownError("the server is stopping"), retry=True, retry_after_s=self._retry_after_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    def _seen(session: Session, state: TunnelState) -> PresenceUpdate:
        return PresenceUpdate(
            tunnel_uid=session.tunnel_uid,
            state=state,
            last_active=clock.wall_s(),
            address=session.address,
            version=session.agent.version,
            os=session.agent.os,
            arch=session.agent.arch,
        )


def _peer_text(data: bytes) -> str:
    return data.decode("ascii", "replace")


async def _refuse_node(_link: Link, _request: Node) -> None:
    raise NodeError("this server is in no cluster")
