"""What rights rest on, looked up inside each transaction of who has them: written once as statements, for speed."""

from __future__ import annotations

import json
from typing import NamedTuple

from spokes.ids import is_uid
from spokes.store.base import View
from spokes.store.models import ApiKeyModel, AuthTokenModel, TunnelModel, UserModel
from spokes.store.models_admin import LoginModel
from spokes.store.statement import Statement

_PERSON = Statement(
    lambda uid: UserModel.select(
        UserModel.active, UserModel.role, UserModel.password_hash, UserModel.totp_secret
    ).where(UserModel.uid == uid)
)
_KEY = Statement(
    lambda uid: ApiKeyModel.select(ApiKeyModel.active, ApiKeyModel.scopes, ApiKeyModel.user_uid)
    .where(ApiKeyModel.uid == uid)
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


class PersonRights(NamedTuple):
    active: bool
    role: str
    password_hash: str
    totp_secret: str


class KeyRights(NamedTuple):
    scopes: frozenset[str]
    user_uid: str


class TunnelRights(NamedTuple):
    user_uid: str
    shutdown: bool
    deleted: bool


def find_person(view: View, uid: str) -> PersonRights | None:
    for active, role, password_hash, totp_secret in view.rows(_PERSON(uid)):
        return PersonRights(bool(active), role, password_hash, totp_secret)
    return None


def find_key(view: View, uid: str) -> KeyRights | None:
    """Of an API key that is switched on."""
    for active, scopes, user_uid in view.rows(_KEY(uid)):
        return KeyRights(frozenset(json.loads(scopes)), user_uid) if active else None
    return None


def is_login_alive(view: View, uid: str) -> bool:
    return bool(view.rows(_LOGIN(uid, view.now)))


def find_tunnel(view: View, uid: str) -> TunnelRights | None:
    for user_uid, shutdown, deleted_at in view.rows(_TUNNEL(uid)) if is_uid(uid) else ():
        return TunnelRights(user_uid, bool(shutdown), deleted_at is not None)
    return None


def is_tunnel_key_active(view: View, tunnel_uid: str) -> bool:
    return all(active for (active,) in view.rows(_TUNNEL_KEY(tunnel_uid)))
