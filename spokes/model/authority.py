"""What must still hold when a change is made: whoever asked for it may ask, and its object is theirs.

Rights are looked at when a call comes in, and what they rest on may be gone when its work begins: a body takes its
time, a name server too, and others write meanwhile. So each of these is a check that every transaction of the call runs
first (store/principal.py).
Fails: NotSignedInError, ForbiddenError, InactiveError, NotFoundError: what a call would be told that came in now.
"""

from __future__ import annotations

from collections.abc import Collection

from spokes.errors import ForbiddenError, InactiveError, NotFoundError, NotSignedInError
from spokes.ids import ZERO_UID
from spokes.store import Principal, PrincipalKind, rights
from spokes.store.base import View
from spokes.store.principal import Check

NOT_SIGNED_IN = "not signed in, or the session has ended"


def standing(principal: Principal) -> tuple[Check, ...]:
    """What must hold for the principal to go on having the rights that it was found to have."""
    if not principal.checked:
        return ()
    match principal.kind:
        case PrincipalKind.PERSON:
            return (person_stands(principal.uid, principal.role, principal.login_uid),)
        case PrincipalKind.KEY:
            return (key_stands(
                principal.uid, principal.scopes, principal.user_uid, principal.role, principal.login_uid
            ),)
        case PrincipalKind.CLIENT:
            return (client_stands(principal.uid),)
    return ()


def person_stands(uid: str, role: str, login_uid: str = "") -> Check:
    """The person may sign in and has this role, and the session, if one is named, lives."""
    def check(tx: View) -> None:
        _check_login(tx, login_uid)
        _check_person(tx, uid, role)

    return check


def key_stands(uid: str, scopes: Collection[str], user_uid: str, role: str, login_uid: str = "") -> Check:
    """The API key is good for these scopes, and its user, if it has one, may sign in and has this role."""
    def check(tx: View) -> None:
        _check_login(tx, login_uid)
        found = rights.find_key_scopes(tx, uid)
        if not found or not set(scopes) <= found:
            raise NotSignedInError(NOT_SIGNED_IN)
        if user_uid != ZERO_UID:
            _check_person(tx, user_uid, role)

    return check


def secrets_stand(uid: str, password_hash: str, totp_secret: str, refusal: str) -> Check:
    """The person has this password and second factor: what was held against them still counts."""
    def check(tx: View) -> None:
        person = rights.find_person(tx, uid)
        if person is None or not person.active or person[2:] != (password_hash, totp_secret):
            raise NotSignedInError(refusal)

    return check


def client_stands(tunnel_uid: str) -> Check:
    """The tunnel may log in: what its client asked for is still for it to ask."""
    def check(tx: View) -> None:
        tunnel = rights.find_tunnel(tx, tunnel_uid)
        if tunnel is None:
            raise NotFoundError("unknown tunnel")
        if tunnel.deleted:
            raise NotFoundError("this tunnel was deleted")
        if tunnel.shutdown:
            raise InactiveError("this tunnel was shut down by the operator", hint="ask the operator")
        if not rights.is_tunnel_key_active(tx, tunnel_uid):
            raise InactiveError("this tunnel's key is switched off", hint="ask the operator")
        owner = None if tunnel.user_uid == ZERO_UID else rights.find_person(tx, tunnel.user_uid)
        if owner is not None and not owner.active:
            raise InactiveError("this tunnel's owner was deactivated", hint="ask the operator")

    return check


def _check_login(tx: View, login_uid: str) -> None:
    if login_uid and not rights.is_login_alive(tx, login_uid):
        raise NotSignedInError(NOT_SIGNED_IN)


def _check_person(tx: View, uid: str, role: str) -> None:
    person = rights.find_person(tx, uid)
    if person is None or not person.active:
        raise NotSignedInError(NOT_SIGNED_IN)
    if person.role != role:
        raise ForbiddenError("the caller's role was changed meanwhile", hint="send the call again")
