"""Users: who owns tunnels, within which limits, and what people log in with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from spokes.errors import ForbiddenError, LimitError, TakenError, ValueRefusedError
from spokes.ids import ZERO_UID, canonical_host, is_uid, new_uid
from spokes.store.actors import current_acting
from spokes.store.base import TEXT_CHARS_MAX, checked_text, is_printable
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.limits import find_user
from spokes.store.logged import API_KEYS, USERS, WEBHOOKS, LoggedTable
from spokes.store.logins import end_logins
from spokes.store.models import ApiKeyModel, UserModel, WebhookModel
from spokes.store.models_admin import DomainProofModel
from spokes.store.rows import ADMIN_ROLE, ROLES, User, UserVersion
from spokes.store.statement import EachOf, Statement
from spokes.store.tunnels import TUNNELS_OF_USER, Tunnels, to_tunnel

DOMAIN_COUNT_MAX = 10_000                # of one user: bounds one row of the change log
MEGABYTES_MAX = 10**12                   # in bytes still a signed 64-bit number
COUNT_MAX = 2**31 - 1

_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_BOUNDS = {"bandwidth_mb": MEGABYTES_MAX, "max_ports": COUNT_MAX, "max_tunnels": COUNT_MAX}
_TEXTS = {"fullname", "email", "phone"}

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
_DELETE_PROOFS = Statement(lambda uid: DomainProofModel.delete().where(DomainProofModel.user_uid == uid))


class UserProperties(TypedDict, total=False):
    """What create_user and edit_user take; see User."""

    active: bool
    role: str
    fullname: str
    email: str
    phone: str
    bandwidth_mb: int
    check_domains: bool
    check_ports: bool
    max_ports: int
    max_tunnels: int


class Users:
    def __init__(self, db: Database, changes: ChangeLog, tunnels: Tunnels) -> None:
        self._db = db
        self._changes = changes
        self._tunnels = tunnels

    def create(self, *, uid: str | None = None, **properties: Unpack[UserProperties]) -> User:
        """A new user. TakenError if the id or the e-mail address is another's."""
        checked = _checked(properties)
        if uid is not None and (not is_uid(uid) or uid == ZERO_UID):
            raise ValueRefusedError("an id is 32 lower-case hex digits, and a user's is not zero")
        with self._changes.transaction() as tx:
            if uid is not None and tx.rows(USERS.find(uid)):
                raise TakenError("a user with this id exists")
            user = User(uid=uid or new_uid(), created=tx.now, modified=tx.now, **checked)
            return tx.insert(user, email_key=self._free_email_key(tx, user), totp_step=0)

    def edit(self, uid: str, **changes: Unpack[UserProperties]) -> User:
        """Change what is named. Deactivation ends the user's logins and refuses those of their tunnels."""
        checked = _checked(changes)
        if uid == ZERO_UID:
            raise ValueRefusedError("the system is no user")
        with self._changes.transaction() as tx:
            user = find_user(tx.read, uid)
            changed = replace(user, **checked)
            if changed == user:
                return user
            _check_takes_away(user, changed)
            if user.active and not changed.active:
                end_logins(tx, user_uid=uid)
            return tx.update(replace(changed, modified=tx.now), email_key=self._free_email_key(tx, changed))

    def delete(self, uid: str) -> list[str]:
        """With everything that is theirs: logins, API keys, webhooks, tunnels; the tunnels' ids."""
        if uid == ZERO_UID:
            raise ValueRefusedError("the system is no user")
        with self._changes.transaction() as tx:
            user = find_user(tx.read, uid)
            _check_takes_away(user, None)
            tunnels = [to_tunnel(row) for row in tx.rows(TUNNELS_OF_USER(uid))]
            for tunnel in tunnels:
                self._tunnels.delete_within(tx, tunnel)
            end_logins(tx, user_uid=uid)
            for table, of_user in _PARTS:
                for row in tx.rows(of_user(uid)):
                    tx.delete(table.read(row))
            tx.unlogged(_DELETE_PROOFS(uid))
            tx.delete(user)
            return [tunnel.uid for tunnel in tunnels]

    def get(self, uid: str) -> User:
        return find_user(self._db.read, uid)

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
        if not is_email(email):
            return None
        return next(map(USERS.read, self._db.rows(_BY_EMAIL(email.casefold()))), None)

    def set_password(self, uid: str, password_hash: str, *, but_login: str | None = None) -> User:
        """Empty: no password, so no log-in with one. The person's sessions end, `but_login` excepted."""
        return self._set_secret(uid, but_login, password_hash=password_hash)

    def set_totp(self, uid: str, secret: str, *, but_login: str | None = None) -> User:
        """Empty: no second factor. The person's sessions end, `but_login` excepted."""
        return self._set_secret(uid, but_login, totp_secret=secret)

    def use_totp_step(self, uid: str, step: int) -> bool:
        """Note that the code of time step `step` was used; False if that one or a later one was before."""
        query = UserModel.update(totp_step=step).where(UserModel.uid == uid, UserModel.totp_step < step)
        return is_uid(uid) and bool(self._db.alone(lambda: query.execute(self._db.peewee)))

    def allow_domains(self, uid: str, domains: Iterable[str]) -> User:
        """Add to the domains that the user may serve; whether they are checked is `check_domains`."""
        added = [canonical_domain(domain) for domain in domains]
        return self._set_domains(uid, lambda present: present | set(added))

    def remove_domains(self, uid: str, domains: Iterable[str]) -> User:
        """Domains that are not there are passed over. Services that stand go on."""
        removed = [canonical_domain(domain) for domain in domains]
        return self._set_domains(uid, lambda present: present - set(removed))

    def reset_domains(self, uid: str) -> User:
        return self._set_domains(uid, lambda _: set())

    # --- below -----------------------------------------------------------------------------------------------------

    def _set_secret(self, uid: str, but_login: str | None, **changes: Any) -> User:
        with self._changes.transaction() as tx:
            user = find_user(tx.read, uid)
            changed = replace(user, **changes)
            end_logins(tx, user_uid=uid, but=but_login)
            return user if changed == user else tx.update(replace(changed, modified=tx.now))

    def _set_domains(self, uid: str, change: Callable[[set[str]], set[str]]) -> User:
        with self._changes.transaction() as tx:
            user = find_user(tx.read, uid)
            domains = tuple(sorted(change(set(user.domains))))
            if domains == user.domains:
                return user
            if len(domains) > DOMAIN_COUNT_MAX:
                raise LimitError(f"a user may have {DOMAIN_COUNT_MAX} allowed domains", hint="allow `*.name` instead")
            return tx.update(replace(user, domains=domains, modified=tx.now))

    @staticmethod
    def _free_email_key(tx: Writer, user: User) -> str:
        key = user.email.casefold()
        if key and tx.rows(_SAME_EMAIL(key, user.uid)):
            raise TakenError("another user has this e-mail address")
        return key


def _check_takes_away(user: User, changed: User | None) -> None:
    """Refuses to take a user's own rights away on their behalf; so only a key of the system or the shell can put the
    last administrator out. `changed` None: the user goes.

    The one place for this, whatever call it comes by.
    """
    is_demoted = user.role == ADMIN_ROLE and (changed is None or changed.role != ADMIN_ROLE)
    is_put_out = changed is None or (user.active and not changed.active)
    if current_acting().user_uid == user.uid and (is_demoted or is_put_out):
        raise ForbiddenError("nobody takes their own rights away; another administrator may")


def is_email(text: str) -> bool:
    """Whether it has the form of an address, in which something may be stored or told."""
    return len(text) <= TEXT_CHARS_MAX and _EMAIL.fullmatch(text) is not None and is_printable(text)


def canonical_domain(text: str) -> str:
    """A host name in its one form, or `*.` and one: every name below it."""
    return "*." + canonical_host(text[2:]) if text.startswith("*.") else canonical_host(text)


def _checked(properties: UserProperties) -> dict[str, Any]:
    checked: dict[str, Any] = dict(properties)
    if unknown := checked.keys() - UserProperties.__annotations__.keys():
        raise TypeError(f"a user has no {', '.join(sorted(unknown))} to set")
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
