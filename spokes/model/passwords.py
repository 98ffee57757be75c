"""What a person logs in with: the password, as its hash, and the second factor.

Hashes are made before an operation is put together, by whoever was asked, who bounds how many are made at once: a
password never leaves the node it was typed at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from spokes.errors import ForbiddenError
from spokes.model.authority import secrets_stand
from spokes.model.operation import Operation, Work
from spokes.store import User
from spokes.store.logins import end_logins
from spokes.store.rows import ADMIN_ROLE

WRONG_PASSWORD = "the present password is wrong"  # noqa: S105  words


class Held(msgspec.Struct, frozen=True):
    """What the caller's own password and code were held against; that still counts when the change is made."""

    password_hash: str
    totp_secret: str


class SetPassword(Operation[User], frozen=True, tag="user.set_password"):
    """Empty: no password, so no log-in with one. The person's sessions end, `but_login` excepted."""

    uid: str
    password_hash: str
    but_login: str | None = None
    held: Held | None = None

    def apply(self, work: Work) -> User:
        return _set_secret(work, self.uid, self.but_login, self.held, password_hash=self.password_hash)


class SetTotp(Operation[User], frozen=True, tag="user.set_totp"):
    """Empty: no second factor. The person's sessions end, `but_login` excepted."""

    uid: str
    secret: str
    but_login: str | None = None
    held: Held | None = None

    def apply(self, work: Work) -> User:
        return _set_secret(work, self.uid, self.but_login, self.held, totp_secret=self.secret)


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
    """The other person was not made an administrator meanwhile, or the caller may make some."""
    work.check_sees(user.uid, "user")
    work.check_admin()
    if user.role == ADMIN_ROLE:
        work.check_may_make_admins()
