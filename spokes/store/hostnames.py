"""Who holds a host name, and who may have it: tunnels' own names, the names of their rules, and names given up lately.

A name that its tunnel was deleted with, or renamed away from, is known to visitors: nobody but its owner gets it for
HOSTNAME_HELD_S. Bound: FORMER_NAMES_MAX such names of one tunnel that goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spokes import clock
from spokes.errors import HeldNameError, NameRefusedError, PeerError, TakenError
from spokes.ids import ZERO_UID, canonical_host, is_reserved
from spokes.store.base import Read
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.models import FormerHostnameModel, SiteModel, TunnelModel
from spokes.store.rows import Tunnel
from spokes.store.statement import EachOf, Statement

HOSTNAME_HELD_S = 30 * 86_400            # a name that was given up goes to nobody else for this long
FORMER_NAMES_MAX = 10                    # of one tunnel that is renamed again and again: the latest
HOSTNAME_LABELS_MAX = 4                  # under the server's domain; automatic ones have one

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


class Asker(NamedTuple):
    """Who wants a name: a tunnel ("" for one that is about to be made), its user, the token it registered with."""

    tunnel_uid: str
    user_uid: str
    token_uid: str

    @classmethod
    def of(cls, tunnel: Tunnel) -> Asker:
        return cls(tunnel.uid, tunnel.user_uid, tunnel.token_uid)


NOBODY = Asker("", "", "")


class Holder(NamedTuple):
    """Whose a name is."""

    tunnel_uid: str
    user_uid: str = ""
    token_uid: str = ""
    left_at: float | None = None         # the name was given up; None: in use
    renamed: bool = False                # by a new name for the tunnel, not by its end

    def bars(self, asker: Asker) -> bool:
        """Whether the asker may not have the name: it is another tunnel's, or was another owner's."""
        if self.left_at is None:
            return self.tunnel_uid != asker.tunnel_uid
        if self.user_uid != asker.user_uid:
            return True
        if self.user_uid != ZERO_UID or self.tunnel_uid == asker.tunnel_uid:
            return False
        # The system's own: made by an administrator. Those who registered with one token are many people.
        return self.token_uid != ZERO_UID or asker.token_uid != ZERO_UID


class Hostnames:
    def __init__(self, db: Database) -> None:
        self._db = db

    def chosen(self, tx: Writer, hostname: str, domain: str, asker: Asker) -> str:
        """`hostname` in canonical form, if it lies under `domain`, is not reserved and nobody else has it."""
        hostname = canonical_host(hostname)
        if not hostname.endswith("." + domain):
            hint = "other domains are HTTP services" if "." in hostname else f"use {hostname}.{domain}"
            raise NameRefusedError(f"{hostname} is not under {domain}", hint=hint)
        if is_reserved(hostname, domain):
            raise NameRefusedError(f"{hostname} is reserved", hint="choose another name")
        if hostname.removesuffix("." + domain).count(".") >= HOSTNAME_LABELS_MAX:
            raise NameRefusedError(f"a hostname has {HOSTNAME_LABELS_MAX} labels under {domain} at most")
        for holder in self.holders(tx.rows, [hostname], asker).values():
            raise _taken(hostname, holder, hint="choose another name")
        for error in self.under_others(tx, [hostname], domain, asker).values():
            raise error
        if self.has_others_below(hostname, asker.tunnel_uid):
            raise TakenError(f"names under {hostname} belong to another tunnel", hint="choose another name")
        return hostname

    def leave(self, tx: Writer, tunnel: Tunnel, hostname: str) -> None:
        """The tunnel moves to `hostname`."""
        if hostname == tunnel.hostname:
            return
        of_tunnel = FormerHostnameModel.select(FormerHostnameModel.hostname).where(
            FormerHostnameModel.tunnel_uid == tunnel.uid
        )
        former = [host for (host,) in tx.rows(of_tunnel.order_by(FormerHostnameModel.left_at.desc()))]
        tx.unlogged(FormerHostnameModel.delete().where(
            (FormerHostnameModel.left_at <= tx.now - HOSTNAME_HELD_S)
            | FormerHostnameModel.hostname.in_([hostname, tunnel.hostname, *former[FORMER_NAMES_MAX - 1:]])
        ))
        tx.unlogged(FormerHostnameModel.insert(
            hostname=tunnel.hostname, tunnel_uid=tunnel.uid, user_uid=tunnel.user_uid, token_uid=tunnel.token_uid,
            left_at=tx.now,
        ))

    def under_others(
        self, tx: Writer, hosts: Sequence[str], domain: str, asker: Asker
    ) -> dict[str, PeerError]:
        """Those of `hosts` that lie under a hostname that is not the asker's: www.HOSTNAME would be believed to be that
        tunnel's too.
        """
        above = {host: _names_above(host, domain) for host in hosts}
        holders = self._hostname_holders(tx.rows, sorted({name for names in above.values() for name in names}))
        return {
            host: TakenError(f"{host} lies under {name}, which belongs to another tunnel", hint="choose another name")
            for host, names in above.items() for name in names if name in holders and holders[name].bars(asker)
        }

    def has_others_below(self, hostname: str, tunnel_uid: str) -> bool:
        """Whether a name under `hostname` is not this tunnel's. Called inside a transaction."""
        pattern = "%." + hostname.replace("_", "\\_")          # the one character of a host name that LIKE reads
        return bool(self._db.query(_BELOW, (pattern, tunnel_uid, pattern, tunnel_uid)))

    def holders(self, rows: Read, hosts: Sequence[str], asker: Asker) -> dict[str, Holder]:
        """Who holds which of the names so that the asker may not have it: as a site, or as a hostname."""
        named = self._hostname_holders(rows, hosts)
        in_use = {host: holder for host, holder in named.items() if holder.left_at is None}
        sites = {host: Holder(uid) for host, uid in rows(_SITE_HOLDERS(json.dumps(hosts)))}
        return {host: holder for host, holder in (named | sites | in_use).items() if holder.bars(asker)}

    @staticmethod
    def _hostname_holders(rows: Read, hosts: Sequence[str]) -> dict[str, Holder]:
        """By their own name, or the one they had within HOSTNAME_HELD_S; of several the latest."""
        holders: dict[str, Holder] = {}
        for statement, renamed in ((_FORMER_HOLDERS, True), (_HOSTNAME_HOLDERS, False)):
            for host, uid, user_uid, token_uid, left_at in rows(
                statement(json.dumps(hosts), clock.wall_s() - HOSTNAME_HELD_S)
            ):
                found, known = Holder(uid, user_uid, token_uid, left_at, renamed), holders.get(host)
                if known is None or _last(found) > _last(known):
                    holders[host] = found
        return holders

    def former(self, rows: Read, hosts: Sequence[str], tunnel: Tunnel) -> set[str]:
        """Those that the tunnel was renamed away from: they were given to it."""
        held = rows(_FORMER_HOLDERS(json.dumps(hosts), clock.wall_s() - HOSTNAME_HELD_S))
        return {host for host, uid, user_uid, *_ in held if (uid, user_uid) == (tunnel.uid, tunnel.user_uid)}

    @staticmethod
    def taken(holders: Mapping[str, Holder], *, hint: str) -> dict[str, PeerError]:
        return {host: _taken(host, holder, hint=hint) for host, holder in holders.items()}


def _last(holder: Holder) -> float:
    return float("inf") if holder.left_at is None else holder.left_at


def _taken(host: str, holder: Holder, *, hint: str) -> TakenError:
    """Why nobody else gets a name: it is in use, or was a short while ago."""
    if holder.left_at is None:
        return TakenError(f"{host} belongs to another tunnel", hint=hint)
    what = "has another name now" if holder.renamed else "was deleted"
    return HeldNameError(
        f"{host} belonged to a tunnel that {what}, and is held for {HOSTNAME_HELD_S // 86_400} days",
        hint="choose another name, or wait",
    )


def _names_above(host: str, domain: str) -> list[str]:
    """The names between `host` and `domain` that could be hostnames of tunnels, nearest to the domain first."""
    head = host.removesuffix("." + domain)
    if head == host:
        return []
    labels = head.split(".")[-HOSTNAME_LABELS_MAX - 1:]
    return [".".join((*labels[-count:], domain)) for count in range(1, len(labels))]
