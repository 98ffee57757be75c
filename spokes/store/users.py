"""Users: who owns tunnels, within which limits, and what people log in with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID, is_uid
from spokes.store.base import View, is_printable
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.logged import API_KEYS, USERS, WEBHOOKS, LoggedTable
from spokes.store.models import ApiKeyModel, UserModel, WebhookModel
from spokes.store.rows import User, UserVersion
from spokes.store.statement import EachOf, Statement

_ALL = USERS.where(order_by=(UserModel.created, UserModel.uid))
_BY_EMAIL = USERS.where(UserModel.email_key)
_VERSIONS = Statement(
    lambda: UserModel.select(UserModel.uid, UserModel.rev, UserModel.modified)
    .order_by(UserModel.created, UserModel.uid)
)
_THESE = Statement(lambda uids: UserModel.select(*USERS.columns).where(UserModel.uid.in_(EachOf(uids))))
_SAME_EMAIL = Statement(
    lambda key, but: UserModel.select(UserModel.uid).where(UserModel.email_key == key, UserModel.uid != but)
)
# What goes with a user, beside tunnels and logins.
_PARTS: tuple[tuple[LoggedTable[Any], Statement], ...] = (
    (API_KEYS, API_KEYS.where(ApiKeyModel.user_uid)),
    (WEBHOOKS, WEBHOOKS.where(WebhookModel.user_uid)),
)


class Users:
    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, uid: str, view: View | None = None) -> User:
        user = self.find(uid, view)
        if user is None:
            raise NotFoundError("unknown user")
        return user

    def find(self, uid: str, view: View | None = None) -> User | None:
        """None for the system too, which is no user."""
        if is_uid(uid) and uid != ZERO_UID:
            for row in (view or self._db).rows(USERS.find(uid)):
                return USERS.read(row)
        return None

    def select(self) -> list[User]:
        """All, oldest first."""
        return [USERS.read(row) for row in self._db.rows(_ALL())]

    def versions(self) -> list[tuple[str, UserVersion]]:
        """All, oldest first: the id, and what is another one whenever the row was written."""
        return [(uid, UserVersion(rev, modified)) for uid, rev, modified in self._db.rows(_VERSIONS())]

    def get_many(self, uids: Iterable[str]) -> list[User]:
        """Those of these ids that exist, in no order."""
        return [USERS.read(row) for row in self._db.rows(_THESE(json.dumps(list(filter(is_uid, uids)))))]

    def find_by_email(self, email: str) -> User | None:
        """Whatever the case of the letters; None if nobody has this address."""
        if not is_printable(email):
            return None                  # nothing that is stored holds such characters
        return next(map(USERS.read, self._db.rows(_BY_EMAIL(email.casefold()))), None)

    def use_totp_step(self, uid: str, step: int) -> bool:
        """Note that the code of time step `step` was used; False if that one or a later one was before."""
        query = UserModel.update(totp_step=step).where(UserModel.uid == uid, UserModel.totp_step < step)
        return is_uid(uid) and bool(self._db.alone(lambda: query.execute(self._db.peewee)))

    # --- inside a transaction --------------------------------------------------------------------------------------

    def insert(self, tx: Writer, user: User) -> User:
        return tx.insert(user, email_key=user.email.casefold(), totp_step=0)

    def update(self, tx: Writer, user: User) -> User:
        return tx.update(user, email_key=user.email.casefold())

    def is_email_of_another(self, tx: Writer, user: User) -> bool:
        """Whatever the case of the letters."""
        return bool(tx.rows(_SAME_EMAIL(user.email.casefold(), user.uid)))

    def delete_parts(self, tx: Writer, uid: str) -> None:
        """The user's API keys and webhooks."""
        for table, of_user in _PARTS:
            for row in tx.rows(of_user(uid)):
                tx.delete(table.read(row))
