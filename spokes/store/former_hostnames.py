"""Host names that a tunnel was renamed away from: held for a while, so that nobody else takes over who asks for them.

Each node notes them beside the tunnel's row when that is renamed, whoever renamed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from spokes.store.base import View
from spokes.store.db import Query
from spokes.store.models import FormerHostnameModel
from spokes.store.rows import Tunnel

HOSTNAME_HELD_S = 30 * 86_400            # a name that was given up goes to nobody else for this long
FORMER_NAMES_MAX = 10                    # of one tunnel that is renamed again and again: the latest


class Writing(View, Protocol):
    """A writing transaction: Writer, or changes of another node that are being applied."""

    def unlogged(self, query: Query) -> Any:
        """Run a statement on a table that is in no change log; what it answers."""
        ...


def hold_hostname(tx: Writing, tunnel: Tunnel, new_hostname: str) -> None:
    """The tunnel moves to `new_hostname`: its present one is held, and of those before the latest."""
    of_tunnel = FormerHostnameModel.select(FormerHostnameModel.hostname).where(
        FormerHostnameModel.tunnel_uid == tunnel.uid
    )
    former = [host for (host,) in tx.rows(of_tunnel.order_by(FormerHostnameModel.left_at.desc()))]
    gone: Iterable[str] = [new_hostname, tunnel.hostname, *former[FORMER_NAMES_MAX - 1:]]
    tx.unlogged(FormerHostnameModel.delete().where(
        (FormerHostnameModel.left_at <= tx.now - HOSTNAME_HELD_S) | FormerHostnameModel.hostname.in_(gone)
    ))
    tx.unlogged(FormerHostnameModel.insert(
        hostname=tunnel.hostname, tunnel_uid=tunnel.uid, user_uid=tunnel.user_uid, token_uid=tunnel.token_uid,
        left_at=tx.now,
    ))
