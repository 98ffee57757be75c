"""The session loop of a link that is logged in: its services, requests and bye, and the rules that it is sent.

Bound: the link's own pace; a list of rules costs as many turns as its rules weigh.
Fails: rules wait for a store that is away (backlog.py), and the link is heard meanwhile; a fault of the peer's ends its
own link only.
"""

from __future__ import annotations

import logging

import msgspec

from spokes.errors import RulesChangedError
from spokes.model.rules import plain_texts
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.availability import Availability
from spokes.server.routing.changes import ChangeFollower
from spokes.server.routing.decisions import RulesChanged
from spokes.server.routing.stored_config import StoredConfig, read_config
from spokes.server.sessions.backlog import Backlog
from spokes.server.sessions.link import Link, WorkFailed
from spokes.server.sessions.password_seals import PasswordSeals
from spokes.server.sessions.registry import Registry, Session
from spokes.server.sessions.requests import Requests
from spokes.server.sessions.services import NO_SEALS, apply_services
from spokes.wire.messages import Accepted, Bye, Config, Health, Reason, Request, Services

log = logging.getLogger(__name__)

RULES_PER_TURN = 20  # how many rules weigh as much as a message: each may be a row and a change


class SessionLoop:
    """Answers links that are logged in."""

    def __init__(
        self,
        *,
        store: StoreThread,
        registry: Registry,
        follower: ChangeFollower,
        requests: Requests,
        availability: Availability,
        domain: str,
    ) -> None:
        self._store = store
        self._registry = registry
        self._follower = follower
        self._requests = requests
        self._availability = availability
        self._domain = domain
        self._seals = PasswordSeals()

    async def run(
        self, link: Link, tunnel_uid: str, session: Session | None, *, bring_rules: bool = False
    ) -> None:
        """Answers until bye; without a session, a control link's requests alone. The messages of a link are taken
        one after the other, in order; rules that wait for the store hold up no other message.

        `bring_rules`: sends the stored rules to the client first, whether it has them or not.
        """
        if session is None:
            await self._run_requests(link, tunnel_uid)
            return
        backlog = Backlog(link, session, bring_config=self._bring_config, take_services=self._take_services)
        try:
            if bring_rules:
                await backlog.bring_config()
            while True:
                match await link.receive_any():
                    case RulesChanged(stored=stored):
                        self._take_rules(link, session, stored)
                    case WorkFailed(error=error):
                        raise error
                    case Services() as services:
                        await link.bucket.turn((len(services.https) + len(services.ports)) / RULES_PER_TURN)
                        await backlog.take_services(services)
                    case Health() as health:
                        await link.bucket.turn(len(health.failing) / RULES_PER_TURN)
                        self._take_health(session, health)
                    case Request() as request:
                        answer = await self._requests.answer(tunnel_uid, request)
                        if answer.error is None:
                            await backlog.store_answered()
                        link.send(answer)
                    case Bye() as bye:
                        on_bye(link, bye)
                        return
                    case _:
                        continue
        finally:
            backlog.cancel()

    async def _run_requests(self, link: Link, tunnel_uid: str) -> None:
        while True:
            match await link.receive():
                case Request() as request:
                    link.send(await self._requests.answer(tunnel_uid, request))
                case Bye() as bye:
                    on_bye(link, bye)
                    return
                case _:
                    continue

    async def _take_services(self, link: Link, session: Session, services: Services, answer_count: int) -> None:
        """`answer_count`: lists that this one answers for, those before it that it took the place of and itself."""
        session.unmanaged = services.unmanaged
        seals = NO_SEALS
        if any(map(plain_texts, services.https)):
            stored = await self._store.ask(self._store.store.rules.read, session.tunnel_uid)
            seals = await self._seals.of(session.tunnel_uid, services.https, stored.sites)
        try:
            async with self._store.patience():
                applied = await self._store.perform(
                    apply_services, self._store.store, session.tunnel_uid, services, self._domain, seals
                )
        except RulesChangedError:
            session.config, session.revision = await self._read_config(session.tunnel_uid)
            for _ in range(answer_count):
                link.send(Config(config=session.config, rules_rev=session.revision))
                link.send(Accepted(stale=True, rules_rev=session.revision))
            return
        session.config = msgspec.structs.replace(session.config, https=applied.https, ports=applied.ports)
        session.revision = applied.revision
        async with self._store.patience():
            await self._follower.catch_up()
        if self._registry.is_live(session):
            self._availability.serves(session.tunnel_uid, session.config, session.failing)
        for _ in range(answer_count):
            link.send(applied.accepted)
        if applied.is_rewritten and not session.unmanaged:
            link.send(Config(config=session.config, rules_rev=session.revision))
        log.info(
            "services in force",
            extra={"tunnel_uid": session.tunnel_uid, "sites": len(applied.https), "ports": len(applied.ports)},
        )

    def _take_health(self, session: Session, health: Health) -> None:
        """A service that does not answer is not available, however well its tunnel does."""
        session.failing = frozenset((one.domain, one.port) for one in health.failing)
        if self._registry.is_live(session):
            self._availability.serves(session.tunnel_uid, session.config, session.failing)

    def _take_rules(self, link: Link, session: Session, stored: StoredConfig) -> None:
        """Rules that others changed; a list that the client announced meanwhile may be newer."""
        if stored.revision > session.revision:
            session.config, session.revision = stored
            if not session.unmanaged:
                link.send(Config(config=stored.config, rules_rev=stored.revision))

    async def _bring_config(self, link: Link, session: Session) -> None:
        """Sends the stored rules to the client, whether it has them or not."""
        session.config, session.revision = await self._read_config(session.tunnel_uid)
        link.send(Config(config=session.config, rules_rev=session.revision))

    async def _read_config(self, tunnel_uid: str) -> StoredConfig:
        return await self._store.ask(read_config, self._store.store, tunnel_uid, self._domain)


def on_bye(link: Link, bye: Bye) -> None:
    if bye.reason in (Reason.PROTOCOL, Reason.LIMIT):  # a fault of ours, as the client sees it
        log.warning("client ended the link", extra={"peer": link.peer, "code": bye.code, "detail": bye.message})
    link.close()
