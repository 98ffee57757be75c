"""Tunnels: operations that register, create, assign, rename, shut down and delete them, and set their keys."""

from __future__ import annotations

from dataclasses import replace

from spokes.errors import (
    AdmissionRefusedError,
    ForbiddenError,
    InactiveError,
    LimitError,
    TakenError,
    TokenError,
    ValueRefusedError,
)
from spokes.ids import ZERO_UID, canonical_host, is_uid, new_secret, new_uid
from spokes.model.hostnames import Claimant, chosen_hostname, drawn_hostname
from spokes.model.limits import check_tunnel_count, owner_of
from spokes.model.operation import ANYBODY, USERS_AND_CLIENTS, Operation, Work
from spokes.store import AuthToken, Store, Token, Tunnel, TunnelState
from spokes.store.base import checked_text
from spokes.store.changes import Writer

HOUR_S = 3600.0


class RegisterTunnel(Operation[tuple[Tunnel, str]], frozen=True, kw_only=True, tag="tunnel.register"):
    """Creates a tunnel for whoever holds a registration token, and returns it with the key it logs in with.

    Without `hostname` a free one is drawn; one that is given must lie under `domain`, be neither reserved
    (NameRefusedError) nor held (TakenError).
    """

    callers = ANYBODY

    token: str
    name: str
    hostname: str | None = None
    domain: str

    def apply(self, work: Work) -> tuple[Tunnel, str]:
        name = checked_text(self.name, "tunnel name")
        domain = canonical_host(self.domain)
        with work.transaction() as tx:
            token = _usable_token(work.store, tx, self.token)
            _check_quota(work.store, tx, token)
            tunnel, auth = _insert_tunnel(work.store, tx, name, self.hostname, domain, token_uid=token.uid)
            return tunnel, auth.value


class CreateTunnel(Operation[tuple[Tunnel, AuthToken]], frozen=True, kw_only=True, tag="tunnel.create"):
    """Creates a tunnel and returns it with its auth token.

    An unknown user is NotFoundError, one who has all the tunnels they may have PolicyError.
    """

    name: str
    hostname: str | None = None
    domain: str
    user_uid: str = ZERO_UID
    uid: str | None = None

    def apply(self, work: Work) -> tuple[Tunnel, AuthToken]:
        name = checked_text(self.name, "tunnel name")
        domain = canonical_host(self.domain)
        uid, user_uid, store = self.uid, self.user_uid, work.store
        if not is_uid(user_uid) or (uid is not None and not is_uid(uid)) or uid == ZERO_UID:
            raise ValueRefusedError("an id is 32 lower-case hex digits, and a tunnel's is not zero")
        work.check_sees(user_uid, "user")
        with work.transaction() as tx:
            if uid is not None and store.tunnels.find(uid, tx) is not None:
                raise TakenError("a tunnel with this id exists")
            if (owner := owner_of(store, tx, user_uid)) is not None:
                check_tunnel_count(store, tx, owner)
            return _insert_tunnel(store, tx, name, self.hostname, domain, user_uid=user_uid, uid=uid)


class AssignTunnel(Operation[tuple[Tunnel, AuthToken]], frozen=True, kw_only=True, tag="tunnel.assign"):
    """Links a tunnel that exists to a user (zero: the system) and enable it; with `hostname` it moves there, and the
    name it had is held as a deleted tunnel's is.

    A basic user's tunnel that was shut down stays so, and one that was handed over stays another's.
    """

    uid: str
    user_uid: str
    name: str
    hostname: str | None = None
    domain: str

    def apply(self, work: Work) -> tuple[Tunnel, AuthToken]:
        name = checked_text(self.name, "tunnel name")
        domain = canonical_host(self.domain)
        hostname, store = self.hostname, work.store
        work.check_sees(self.user_uid, "user")
        with work.transaction() as tx:
            tunnel = store.tunnels.live(tx, self.uid)
            auth = store.tunnels.auth_token(self.uid, tx)
            if not work.principal.may_see(tunnel.user_uid):
                raise TakenError("a tunnel with this id exists")
            if not work.principal.is_admin and (tunnel.shutdown or not auth.active):
                raise ForbiddenError("this tunnel was shut down", hint="an administrator can enable it again")
            owner = owner_of(store, tx, self.user_uid)
            if owner is not None and tunnel.user_uid != self.user_uid:
                check_tunnel_count(store, tx, owner)
            if hostname:
                claimant = Claimant(self.uid, self.user_uid, tunnel.token_uid)
                hostname = chosen_hostname(store, tx, hostname, domain, claimant)
                if hostname != tunnel.hostname:
                    store.hostnames.hold(tx, tunnel, hostname)
            if not auth.active:
                auth = tx.update(replace(auth, active=True, modified=tx.now))
            changed = replace(
                tunnel, user_uid=self.user_uid, name=name or tunnel.name, hostname=hostname or tunnel.hostname,
                shutdown=False,
            )
            return tunnel if changed == tunnel else tx.update(replace(changed, modified=tx.now)), auth


class EditTunnel(Operation[Tunnel], frozen=True, tag="tunnel.edit"):
    """Renames a tunnel."""

    callers = USERS_AND_CLIENTS

    uid: str
    name: str

    def apply(self, work: Work) -> Tunnel:
        name = checked_text(self.name, "tunnel name")
        with work.transaction() as tx:
            return tx.update(replace(work.tunnel(tx, self.uid), name=name, modified=tx.now))


class SetTunnelState(Operation[Tunnel], frozen=True, tag="tunnel.set_state"):
    """Sets the state that an operator decides: SHUTDOWN refuses the tunnel's logins, INIT admits it again.

    ONLINE and OFFLINE are seen, not decided (store.presence); DELETED is DeleteTunnel.
    """

    uid: str
    state: TunnelState

    def apply(self, work: Work) -> Tunnel:
        if self.state not in (TunnelState.SHUTDOWN, TunnelState.INIT):
            raise ValueRefusedError(f"the state {int(self.state)} is not the operator's to set")
        with work.transaction() as tx:
            tunnel = work.tunnel(tx, self.uid)
            shutdown = self.state == TunnelState.SHUTDOWN
            if not shutdown:             # an owner does not undo what the operator decided
                work.check_admin()
            if tunnel.shutdown == shutdown:
                return tunnel
            return tx.update(replace(tunnel, shutdown=shutdown, modified=tx.now))


class DeleteTunnel(Operation[None], frozen=True, tag="tunnel.delete"):
    """Deletes a tunnel: key, sites and ports are freed, the hostname is held for HOSTNAME_HELD_S."""

    uid: str

    def apply(self, work: Work) -> None:
        with work.transaction() as tx:
            delete_tunnel(work.store, tx, work.tunnel(tx, self.uid))


class SetTunnelKey(Operation[AuthToken], frozen=True, tag="tunnel_key.set"):
    """Switches a tunnel's key on or off; off refuses its logins and ends its session."""

    admin_only = True

    tunnel_uid: str
    active: bool

    def apply(self, work: Work) -> AuthToken:
        with work.transaction() as tx:
            work.tunnel(tx, self.tunnel_uid)
            auth = work.store.tunnels.auth_token(self.tunnel_uid, tx)
            return auth if auth.active == self.active else tx.update(
                replace(auth, active=self.active, modified=tx.now)
            )


class RenewTunnelKey(Operation[AuthToken], frozen=True, tag="tunnel_key.renew"):
    """Gives a tunnel another key and ends the session of the old one. A key that is switched off stays so."""

    tunnel_uid: str

    def apply(self, work: Work) -> AuthToken:
        with work.transaction() as tx:
            work.tunnel(tx, self.tunnel_uid)
            auth = work.store.tunnels.auth_token(self.tunnel_uid, tx)
            return work.store.tunnels.update_auth_token(tx, replace(auth, value=new_secret(), modified=tx.now))


def delete_tunnel(store: Store, tx: Writer, tunnel: Tunnel) -> None:
    """Deletes a tunnel within the caller's transaction."""
    store.tunnels.delete_parts(tx, tunnel.uid)
    tx.update(replace(tunnel, deleted_at=tx.now, modified=tx.now))


def _usable_token(store: Store, tx: Writer, value: str) -> Token:
    """Returns the token with this value; TokenError if there is none, InactiveError if it is switched off."""
    token = store.tokens.find_by_value(tx, value)
    if token is None:
        raise TokenError(
            "unknown registration token",
            hint="check it for missing characters; `spokes token create` on the server makes a new one",
        )
    if not token.active:
        raise InactiveError("this registration token is switched off", hint="ask the operator")
    return token


def _check_quota(store: Store, tx: Writer, token: Token) -> None:
    """Refuses a registration beyond the token's maxima, inside the transaction that registers."""
    if token.tunnel_count_max and store.tunnels.count_of_token(tx, token.uid) >= token.tunnel_count_max:
        raise LimitError(
            f"this registration token is good for {token.tunnel_count_max} tunnels, and they exist",
            hint="ask the operator",
        )
    if token.tunnels_per_hour_max:
        count, oldest = store.tunnels.registered_since(tx, token.uid, tx.now - HOUR_S)
        if oldest is not None and count >= token.tunnels_per_hour_max:
            raise AdmissionRefusedError(
                f"this registration token is good for {token.tunnels_per_hour_max} tunnels an hour",
                retry_after_s=max(1.0, oldest + HOUR_S - tx.now),
            )


def _insert_tunnel(
    store: Store, tx: Writer, name: str, hostname: str | None, domain: str, *,
    user_uid: str = ZERO_UID, token_uid: str = ZERO_UID, uid: str | None = None,
) -> tuple[Tunnel, AuthToken]:
    if hostname:
        hostname = chosen_hostname(store, tx, hostname, domain, Claimant("", user_uid, token_uid))
    else:
        hostname = drawn_hostname(store, tx, domain)
    tunnel = tx.insert(Tunnel(
        uid=uid or new_uid(), user_uid=user_uid, token_uid=token_uid, created=tx.now, modified=tx.now, name=name,
        hostname=hostname,
    ))
    auth = AuthToken(
        uid=new_uid(), tunnel_uid=tunnel.uid, created=tx.now, modified=tx.now, active=True, value=new_secret()
    )
    return tunnel, store.tunnels.insert_auth_token(tx, auth)
