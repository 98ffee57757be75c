"""Users: operations that create, edit and delete them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, TypeVar

from msgspec import UNSET, UnsetType

from spokes.errors import ForbiddenError, TakenError, ValueRefusedError
from spokes.ids import ZERO_UID, is_uid, new_uid
from spokes.model.operation import Operation, Work
from spokes.model.tunnels import delete_tunnel
from spokes.store import Principal, Store, User
from spokes.store.base import TEXT_CHARS_MAX, checked_text, is_printable
from spokes.store.changes import Writer
from spokes.store.logins import end_logins
from spokes.store.rows import ADMIN_ROLE, ROLES

MEGABYTES_MAX = 10**12                   # in bytes still a signed 64-bit number
COUNT_MAX = 2**31 - 1

R = TypeVar("R")

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_BOUNDS = {"bandwidth_mb": MEGABYTES_MAX, "max_ports": COUNT_MAX, "max_tunnels": COUNT_MAX}
_TEXTS = {"fullname", "email", "phone"}


class UserFields(Operation[R], frozen=True, kw_only=True):
    """The members of a user that may be set, as User has them; UNSET leaves one as it is."""

    admin_only = True

    active: bool | UnsetType = UNSET
    role: str | UnsetType = UNSET
    fullname: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    phone: str | UnsetType = UNSET
    bandwidth_mb: int | UnsetType = UNSET
    check_domains: bool | UnsetType = UNSET
    check_ports: bool | UnsetType = UNSET
    max_ports: int | UnsetType = UNSET
    max_tunnels: int | UnsetType = UNSET


class CreateUser(UserFields[User], frozen=True, kw_only=True, tag="user.create"):
    """Creates a user; TakenError if the id or the e-mail address is another's."""

    uid: str | None = None

    def apply(self, work: Work) -> User:
        checked, uid = _checked(work, self), self.uid
        if uid is not None and (not is_uid(uid) or uid == ZERO_UID):
            raise ValueRefusedError("an id is 32 lower-case hex digits, and a user's is not zero")
        with work.transaction() as tx:
            if uid is not None and work.store.users.find(uid, tx) is not None:
                raise TakenError("a user with this id exists")
            user = User(uid=uid or new_uid(), created=tx.now, modified=tx.now, **checked)
            _check_email(work.store, tx, user)
            return work.store.users.insert(tx, user)


class EditUser(UserFields[User], frozen=True, tag="user.edit"):
    """Changes the members named. Deactivation ends the user's logins and refuses those of their tunnels."""

    uid: str

    def apply(self, work: Work) -> User:
        checked, users = _checked(work, self), work.store.users
        if self.uid == ZERO_UID:
            raise ValueRefusedError("the system is no user")
        with work.transaction() as tx:
            user = users.get(self.uid, tx)
            changed = replace(user, **checked)
            if changed == user:
                return user
            _check_takes_away(work.principal, user, changed)
            if user.active and not changed.active:
                end_logins(tx, user_uid=self.uid)
            _check_email(work.store, tx, changed)
            return users.update(tx, replace(changed, modified=tx.now))


class DeleteUser(Operation[list[str]], frozen=True, tag="user.delete"):
    """Deletes a user with their logins, API keys, webhooks and tunnels, and returns the tunnels' ids."""

    admin_only = True

    uid: str

    def apply(self, work: Work) -> list[str]:
        uid, store = self.uid, work.store
        if uid == ZERO_UID:
            raise ValueRefusedError("the system is no user")
        with work.transaction() as tx:
            user = store.users.get(uid, tx)
            _check_takes_away(work.principal, user, None)
            tunnels = store.tunnels.of_user(uid, tx)
            for tunnel in tunnels:
                delete_tunnel(store, tx, tunnel)
            end_logins(tx, user_uid=uid)
            store.users.delete_parts(tx, uid)
            store.domain_verifications.delete_of_user(tx, uid)
            tx.delete(user)
            return [tunnel.uid for tunnel in tunnels]


def _check_takes_away(principal: Principal, user: User, changed: User | None) -> None:
    """Refuses to take a user's own rights away on their behalf, so that only a key of the system or the shell can
    deactivate or delete the last administrator. `changed` None means that the user is deleted.
    """
    is_demoted = user.role == ADMIN_ROLE and (changed is None or changed.role != ADMIN_ROLE)
    is_put_out = changed is None or (user.active and not changed.active)
    if principal.user_uid == user.uid and (is_demoted or is_put_out):
        raise ForbiddenError("nobody takes their own rights away; another administrator may")


def _check_email(store: Store, tx: Writer, user: User) -> None:
    if user.email and store.users.is_email_of_another(tx, user):
        raise TakenError("another user has this e-mail address")


def is_email(text: str) -> bool:
    """Returns whether the text has the form of an e-mail address that may be stored."""
    return len(text) <= TEXT_CHARS_MAX and _EMAIL.fullmatch(text) is not None and is_printable(text)


def _checked(work: Work, fields: UserFields[Any]) -> dict[str, Any]:
    """Returns the members named, checked and as they are stored."""
    checked: dict[str, Any] = {
        name: value for name in UserFields.__struct_fields__ if (value := getattr(fields, name)) is not UNSET
    }
    if checked.get("role") == ADMIN_ROLE:
        work.check_may_make_admins()
    for name in _TEXTS & checked.keys():
        checked[name] = checked_text(checked[name], name)
    for name in _BOUNDS.keys() & checked.keys():
        if not 0 <= checked[name] <= _BOUNDS[name]:
            raise ValueRefusedError(f"{name} is from 0 to {_BOUNDS[name]}")
    if checked.get("role", ROLES[0]) not in ROLES:
        raise ValueRefusedError(f"role is one of {', '.join(ROLES)}")
    if checked.get("email") and _EMAIL.fullmatch(checked["email"]) is None:
        raise ValueRefusedError("not an e-mail address", hint="use a form such as mara@example.org")
    return checked
