"""The registry of sessions: which tunnels are on-line here, one session for each at most.

Owns: generations and session secrets. A session that comes for a tunnel which has one replaces it at once.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from spokes.clock import Since
from spokes.errors import LimitError, SessionUnknownError
from spokes.wire.messages import Agent
from spokes.wire.rules import TunConfig


@dataclass(slots=True, eq=False)
class Session:
    """One authenticated presence of a tunnel. It lives as long as a link of it carries its messages, or may soon."""

    tunnel_uid: str
    generation: int
    id: str
    secret: str = field(repr=False)
    primary: int | None  # the link that carries its messages; None between its loss and the client's `lead`
    peer: str
    agent: Agent
    since: Since
    supports_failover: bool  # the client names another primary link (`lead`) when it lost one
    links: set[int]
    config: TunConfig = field(default_factory=TunConfig)  # the rules that the client is known to have
    revision: int = 0  # of those rules
    unmanaged: bool = False
    hostname: str = ""
    url: str = ""  # the address to show that its client was told last
    failing: frozenset[tuple[str, int]] = frozenset()  # domain or port of services whose upstream failed last

    @property
    def token(self) -> str:
        """What the client shows to join additional links."""
        return f"{self.id}.{self.secret}"

    @property
    def address(self) -> str:
        """Of the client, without its port."""
        return self.peer.rpartition(" ")[0]


class Registry:
    """Sessions by tunnel and by id."""

    def __init__(self, link_count_max: int) -> None:
        self.link_count_max = link_count_max
        self._by_tunnel: dict[str, Session] = {}
        self._by_id: dict[str, Session] = {}
        self._generations: dict[str, int] = {}
        self.on_change: Callable[[str], None] = _ignore  # a tunnel has a session, or a link, more or less

    def __len__(self) -> int:
        return len(self._by_tunnel)

    def sessions(self) -> list[Session]:
        return list(self._by_tunnel.values())

    def get(self, tunnel_uid: str) -> Session | None:
        return self._by_tunnel.get(tunnel_uid)

    def generation(self, tunnel_uid: str) -> int:
        """Of the latest session since the server started; 0: none yet."""
        return self._generations.get(tunnel_uid, 0)

    def open(
        self, tunnel_uid: str, *, link: int, peer: str, agent: Agent, supports_failover: bool = False
    ) -> tuple[Session, Session | None]:
        """The new session, and the one it replaced."""
        replaced = self._by_tunnel.get(tunnel_uid)
        if replaced is not None:
            self.close(replaced)
        generation = self._generations.get(tunnel_uid, 0) + 1
        self._generations[tunnel_uid] = generation
        session = Session(
            tunnel_uid=tunnel_uid,
            generation=generation,
            id=secrets.token_hex(8),
            secret=secrets.token_hex(32),
            primary=link,
            peer=peer,
            agent=agent,
            since=Since(),
            supports_failover=supports_failover,
            links={link},
        )
        self._by_tunnel[tunnel_uid] = session
        self._by_id[session.id] = session
        self.on_change(tunnel_uid)
        return session, replaced

    def join(self, token: str, link: int) -> Session:
        """Adds a link to the session whose token this is."""
        session_id, _, secret = token.partition(".")
        session = self._by_id.get(session_id)
        if session is None or not hmac.compare_digest(secret.encode(), session.secret.encode()):
            raise SessionUnknownError("this session is over", hint="log in again")
        if len(session.links) >= self.link_count_max:
            raise LimitError(f"a session has at most {self.link_count_max} links")
        session.links.add(link)
        self.on_change(session.tunnel_uid)
        return session

    def set_primary(self, session: Session, link: int) -> int | None:
        """This link is the primary one from now on; answers the one that was, if it is still there."""
        before, session.primary = session.primary, link
        return before

    def part(self, session: Session, link: int) -> None:
        """The link is over."""
        session.links.discard(link)
        if session.primary == link:
            session.primary = None
        self.on_change(session.tunnel_uid)

    def is_live(self, session: Session) -> bool:
        return self._by_tunnel.get(session.tunnel_uid) is session

    def close(self, session: Session) -> bool:
        """Forgets the session; False when it was replaced or closed before."""
        self._by_id.pop(session.id, None)
        if not self.is_live(session):
            return False
        del self._by_tunnel[session.tunnel_uid]
        self.on_change(session.tunnel_uid)
        return True

    def forget_tunnel(self, tunnel_uid: str) -> None:
        """The tunnel was deleted: its generations are of no use any more."""
        if tunnel_uid not in self._by_tunnel:
            self._generations.pop(tunnel_uid, None)


def _ignore(_tunnel_uid: str) -> None:
    """Nobody else is told."""
