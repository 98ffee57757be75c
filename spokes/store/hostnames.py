"""Who holds a host name: tunnels' own names, the names of their rules, and names given up lately."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from spokes import clock
from spokes.store.base import View
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.former_hostnames import HOSTNAME_HELD_S, hold_hostname
from spokes.store.models import FormerHostnameModel, SiteModel, TunnelModel
from spokes.store.rows import Tunnel
from spokes.store.statement import EachOf, Statement

_BELOW = """
SELECT 1 FROM site WHERE domain LIKE {} ESCAPE '\\' AND tunnel_uid <> {}
UNION ALL SELECT 1 FROM tunnel WHERE deleted_at IS NULL AND hostname LIKE {} ESCAPE '\\' AND uid <> {} LIMIT 1
"""
_SITE_HOLDERS = Statement(
    lambda hosts: SiteModel.select(SiteModel.domain, SiteModel.tunnel_uid).where(SiteModel.domain.in_(EachOf(hosts)))
)
_HOSTNAME_HOLDERS = Statement(
    lambda hosts, oldest: TunnelModel.select(
        TunnelModel.hostname, TunnelModel.uid, TunnelModel.user_uid, TunnelModel.token_uid, TunnelModel.deleted_at
    ).where(
        TunnelModel.hostname.in_(EachOf(hosts)), TunnelModel.deleted_at.is_null() | (TunnelModel.deleted_at > oldest)
    )
)
_FORMER_HOLDERS = Statement(
    lambda hosts, oldest: FormerHostnameModel.select(
        FormerHostnameModel.hostname, FormerHostnameModel.tunnel_uid, FormerHostnameModel.user_uid,
        FormerHostnameModel.token_uid, FormerHostnameModel.left_at,
    ).where(FormerHostnameModel.hostname.in_(EachOf(hosts)), FormerHostnameModel.left_at > oldest)
)


class Holder(NamedTuple):
    """Whose a name is."""

    tunnel_uid: str
    user_uid: str = ""
    token_uid: str = ""
    left_at: float | None = None         # the name was given up; None: in use
    renamed: bool = False                # by a new name for the tunnel, not by its end


class Hostnames:
    def __init__(self, db: Database) -> None:
        self._db = db

    def holders_of_hostnames(self, view: View, hosts: Sequence[str]) -> dict[str, Holder]:
        """By their own name, or the one they had within HOSTNAME_HELD_S; of several the latest."""
        holders: dict[str, Holder] = {}
        for statement, renamed in ((_FORMER_HOLDERS, True), (_HOSTNAME_HOLDERS, False)):
            for host, uid, user_uid, token_uid, left_at in view.rows(
                statement(json.dumps(hosts), clock.wall_s() - HOSTNAME_HELD_S)
            ):
                found, known = Holder(uid, user_uid, token_uid, left_at, renamed), holders.get(host)
                if known is None or _last(found) > _last(known):
                    holders[host] = found
        return holders

    def holders_of_sites(self, view: View, hosts: Sequence[str]) -> dict[str, Holder]:
        return {host: Holder(uid) for host, uid in view.rows(_SITE_HOLDERS(json.dumps(hosts)))}

    def former(self, view: View, hosts: Sequence[str], tunnel: Tunnel) -> set[str]:
        """Those that the tunnel was renamed away from: they were given to it."""
        held = view.rows(_FORMER_HOLDERS(json.dumps(hosts), clock.wall_s() - HOSTNAME_HELD_S))
        return {host for host, uid, user_uid, *_ in held if (uid, user_uid) == (tunnel.uid, tunnel.user_uid)}

    def has_others_below(self, hostname: str, tunnel_uid: str) -> bool:
        """Whether a name under `hostname` is not this tunnel's. Called inside a transaction."""
        pattern = "%." + hostname.replace("_", "\\_")          # the one character of a host name that LIKE reads
        return bool(self._db.query(_BELOW, (pattern, tunnel_uid, pattern, tunnel_uid)))

    def hold(self, tx: Writer, tunnel: Tunnel, new_hostname: str) -> None:
        """The tunnel moves to `new_hostname`: its present one is held, and of those before the latest."""
        hold_hostname(tx, tunnel, new_hostname)


def _last(holder: Holder) -> float:
    return float("inf") if holder.left_at is None else holder.left_at
