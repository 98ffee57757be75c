"""Authentication of callers: by a cookie session, or by an API key in the Authorization header.

Bound: one write a minute and key for its last use; failures are noted by the store, in a bounded table.
Fails: NotSignedInError, with one text whatever was wrong; LoginDelayedError after failed tries from one address. A
right key is never delayed: an attacker behind the same address must not shut anybody out. Passwords are delayed by
account and address, apart from keys, and from a device on which their person has logged in apart from both. A login
clears nothing of what failed before it, or whoever has a key would guess at other people's passwords without delay.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import falcon

from spokes import clock
from spokes.admin.context import PERSON_SCOPES, Admin, Caller, CallerKind, Role, Scope
from spokes.admin.dispatch import caller_without_session
from spokes.errors import InactiveError, LoginDelayedError, NotFoundError, NotSignedInError, StoreError, TokenError
from spokes.ids import ZERO_UID
from spokes.store import ApiKey, Principal, User
from spokes.store.logins import source_key

log = logging.getLogger(__name__)

LOGIN_LIFETIME_S = 86_400
WRONG_KEY = "wrong key"
KEY_USE_INTERVAL_S = 60.0
KEY_USE_COUNT_MAX = 1_000

_BEARER = "bearer "


class Authenticator:
    """One for a process: it remembers which keys were used lately, so that not every call writes."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}

    def __call__(self, admin: Admin, req: falcon.Request) -> Caller:
        """The caller; of the kind NOBODY when the request brings neither a live session nor a key."""
        nobody = caller_without_session(req)
        header = req.get_header("Authorization") or ""
        if header[: len(_BEARER)].lower() == _BEARER:
            key = check_key(admin, header[len(_BEARER) :].strip(), nobody)
            return self._key_caller(admin, nobody, key)
        login = admin.store.logins.find(nobody.cookie) if nobody.cookie else None
        if login is None:
            return nobody
        try:
            if login.api_key_uid != ZERO_UID:
                return self._key_caller(admin, nobody, admin.store.api_keys.get(login.api_key_uid), login.uid)
            return _person_caller(nobody, admin.store.users.get(login.user_uid), login.uid)
        except NotFoundError:            # deleted between the two look-ups
            return nobody

    def _key_caller(self, admin: Admin, nobody: Caller, key: ApiKey, login_uid: str = "") -> Caller:
        self._note_use(admin, key.uid, nobody.address)
        role = Role.ADMIN if key.user_uid == ZERO_UID else Role(admin.store.users.get(key.user_uid).role)
        return Caller(
            kind=CallerKind.KEY, uid=key.uid, name=key.description, role=role,
            scopes=frozenset(Scope(scope) for scope in key.scopes), user_uid=key.user_uid, login_uid=login_uid,
            cookie=nobody.cookie, address=nobody.address, agent=nobody.agent, secure=nobody.secure,
        )

    def _note_use(self, admin: Admin, key_uid: str, address: str) -> None:
        now = clock.monotonic_s()
        if now - self._used.get(key_uid, -KEY_USE_INTERVAL_S) < KEY_USE_INTERVAL_S:
            return
        if len(self._used) >= KEY_USE_COUNT_MAX:
            self._used.clear()
        self._used[key_uid] = now
        try:
            admin.store.api_keys.touch({key_uid: (clock.wall_s(), address)})
        except StoreError as error:      # a full disk must not refuse those who only read
            log.warning("use of a key not noted", extra={"key_uid": key_uid, "error": str(error)})


def check_key(admin: Admin, value: str, caller: Caller) -> ApiKey:
    """Returns the active API key with this value; unknown and inactive ones get the same answer."""
    try:
        return admin.store.api_keys.find(value)
    except (TokenError, InactiveError):
        source = source_key(caller.address)
        _raise_if_early(admin.key_failures.wait_s(source))
        admin.key_failures.note(source)
    _refuse(admin, caller, WRONG_KEY, {})


def check_not_delayed(admin: Admin, source: str) -> None:
    """Before something is held against a password, which can be guessed. `source`: an account from an address, or from
    a device on which its person has logged in.
    """
    _raise_if_early(admin.store.logins.wait_s(source))


def refuse_login(
    admin: Admin, caller: Caller, text: str, *, source: str, detail: dict[str, Any] | None = None
) -> NoReturn:
    """A failed login. Tries within the delay leave nothing behind, so a flood of them writes nothing."""
    check_not_delayed(admin, source)
    admin.store.logins.note_failure(source)
    admin.password_failures.note(source_key(caller.address))
    _refuse(admin, caller, text, detail or {})


def _raise_if_early(wait_s: float) -> None:
    if wait_s > 0:
        raise LoginDelayedError("too many failed logins from this address; try again later", retry_after_s=wait_s)


def _refuse(admin: Admin, caller: Caller, text: str, detail: dict[str, Any]) -> NoReturn:
    with admin.store.audit.acting(caller.principal()):
        admin.store.audit.note("login.refused", detail={"agent": caller.agent, **detail})
    raise NotSignedInError(text)


def note_login(admin: Admin, principal: Principal, detail: dict[str, Any]) -> None:
    with admin.store.audit.acting(principal):
        admin.store.audit.note("login", detail=detail)


def _person_caller(nobody: Caller, user: User, login_uid: str) -> Caller:
    role = Role(user.role)
    return Caller(
        kind=CallerKind.PERSON, uid=user.uid, name=user.email, role=role,
        scopes=PERSON_SCOPES, user_uid=user.uid, login_uid=login_uid,
        cookie=nobody.cookie, address=nobody.address, agent=nobody.agent, secure=nobody.secure,
    )
