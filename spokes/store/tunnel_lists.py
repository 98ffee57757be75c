"""Lists of tunnels, however many there are: by state, by owner, by search."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import peewee

from spokes.errors import NameRefusedError
from spokes.ids import canonical_host, is_uid
from spokes.store.base import TEXT_CHARS_MAX, is_printable
from spokes.store.models import PresenceModel, SiteModel, TunnelModel
from spokes.store.rows import Tunnel, TunnelState
from spokes.store.statement import EachOf, Statement
from spokes.store.tunnels import NEWEST_FIRST, TUNNEL_COLUMNS, TUNNELS_OF_USER, Tunnels, to_tunnel, tunnel_query

VISIBLE = frozenset({TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.SHUTDOWN})



def _was_seen(*conditions: Any) -> Any:
    """Tunnels of whose presence this is true."""
    return TunnelModel.uid.in_(PresenceModel.select(PresenceModel.tunnel_uid).where(*conditions))


_MAY_RUN = (TunnelModel.deleted_at.is_null(), ~TunnelModel.shutdown)
# Where few are on-line few rows are read: SQLite would otherwise look at all tunnels, in the order of their index.
_IS_ONLINE = _was_seen(PresenceModel.state == TunnelState.ONLINE.value)
_COUNT = TunnelModel.select(peewee.fn.COUNT(peewee.SQL("1")))
_COUNT_ACTIVE = Statement(
    lambda: peewee.Select(columns=[
        # Written as the index has it, unlike the other, which must not begin with that index.
        _COUNT.where(TunnelModel.deleted_at.is_null(), TunnelModel.shutdown == False),  # noqa: E712  an expression
        _COUNT.where(_IS_ONLINE, *_MAY_RUN),
    ])
)
_THESE = Statement(lambda uids: tunnel_query(*TUNNEL_COLUMNS, where=[TunnelModel.uid.in_(EachOf(uids))]))


class TunnelLists(Tunnels):
    def list_tunnels(
        self, *, states: Collection[TunnelState] = VISIBLE, user_uid: str | None = None, limit: int | None = None,
        offset: int = 0,
    ) -> list[Tunnel]:
        """Those in one of `states` (none given: all but deleted ones), newest first; `user_uid` zero: the system's."""
        query = tunnel_query(*TUNNEL_COLUMNS, where=_in_states(states, user_uid))
        return [to_tunnel(row) for row in self._db.rows(query.limit(limit).offset(max(0, offset)))]

    def list_tunnel_uids(self, *, user_uid: str | None = None) -> list[str]:
        """As list_tunnels(), ids alone: what a frozen list is made of."""
        return self._uids(_in_states(VISIBLE, user_uid))

    def list_user_tunnels(self, user_uid: str) -> list[Tunnel]:
        """A user's, all but deleted ones, newest first."""
        return [to_tunnel(row) for row in self._db.rows(TUNNELS_OF_USER(user_uid if is_uid(user_uid) else ""))]

    def count_active_tunnels(self) -> tuple[int, int]:
        """How many may come on-line, and how many of these were last seen on-line."""
        ((active, online),) = self._db.rows(_COUNT_ACTIVE())
        return int(active), int(online)

    def get_tunnels(self, uids: Sequence[str]) -> list[Tunnel]:
        """These, in this order, deleted ones too; those that never were are left out."""
        found = self._db.rows(_THESE(json.dumps(list(filter(is_uid, uids)))))
        by_uid = {tunnel.uid: tunnel for tunnel in map(to_tunnel, found)}
        return [by_uid[uid] for uid in uids if uid in by_uid]

    def search_tunnels(
        self, term: str = "", os: str = "", arch: str = "", version: str = "", *, user_uid: str | None = None
    ) -> list[str]:
        """Ids of those (but deleted ones) that meet every condition, newest first; an empty one is met by all.

        `term` is a part of the name, hostname, address, id or a served domain, in any case; `os` and `arch` are whole
        words in any case, `version` is how it begins.
        """
        if not all(len(text) <= TEXT_CHARS_MAX and is_printable(text) for text in (term, os, arch, version)):
            return []                    # nothing that is stored is so long or holds such characters
        where, seen = _in_states(VISIBLE, user_uid), []
        if os:
            seen.append(peewee.fn.LOWER(PresenceModel.os) == os.lower())
        if arch:
            seen.append(peewee.fn.LOWER(PresenceModel.arch) == arch.lower())
        if version:
            seen.append(peewee.fn.SUBSTR(PresenceModel.version, 1, len(version)) == version)
        if seen:
            where.append(_was_seen(*seen))
        if not term:
            return self._uids(where)
        if term.isascii():
            return self._uids([*where, self._holds(term)])
        # Databases fold only ASCII alike, so names are compared here; what is a host name is stored as A-labels.
        folded = term.casefold()
        try:
            as_host = set(self._uids([*where, self._holds(canonical_host(term))]))
        except NameRefusedError:
            as_host = set()
        named = self._db.rows(tunnel_query(TunnelModel.uid, TunnelModel.name, where=where))
        return [uid for uid, name in named if folded in name.casefold() or uid in as_host]

    def _uids(self, where: Sequence[Any]) -> list[str]:
        """By conditions on the tunnel alone: a join would look up what was seen of each."""
        query = TunnelModel.select(TunnelModel.uid).where(*where).order_by(*NEWEST_FIRST)
        return [uid for (uid,) in self._db.rows(query)]

    def _holds(self, term: str) -> Any:
        """One of the texts holds `term` (ASCII), in any case; contains() escapes what LIKE would take for a pattern."""
        served = SiteModel.select(SiteModel.tunnel_uid).where(SiteModel.domain.contains(term))
        return (
            TunnelModel.name.contains(term) | TunnelModel.hostname.contains(term) | TunnelModel.uid.contains(term)
            | _was_seen(PresenceModel.address.contains(term)) | TunnelModel.uid.in_(served)
        )


def _shown_state() -> peewee.Case:
    """Tunnel.state, in SQL."""
    return peewee.Case(None, (
        (TunnelModel.deleted_at.is_null(False), TunnelState.DELETED.value),
        (TunnelModel.shutdown, TunnelState.SHUTDOWN.value),
        (PresenceModel.state.is_null(), TunnelState.INIT.value),
    ), PresenceModel.state)


def _in_states(states: Collection[TunnelState], user_uid: str | None) -> list[Any]:
    where = [] if user_uid is None else [TunnelModel.user_uid == (user_uid if is_uid(user_uid) else "")]
    if set(states) == VISIBLE:
        return [*where, TunnelModel.deleted_at.is_null()]
    if set(states) == {TunnelState.ONLINE}:
        return [*where, _IS_ONLINE, *_MAY_RUN]
    return [*where, _shown_state().in_([state.value for state in states])]
