"""Tunnels, their keys, and lists of them, however many there are: by state, by owner, by search."""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Sequence
from typing import Any

import peewee

from spokes.errors import InactiveError, NameRefusedError, NotFoundError, TokenError
from spokes.ids import canonical_host, is_secret, is_uid
from spokes.store.base import TEXT_CHARS_MAX, Secrets, View, is_printable
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.logged import AUTH_TOKENS, PORTMAPS, PORTS, SITES, LoggedTable, RowsOfTunnels
from spokes.store.models import AuthTokenModel, PresenceModel, SiteModel, TunnelModel
from spokes.store.rows import AuthToken, Tunnel, TunnelState
from spokes.store.statement import EachOf, Statement

VISIBLE = frozenset({TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.SHUTDOWN})

TUNNEL_COLUMNS = (
    TunnelModel.uid, TunnelModel.user_uid, TunnelModel.token_uid, TunnelModel.created, TunnelModel.modified,
    TunnelModel.name, TunnelModel.hostname, TunnelModel.shutdown, TunnelModel.deleted_at, TunnelModel.rev,
    PresenceModel.state, PresenceModel.last_active, PresenceModel.address, PresenceModel.version, PresenceModel.os,
    PresenceModel.arch,
)
NEWEST_FIRST = (TunnelModel.created.desc(), TunnelModel.uid)
_CONFIGURED = 10                         # how many of them are the tunnel's own

_FIND = Statement(lambda uid: tunnel_query(*TUNNEL_COLUMNS, where=[TunnelModel.uid == uid]))
TUNNELS_OF_USER = Statement(                # all but deleted ones
    lambda uid: tunnel_query(*TUNNEL_COLUMNS, where=[TunnelModel.user_uid == uid, TunnelModel.deleted_at.is_null()])
)
_COUNT_OF_USER = Statement(
    lambda uid: TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid))
    .where(TunnelModel.user_uid == uid, TunnelModel.deleted_at.is_null())
)
_COUNT_OF_TOKEN = Statement(
    lambda uid: TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid))
    .where(TunnelModel.token_uid == uid, TunnelModel.deleted_at.is_null())
)
_REGISTERED_SINCE = Statement(
    lambda uid, since: TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid), peewee.fn.MIN(TunnelModel.created))
    .where(TunnelModel.token_uid == uid, TunnelModel.created > since)
)
_LOCKED = Statement(lambda: AuthTokenModel.select(AuthTokenModel.tunnel_uid).where(~AuthTokenModel.active))
_AUTH_TOKEN_OF = AUTH_TOKENS.where(AuthTokenModel.tunnel_uid)
# What goes with a tunnel.
_PARTS: tuple[tuple[LoggedTable[Any], RowsOfTunnels[Any]], ...] = (
    (SITES, RowsOfTunnels(SITES)), (PORTS, RowsOfTunnels(PORTS)), (PORTMAPS, RowsOfTunnels(PORTMAPS)),
    (AUTH_TOKENS, RowsOfTunnels(AUTH_TOKENS)),
)

# Every login runs this one, ten thousand in a row after a restart, and peewee takes longer to write it than SQLite to
# answer it: so it is written once.
_FIND_BY_KEY = f"""
SELECT {", ".join(f"{field.model._meta.table_name}.{field.column_name}" for field in TUNNEL_COLUMNS)},
    auth_token.value, auth_token.active, owner.active
FROM auth_token JOIN tunnel ON tunnel.uid = auth_token.tunnel_uid LEFT JOIN presence ON presence.tunnel_uid = tunnel.uid
    LEFT JOIN "user" AS owner ON owner.uid = tunnel.user_uid
WHERE auth_token.value_hash = {{}} AND tunnel.deleted_at IS NULL
"""                                      # noqa: S608  names of our own columns


def to_tunnel(row: tuple[Any, ...]) -> Tunnel:
    uid, user_uid, token_uid, created, modified, name, hostname, shutdown, deleted_at, rev = row[:_CONFIGURED]
    seen, last_active, address, version, os, arch = row[_CONFIGURED:]
    if seen is None:                     # no presence row: never connected
        seen, last_active, address, version, os, arch = TunnelState.INIT, 0.0, "", "", "", ""
    return Tunnel(
        uid=uid, user_uid=user_uid, token_uid=token_uid, created=created, modified=modified, name=name,
        hostname=hostname, shutdown=bool(shutdown), deleted_at=deleted_at, rev=rev, seen=TunnelState(seen),
        last_active=last_active, address=address, version=version, os=os, arch=arch,
    )


def tunnel_query(*columns: peewee.Field, where: Sequence[Any]) -> peewee.ModelSelect[TunnelModel]:
    """With what was last seen of them; newest first."""
    return (
        TunnelModel.select(*columns)
        .join(PresenceModel, peewee.JOIN.LEFT_OUTER, on=(PresenceModel.tunnel_uid == TunnelModel.uid))
        .where(*where).order_by(*NEWEST_FIRST)
    )


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


class Tunnels:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    def find_by_key(self, key: str) -> Tunnel:
        """The tunnel that logs in with `key`: TokenError if there is none, InactiveError if it may not."""
        if is_secret(key):
            value_hash = self._secrets.hash(key)
            found = self._db.alone(lambda: self._db.query(_FIND_BY_KEY, (value_hash,)))
            for *columns, value, active, owner_active in found:
                if hmac.compare_digest(value, key):
                    tunnel = to_tunnel(tuple(columns))
                    if tunnel.shutdown:
                        raise InactiveError("this tunnel was shut down by the operator", hint="ask the operator")
                    if not active:
                        raise InactiveError("this tunnel's key is switched off", hint="ask the operator")
                    if owner_active is not None and not owner_active:
                        raise InactiveError("this tunnel's owner was deactivated", hint="ask the operator")
                    return tunnel
        raise TokenError("unknown tunnel key", hint="run `spoke configure` again")

    def get(self, uid: str, view: View | None = None) -> Tunnel:
        """Deleted ones too (state DELETED); NotFoundError if there never was one."""
        tunnel = self.find(uid, view)
        if tunnel is None:
            raise NotFoundError("unknown tunnel")
        return tunnel

    def find(self, uid: str, view: View | None = None) -> Tunnel | None:
        """Deleted ones too."""
        if is_uid(uid):
            for row in (view or self._db).rows(_FIND(uid)):
                return to_tunnel(row)
        return None

    def live(self, view: View, uid: str) -> Tunnel:
        """NotFoundError for a deleted one too."""
        tunnel = self.get(uid, view)
        if tunnel.state == TunnelState.DELETED:
            raise NotFoundError("this tunnel was deleted")
        return tunnel

    def auth_token(self, tunnel_uid: str, view: View | None = None) -> AuthToken:
        if is_uid(tunnel_uid):
            for row in (view or self._db).rows(_AUTH_TOKEN_OF(tunnel_uid)):
                return AUTH_TOKENS.read(row)
        raise NotFoundError("unknown tunnel")

    def locked(self) -> list[str]:
        """Those whose key is switched off."""
        return [uid for (uid,) in self._db.rows(_LOCKED())]

    # --- inside a transaction --------------------------------------------------------------------------------------

    def insert_auth_token(self, tx: Writer, auth: AuthToken) -> AuthToken:
        return tx.insert(auth, value_hash=self._secrets.hash(auth.value))

    def update_auth_token(self, tx: Writer, auth: AuthToken) -> AuthToken:
        return tx.update(auth, value_hash=self._secrets.hash(auth.value))

    def delete_parts(self, tx: Writer, uid: str) -> None:
        """Its key, sites, ports and port maps."""
        for table, of_tunnel in _PARTS:
            for row in tx.rows(of_tunnel(uid)):
                tx.delete(table.read(row))

    def count_of_user(self, view: View, user_uid: str) -> int:
        return int(view.rows(_COUNT_OF_USER(user_uid))[0][0])

    def count_of_token(self, view: View, token_uid: str) -> int:
        """That exist, of those registered with this token."""
        return int(view.rows(_COUNT_OF_TOKEN(token_uid))[0][0])

    def registered_since(self, view: View, token_uid: str, since: float) -> tuple[int, float | None]:
        """How many were registered with this token after `since`, whatever became of them, and the first of them."""
        ((count, oldest),) = view.rows(_REGISTERED_SINCE(token_uid, since))
        return int(count), oldest

    # --- lists -----------------------------------------------------------------------------------------------------

    def select(
        self, *, states: Collection[TunnelState] = VISIBLE, user_uid: str | None = None, limit: int | None = None,
        offset: int = 0,
    ) -> list[Tunnel]:
        """Those in one of `states` (none given: all but deleted ones), newest first; `user_uid` zero: the system's."""
        query = tunnel_query(*TUNNEL_COLUMNS, where=_in_states(states, user_uid))
        return [to_tunnel(row) for row in self._db.rows(query.limit(limit).offset(max(0, offset)))]

    def uids(self, *, user_uid: str | None = None) -> list[str]:
        """As list_tunnels(), ids alone: what a frozen list is made of."""
        return self._uids(_in_states(VISIBLE, user_uid))

    def of_user(self, user_uid: str, view: View | None = None) -> list[Tunnel]:
        """A user's, all but deleted ones, newest first."""
        query = TUNNELS_OF_USER(user_uid if is_uid(user_uid) else "")
        return [to_tunnel(row) for row in (view or self._db).rows(query)]

    def count_active(self) -> tuple[int, int]:
        """How many may come on-line, and how many of these were last seen on-line."""
        ((active, online),) = self._db.rows(_COUNT_ACTIVE())
        return int(active), int(online)

    def get_many(self, uids: Sequence[str]) -> list[Tunnel]:
        """These, in this order, deleted ones too; those that never were are left out."""
        found = self._db.rows(_THESE(json.dumps(list(filter(is_uid, uids)))))
        by_uid = {tunnel.uid: tunnel for tunnel in map(to_tunnel, found)}
        return [by_uid[uid] for uid in uids if uid in by_uid]

    def search(
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
