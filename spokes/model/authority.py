"""Checks that a principal still has its rights when its change is made.

Rights are read when a call comes in, and may be gone when its work begins: reading a body or asking a name server takes
time. So each function here makes a check that every transaction of the call runs first (store/principal.py).
Fails: NotSignedInError, ForbiddenError, InactiveError, NotFoundError, as a call would that came in now.
"""

from __future__ import annotations

from collections.abc import Collection

from spokes.errors import ForbiddenError, InactiveError, NotFoundError, NotSignedInError
from spokes.ids import ZERO_UID
from spokes.store import Principal, PrincipalKind, rights
from spokes.store.base import View
from spokes.store.principal import Check
from spokes.store.rows import ADMIN_ROLE

NOT_SIGNED_IN = "not signed in, or the session has ended"


def standing(principal: Principal) -> tuple[Check, ...]:
    """Returns the checks that the principal still has the rights that it was found to have."""
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
    """Checks that the person may sign in and has this role, and that the session, if one is named, is alive."""
    def check(tx: View) -> None:
        _check_login(tx, login_uid)
        _check_person(tx, uid, role)

    return check


def key_stands(uid: str, scopes: Collection[str], user_uid: str, role: str, login_uid: str = "") -> Check:
    """Checks that the API key is its user's and has these scopes, and that the user may sign in and has this role."""
    def check(tx: View) -> None:
        _check_login(tx, login_uid)
        key = rights.find_key(tx, uid)
        if key is None or not key.scopes.issuperset(scopes) or key.user_uid != user_uid:
            raise NotSignedInError(NOT_SIGNED_IN)
        if user_uid != ZERO_UID:
            _check_person(tx, user_uid, role)
        elif role != ADMIN_ROLE:
            raise ForbiddenError("a key of the system has the role of an administrator")

    return check


def key_is_active(uid: str, scopes: Collection[str]) -> Check:
    """Checks that the API key is still switched on and has these scopes."""
    def check(tx: View) -> None:
        key = rights.find_key(tx, uid)
        if key is None or not key.scopes.issuperset(scopes):
            raise NotSignedInError(NOT_SIGNED_IN)

    return check


def secrets_stand(uid: str, password_hash: str, totp_secret: str, refusal: str) -> Check:
    """Checks that the person still has the password and second factor that the caller's were compared with."""
    def check(tx: View) -> None:
        person = rights.find_person(tx, uid)
        if person is None or not person.active or person[2:] != (password_hash, totp_secret):
            raise NotSignedInError(refusal)

    return check


def client_stands(tunnel_uid: str) -> Check:
    """Checks that the tunnel may log in."""
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
