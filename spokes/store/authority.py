"""What must still hold when a change is made: whoever asked for it may ask, and its object is theirs.

Rights are looked at when a call comes in, and what they rest on may be gone when its work begins: a body takes its
time, a name server too, and others write meanwhile. So each of these is a check that every transaction of the call runs
first (actors.py).
Fails: NotSignedInError, ForbiddenError, InactiveError, NotFoundError: what a call would be told that came in now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from spokes.errors import ForbiddenError, InactiveError, NotFoundError, NotSignedInError
from spokes.ids import ZERO_UID, is_uid
from spokes.store.actors import Check
from spokes.store.base import View
from spokes.store.models import ApiKeyModel, AuthTokenModel, TunnelModel, UserModel
from spokes.store.models_admin import LoginModel
from spokes.store.rows import User
from spokes.store.statement import Statement
from spokes.store.webhooks import find_webhook

NOT_SIGNED_IN = "not signed in, or the session has ended"

_PERSON = Statement(lambda uid: UserModel.select(UserModel.active, UserModel.role).where(UserModel.uid == uid))
_SECRETS = Statement(
    lambda uid: UserModel.select(UserModel.active, UserModel.password_hash, UserModel.totp_secret)
    .where(UserModel.uid == uid)
)
_KEY = Statement(
    lambda uid: ApiKeyModel.select(ApiKeyModel.active, ApiKeyModel.scopes).where(ApiKeyModel.uid == uid)
)
_LOGIN = Statement(
    lambda uid, now: LoginModel.select(LoginModel.uid).where(LoginModel.uid == uid, LoginModel.expires > now)
)
_TUNNEL = Statement(
    lambda uid: TunnelModel.select(TunnelModel.user_uid, TunnelModel.shutdown, TunnelModel.deleted_at)
    .where(TunnelModel.uid == uid)
)
_TUNNEL_KEY = Statement(
    lambda uid: AuthTokenModel.select(AuthTokenModel.active).where(AuthTokenModel.tunnel_uid == uid)
)
_OWNER_OF_KEY = Statement(lambda uid: ApiKeyModel.select(ApiKeyModel.user_uid).where(ApiKeyModel.uid == uid))

OwnerOf = Callable[[View, str], str]   # NotFoundError if there is no such object (any more)


# --- who acts ------------------------------------------------------------------------------------------------------


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
        found = tx.rows(_KEY(uid))
        if not found or not found[0][0] or not set(scopes) <= set(json.loads(found[0][1])):
            raise NotSignedInError(NOT_SIGNED_IN)
        if user_uid != ZERO_UID:
            _check_person(tx, user_uid, role)

    return check


def secrets_stand(user: User, refusal: str) -> Check:
    """The person has the password and second factor of `user`: what was held against them still counts."""
    def check(tx: View) -> None:
        for active, password_hash, totp_secret in tx.rows(_SECRETS(user.uid)):
            if active and (password_hash, totp_secret) == (user.password_hash, user.totp_secret):
                return
        raise NotSignedInError(refusal)

    return check


def client_stands(tunnel_uid: str) -> Check:
    """The tunnel may log in: what its client asked for is still for it to ask."""
    def check(tx: View) -> None:
        user_uid, shutdown = _tunnel(tx, tunnel_uid)
        if shutdown:
            raise InactiveError("this tunnel was shut down by the operator", hint="ask the operator")
        if not all(active for (active,) in tx.rows(_TUNNEL_KEY(tunnel_uid))):
            raise InactiveError("this tunnel's key is switched off", hint="ask the operator")
        if user_uid != ZERO_UID and not all(active for active, _ in tx.rows(_PERSON(user_uid))):
            raise InactiveError("this tunnel's owner was deactivated", hint="ask the operator")

    return check


# --- whose an object is --------------------------------------------------------------------------------------------


def owner_of_tunnel(tx: View, uid: str) -> str:
    """A deleted one is gone."""
    return _tunnel(tx, uid)[0]


def is_shut_down(tx: View, tunnel_uid: str) -> bool:
    """By the operator: the tunnel itself, or its key."""
    return _tunnel(tx, tunnel_uid)[1] or not all(active for (active,) in tx.rows(_TUNNEL_KEY(tunnel_uid)))


def owner_of_api_key(tx: View, uid: str) -> str:
    for (user_uid,) in tx.rows(_OWNER_OF_KEY(uid)) if is_uid(uid) else ():
        return str(user_uid)
    raise NotFoundError("unknown API key")


def owner_of_webhook(tx: View, uid: str) -> str:
    return find_webhook(tx.read, uid).user_uid


# --- below ---------------------------------------------------------------------------------------------------------


def _check_login(tx: View, login_uid: str) -> None:
    if login_uid and not tx.rows(_LOGIN(login_uid, tx.now)):
        raise NotSignedInError(NOT_SIGNED_IN)


def _check_person(tx: View, uid: str, role: str) -> None:
    for active, found in tx.rows(_PERSON(uid)):
        if active and found != role:
            raise ForbiddenError("the caller's role was changed meanwhile", hint="send the call again")
        if active:
            return
    raise NotSignedInError(NOT_SIGNED_IN)


def _tunnel(tx: View, uid: str) -> tuple[str, bool]:
    for user_uid, shutdown, deleted_at in tx.rows(_TUNNEL(uid)) if is_uid(uid) else ():
        if deleted_at is not None:
            raise NotFoundError("this tunnel was deleted")
        return user_uid, bool(shutdown)
    raise NotFoundError("unknown tunnel")

