"""Tunnels: registration, look-up, and the life of a tunnel up to its deletion."""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import peewee

from spokes.errors import (
    AdmissionRefusedError,
    InactiveError,
    LimitError,
    NameRefusedError,
    NotFoundError,
    TakenError,
    TokenError,
    ValueRefusedError,
)
from spokes.ids import (
    ZERO_UID,
    automatic_hostname,
    canonical_host,
    is_secret,
    is_uid,
    new_secret,
    new_uid,
)
from spokes.store.base import TEXT_CHARS_MAX, Read, Secrets, checked_text, is_printable
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.hostnames import NOBODY, Asker, Hostnames
from spokes.store.limits import check_tunnel_count, owner_of
from spokes.store.logged import AUTH_TOKENS, PORTMAPS, PORTS, SITES, LoggedTable, RowsOfTunnels
from spokes.store.models import AuthTokenModel, PresenceModel, SiteModel, TunnelModel
from spokes.store.rows import AuthToken, Token, Tunnel, TunnelState
from spokes.store.statement import EachOf, Statement
from spokes.store.tokens import Tokens

HOUR_S = 3600.0
VISIBLE = frozenset({TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE, TunnelState.SHUTDOWN})

TUNNEL_COLUMNS = (
    TunnelModel.uid, TunnelModel.user_uid, TunnelModel.token_uid, TunnelModel.created, TunnelModel.modified,
    TunnelModel.name, TunnelModel.hostname, TunnelModel.shutdown, TunnelModel.deleted_at, TunnelModel.rev,
    PresenceModel.state, PresenceModel.last_active, PresenceModel.address, PresenceModel.version, PresenceModel.os,
    PresenceModel.arch,
)
NEWEST_FIRST = (TunnelModel.created.desc(), TunnelModel.uid)
TUNNELS_PER_USER_MAX = 100
_CONFIGURED = 10                         # how many of them are the tunnel's own

_FIND = Statement(lambda uid: tunnel_query(*TUNNEL_COLUMNS, where=[TunnelModel.uid == uid]))
TUNNELS_OF_USER = Statement(                # all but deleted ones
    lambda uid: tunnel_query(*TUNNEL_COLUMNS, where=[TunnelModel.user_uid == uid, TunnelModel.deleted_at.is_null()])
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
    def __init__(
        self, db: Database, changes: ChangeLog, secrets: Secrets, hostnames: Hostnames, tokens: Tokens
    ) -> None:
        self._db = db
        self._changes = changes
        self._secrets = secrets
        self._hostnames = hostnames
        self._tokens = tokens
        # Of a basic user without a maximum of their own; 0: none. Set once by who opens the store.
        self.per_user_max = TUNNELS_PER_USER_MAX

    def register(
        self, token_value: str, name: str, hostname: str | None = None, *, domain: str
    ) -> tuple[Tunnel, str]:
        """A new tunnel for whoever holds a registration token, and the key it logs in with.

        Without `hostname` a free one is drawn; one that is given must lie under `domain`, be neither reserved
        (NameRefusedError) nor held (TakenError).
        """
        name = checked_text(name, "tunnel name")
        domain = canonical_host(domain)
        with self._changes.transaction() as tx:
            token = self._tokens.usable(tx.read, token_value)
            self._check_quota(tx, token)
            tunnel, auth = self._insert_tunnel(tx, name, hostname, domain, token_uid=token.uid)
        return tunnel, auth.value

    def create(
        self, name: str, hostname: str | None = None, *, domain: str, user_uid: str = ZERO_UID, uid: str | None = None
    ) -> tuple[Tunnel, AuthToken]:
        """A new tunnel made by an administrator, with its auth token.

        An unknown user is NotFoundError, one who has all the tunnels they may have PolicyError.
        """
        name = checked_text(name, "tunnel name")
        domain = canonical_host(domain)
        if not is_uid(user_uid) or (uid is not None and not is_uid(uid)) or uid == ZERO_UID:
            raise ValueRefusedError("an id is 32 lower-case hex digits, and a tunnel's is not zero")
        with self._changes.transaction() as tx:
            if uid is not None and tx.rows(_FIND(uid)):
                raise TakenError("a tunnel with this id exists")
            if (owner := owner_of(tx, user_uid)) is not None:
                check_tunnel_count(tx, owner, self.per_user_max)
            return self._insert_tunnel(tx, name, hostname, domain, user_uid=user_uid, uid=uid)

    def assign(
        self, uid: str, user_uid: str, *, name: str, hostname: str | None = None, domain: str
    ) -> tuple[Tunnel, AuthToken]:
        """Link a tunnel that exists to a user (zero: the system) and enable it; with `hostname` it moves there, and the
        name it had is held as a deleted tunnel's is."""
        name = checked_text(name, "tunnel name")
        domain = canonical_host(domain)
        with self._changes.transaction() as tx:
            tunnel = self.live(tx.rows, uid)
            owner = owner_of(tx, user_uid)
            if owner is not None and tunnel.user_uid != user_uid:
                check_tunnel_count(tx, owner, self.per_user_max)
            if hostname:
                asker = Asker(uid, user_uid, tunnel.token_uid)
                hostname = self._hostnames.chosen(tx, hostname, domain, asker)
                self._hostnames.leave(tx, tunnel, hostname)
            auth = self._auth_token(tx.read, uid)
            if not auth.active:
                auth = tx.update(replace(auth, active=True, modified=tx.now))
            changed = replace(
                tunnel, user_uid=user_uid, name=name or tunnel.name, hostname=hostname or tunnel.hostname,
                shutdown=False,
            )
            return tunnel if changed == tunnel else tx.update(replace(changed, modified=tx.now)), auth

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

    def get(self, uid: str) -> Tunnel:
        """Deleted ones too (state DELETED); NotFoundError if there never was one."""
        return self.find(self._db.rows, uid)

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

    def of_user(self, user_uid: str) -> list[Tunnel]:
        """A user's, all but deleted ones, newest first."""
        return [to_tunnel(row) for row in self._db.rows(TUNNELS_OF_USER(user_uid if is_uid(user_uid) else ""))]

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

    def auth_token(self, tunnel_uid: str) -> AuthToken:
        return self._auth_token(self._db.read, tunnel_uid)

    def set_auth_token(self, tunnel_uid: str, *, active: bool) -> AuthToken:
        """Switch a tunnel's key on or off: off refuses its logins and ends what it logged in."""
        with self._changes.transaction() as tx:
            self.live(tx.rows, tunnel_uid)
            auth = self._auth_token(tx.read, tunnel_uid)
            return auth if auth.active == active else tx.update(replace(auth, active=active, modified=tx.now))

    def renew_auth_token(self, tunnel_uid: str) -> AuthToken:
        """Give a tunnel another key; what the old one logged in ends. One that is switched off stays so."""
        with self._changes.transaction() as tx:
            self.live(tx.rows, tunnel_uid)
            auth = replace(self._auth_token(tx.read, tunnel_uid), value=new_secret(), modified=tx.now)
            return tx.update(auth, value_hash=self._secrets.hash(auth.value))

    def locked(self) -> list[str]:
        """Those whose key is switched off."""
        return [uid for (uid,) in self._db.rows(_LOCKED())]

    def edit(self, uid: str, *, name: str) -> Tunnel:
        name = checked_text(name, "tunnel name")
        with self._changes.transaction() as tx:
            return tx.update(replace(self.live(tx.rows, uid), name=name, modified=tx.now))

    def set_state(self, uid: str, state: TunnelState) -> Tunnel:
        """The operator's decision: SHUTDOWN refuses its logins, INIT admits it again.

        ONLINE and OFFLINE are seen, not decided (write_presence); DELETED is delete_tunnel.
        """
        if state not in (TunnelState.SHUTDOWN, TunnelState.INIT):
            raise ValueError(f"{state!r} is not the operator's to set")
        with self._changes.transaction() as tx:
            tunnel = self.live(tx.rows, uid)
            shutdown = state == TunnelState.SHUTDOWN
            if tunnel.shutdown == shutdown:
                return tunnel
            return tx.update(replace(tunnel, shutdown=shutdown, modified=tx.now))

    def delete(self, uid: str) -> None:
        """State DELETED: key, sites and ports are freed, the hostname is held for HOSTNAME_HELD_S."""
        with self._changes.transaction() as tx:
            self.delete_within(tx, self.live(tx.rows, uid))

    @staticmethod
    def _check_quota(tx: Writer, token: Token) -> None:
        """Inside the transaction that registers: two at once cannot both be the last."""
        of_token = TunnelModel.token_uid == token.uid
        if token.tunnel_count_max:
            alive = TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid))
            if tx.rows(alive.where(of_token, TunnelModel.deleted_at.is_null()))[0][0] >= token.tunnel_count_max:
                raise LimitError(
                    f"this registration token is good for {token.tunnel_count_max} tunnels, and they exist",
                    hint="ask the operator",
                )
        if token.tunnels_per_hour_max:
            recent = TunnelModel.select(peewee.fn.COUNT(TunnelModel.uid), peewee.fn.MIN(TunnelModel.created))
            count, oldest = tx.rows(recent.where(of_token, TunnelModel.created > tx.now - HOUR_S))[0]
            if count >= token.tunnels_per_hour_max:
                raise AdmissionRefusedError(
                    f"this registration token is good for {token.tunnels_per_hour_max} tunnels an hour",
                    retry_after_s=max(1.0, oldest + HOUR_S - tx.now),
                )

    # --- below -----------------------------------------------------------------------------------------------------

    @staticmethod
    def delete_within(tx: Writer, tunnel: Tunnel) -> None:
        uid = tunnel.uid
        for table, of_tunnel in _PARTS:
            for row in tx.rows(of_tunnel(uid)):
                tx.delete(table.read(row))
        tx.update(replace(tunnel, deleted_at=tx.now, modified=tx.now))

    def _insert_tunnel(
        self, tx: Writer, name: str, hostname: str | None, domain: str, *,
        user_uid: str = ZERO_UID, token_uid: str = ZERO_UID, uid: str | None = None,
    ) -> tuple[Tunnel, AuthToken]:
        if hostname:
            hostname = self._hostnames.chosen(tx, hostname, domain, Asker("", user_uid, token_uid))
        else:
            hostname = automatic_hostname(domain, lambda host: (
                host in self._hostnames.holders(tx.rows, [host], NOBODY) or self._hostnames.has_others_below(host, "")
            ))
        tunnel = tx.insert(Tunnel(
            uid=uid or new_uid(), user_uid=user_uid, token_uid=token_uid, created=tx.now, modified=tx.now, name=name,
            hostname=hostname,
        ))
        auth = AuthToken(
            uid=new_uid(), tunnel_uid=tunnel.uid, created=tx.now, modified=tx.now, active=True, value=new_secret()
        )
        return tunnel, tx.insert(auth, value_hash=self._secrets.hash(auth.value))

    @staticmethod
    def _auth_token(read: Read, tunnel_uid: str) -> AuthToken:
        if is_uid(tunnel_uid):
            for row in read(_AUTH_TOKEN_OF(tunnel_uid)):
                return AUTH_TOKENS.read(row)
        raise NotFoundError("unknown tunnel")

    def find(self, rows: Read, uid: str) -> Tunnel:
        if is_uid(uid):
            for row in rows(_FIND(uid)):
                return to_tunnel(row)
        raise NotFoundError("unknown tunnel")

    def live(self, rows: Read, uid: str) -> Tunnel:
        tunnel = self.find(rows, uid)
        if tunnel.state == TunnelState.DELETED:
            raise NotFoundError("this tunnel was deleted")
        return tunnel

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
