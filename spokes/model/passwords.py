"""Passwords and second factors of people: operations that set them.

The caller hashes a password before it makes an operation, and bounds how many hashes are computed at once: a password
never leaves the node at which it was typed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec

from spokes.errors import ForbiddenError, ValueRefusedError
from spokes.model.authority import secrets_stand
from spokes.model.operation import Operation, Work
from spokes.password_hash import is_own_hash
from spokes.store import User
from spokes.store.logins import end_logins
from spokes.store.rows import ADMIN_ROLE

_TOTP_SECRET = re.compile("[A-Z2-7]{32}")

WRONG_PASSWORD = "the present password is wrong"  # noqa: S105  words


class Held(msgspec.Struct, frozen=True):
    """The secrets that the caller's own password and code were compared with; they must be the same when the change is
    made."""

    password_hash: str
    totp_secret: str


class SetPassword(Operation[User], frozen=True, tag="user.set_password"):
    """Sets a password; an empty hash forbids logging in with one. The person's sessions end, except `but_login`."""

    uid: str
    password_hash: str
    but_login: str | None = None
    held: Held | None = None

    def apply(self, work: Work) -> User:
        if self.password_hash and not is_own_hash(self.password_hash):
            raise ValueRefusedError("a password is stored as its hash alone")
        return _set_secret(work, self.uid, self.but_login, self.held, password_hash=self.password_hash)


class SetTotp(Operation[User], frozen=True, tag="user.set_totp"):
    """Sets the second factor; an empty secret turns it off. The person's sessions end, except `but_login`."""

    uid: str
    secret: str
    but_login: str | None = None
    held: Held | None = None

    def apply(self, work: Work) -> User:
        if self.secret:
            check_totp_secret(self.secret)
        return _set_secret(work, self.uid, self.but_login, self.held, totp_secret=self.secret)


def check_totp_secret(secret: str) -> None:
    """Refuses what is no base32 secret of the length that this server makes."""
    if _TOTP_SECRET.fullmatch(secret) is None:
        raise ValueRefusedError("not a secret that this server made")


def _set_secret(work: Work, uid: str, but_login: str | None, held: Held | None, **changes: Any) -> User:
    users = work.store.users
    with work.transaction() as tx:
        if held is not None:
            secrets_stand(uid, held.password_hash, held.totp_secret, WRONG_PASSWORD)(tx)
        user = users.get(uid, tx)
        if work.principal.uid != uid:
            _check_may_let_in(work, user)
        elif held is None:
            raise ForbiddenError("one's own password and second factor are changed with the present ones")
        changed = replace(user, **changes)
        end_logins(tx, user_uid=uid, but=but_login)
        return user if changed == user else tx.update(replace(changed, modified=tx.now))


def _check_may_let_in(work: Work, user: User) -> None:
    """Refuses to set the secrets of somebody else unless the caller is an administrator, and of an administrator unless
    the caller may make administrators."""
    work.check_sees(user.uid, "user")
    work.check_admin()
    if user.role == ADMIN_ROLE:
        work.check_may_make_admins()
