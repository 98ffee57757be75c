"""People: their logins by e-mail, password and second factor, and what administrators set of them.

Everything wrong with a login gets one answer after one time. A password is changed only with the present one, a second
factor with the present password and code, and the person's other sessions end with it.
"""

from __future__ import annotations

from spokes import clock
from spokes.admin.auth import LOGIN_LIFETIME_S, check_not_delayed, note_login, refuse_login
from spokes.admin.context import Admin, Caller, CallerKind, Role
from spokes.admin.hash_slots import Rank
from spokes.admin.passwords import (
    hash_password,
    new_totp_secret,
    provisioning_uri,
    totp_step,
    verify_login,
    verify_password,
)
from spokes.admin.resources.users import check_person, properties_of
from spokes.admin.routing import Reply, SessionCookie
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.people import (
    ConfirmTotpRequest,
    LoginRequest,
    MeAnswer,
    NewTotpAnswer,
    NewTotpRequest,
    PasswordRequest,
    PeopleAnswer,
    Person,
    PersonAnswer,
    PersonRequest,
    RemoveTotpRequest,
    person_object,
)
from spokes.errors import ForbiddenError, ValueRefusedError
from spokes.ids import ZERO_UID, new_uid
from spokes.model.authority import secrets_stand
from spokes.model.passwords import WRONG_PASSWORD, Held, SetPassword, SetTotp, check_totp_secret
from spokes.model.users import CreateUser, EditUser, is_email
from spokes.store import Principal, PrincipalKind
from spokes.store import User as StoredUser
from spokes.store.logins import DEVICE_LIFETIME_S, account_source, source_key

WRONG_LOGIN = "e-mail address, password or code is wrong"


def login(admin: Admin, caller: Caller, body: LoginRequest) -> Reply:
    """E-mail address, password and the code of the second factor for a cookie."""
    user = admin.store.users.find_by_email(body.email)
    device_uid = admin.store.logins.known_device(user, caller.device) if user is not None else None
    source = f"device {device_uid}" if device_uid is not None else account_source(body.email, caller.address)
    check_not_delayed(admin, source)
    right = verify_login(
        user.password_hash if user else "", body.password, source=source_key(caller.address),
        rank=_rank(admin, caller, user, device_uid),
    )
    check_not_delayed(admin, source)     # others that were tried meanwhile count: many at once are no way around it
    if user is None or not right or not user.active or not _code_is_right(admin, user, body.code, device_uid):
        # What is no address may be a password in the wrong field.
        detail = {"email": body.email if is_email(body.email) else "…"}
        refuse_login(admin, caller, WRONG_LOGIN, source=source, detail=detail)
    with admin.store.audit.checking(secrets_stand(user.uid, user.password_hash, user.totp_secret, WRONG_LOGIN)):
        _, cookie = admin.store.logins.create(
            user_uid=user.uid, address=caller.address, agent=caller.agent, lifetime_s=LOGIN_LIFETIME_S
        )
    principal = Principal(kind=PrincipalKind.PERSON, uid=user.uid, name=user.email, address=caller.address)
    note_login(admin, principal, {"agent": caller.agent})
    return Reply(
        answer=Answer(message="signed in"), session=SessionCookie(value=cookie, max_age_s=LOGIN_LIFETIME_S),
        device=SessionCookie(
            value=admin.store.logins.device_mark(user, device_uid or new_uid()), max_age_s=DEVICE_LIFETIME_S
        ),
    )


def me(admin: Admin, caller: Caller, body: None) -> MeAnswer:
    """Who the caller is, and what they may do."""
    is_person = caller.kind is CallerKind.PERSON
    return MeAnswer(
        kind="person" if is_person else "key", id=caller.uid, name=caller.name, role=caller.role.value,
        scopes=sorted(caller.scopes), user_uid=caller.user_uid,
        has_totp=is_person and bool(admin.store.users.get(caller.uid).totp_secret),
    )


# --- by administrators ---------------------------------------------------------------------------------------------


def list_all(admin: Admin, caller: Caller, body: None) -> PeopleAnswer:
    """All users with their roles."""
    used = admin.users.months.read(admin.store)
    return PeopleAnswer(people=[person_object(user, used.get(user.uid, 0)) for user in admin.store.users.select()])


def get(admin: Admin, caller: Caller, body: None, *, user_uid: str) -> PersonAnswer:
    """One user with the role."""
    return PersonAnswer(person=_object(admin, admin.store.users.get(user_uid)))


def create(admin: Admin, caller: Caller, body: PersonRequest) -> PersonAnswer:
    """Make a user with a role and a limit of tunnels."""
    uid = body.user_uid if body.user_uid != ZERO_UID else None
    user = admin.perform(caller, CreateUser(uid=uid, role=body.role, **properties_of(body)))
    admin.control.changed()
    return PersonAnswer(person=_object(admin, user))


def edit(admin: Admin, caller: Caller, body: PersonRequest) -> PersonAnswer:
    """Change a user, also the role and the limit of tunnels."""
    check_person(body.user_uid)
    user = admin.perform(caller, EditUser(body.user_uid, role=body.role, **properties_of(body)))
    admin.control.changed()
    return PersonAnswer(person=_object(admin, user))


# --- password and second factor ------------------------------------------------------------------------------------


def set_password(admin: Admin, caller: Caller, body: PasswordRequest) -> Answer:
    """Set one's own password, or as an administrator somebody's."""
    user = _whose(admin, caller, body.user_uid, body.current)
    password_hash = hash_password(body.password, owner=caller.user_uid)
    admin.perform(
        caller, SetPassword(user.uid, password_hash, but_login=caller.login_uid, held=_held(caller, user))
    )
    return Answer(message="password set; other sessions have ended")


def new_totp(admin: Admin, caller: Caller, body: NewTotpRequest) -> NewTotpAnswer:
    """A secret for an authenticator; it counts once it is confirmed."""
    user = _person(admin, caller)
    secret = new_totp_secret()
    return NewTotpAnswer(secret=secret, uri=provisioning_uri(secret, user.email or user.uid, admin.domain))


def confirm_totp(admin: Admin, caller: Caller, body: ConfirmTotpRequest) -> Answer:
    """Turn the second factor on."""
    user = _person(admin, caller)
    _check_password(admin, caller, user, body.password)
    _check_code(admin, caller, user, body.current_code)
    secret = body.secret.strip().upper()
    check_totp_secret(secret)
    step = totp_step(secret, body.code)
    if step is None:
        raise ValueRefusedError("the code does not fit; check the authenticator's clock")
    admin.perform(caller, SetTotp(user.uid, secret, but_login=caller.login_uid, held=_held(caller, user)))
    admin.store.users.use_totp_step(user.uid, step)
    return Answer(message="second factor is on")


def remove_totp(admin: Admin, caller: Caller, body: RemoveTotpRequest) -> Answer:
    """Turn the second factor off: one's own, or as an administrator that of somebody who lost theirs."""
    user = _whose(admin, caller, body.user_uid, body.password)
    if user.uid == caller.uid:
        _check_code(admin, caller, user, body.code)
    admin.perform(caller, SetTotp(user.uid, "", but_login=caller.login_uid, held=_held(caller, user)))
    return Answer(message="second factor is off")


# --- below ---------------------------------------------------------------------------------------------------------


def _rank(admin: Admin, caller: Caller, user: StoredUser | None, device_uid: str | None) -> Rank:
    if device_uid is not None:
        return Rank.DEVICE
    if user is not None and admin.store.logins.has_from(caller.address, user.uid):
        return Rank.SESSION              # whoever else fails there, as behind one address of many people
    if admin.password_failures.has_failed(source_key(caller.address)):
        return Rank.FAILED
    return Rank.SESSION if admin.store.logins.has_from(caller.address) else Rank.UNKNOWN


def _code_is_right(admin: Admin, user: StoredUser, code: str, device_uid: str | None = None) -> bool:
    """Also when none is needed. Each code opens once.

    Wrong ones slow their person's login down, from wherever they come but from known devices: who got hold of the
    password might own a million addresses, and there are only a million codes. Meanwhile a right one counts as wrong,
    so that nobody learns more.
    """
    if not user.totp_secret:
        return True
    source = f"code of {user.uid}" if device_uid is None else f"code by {device_uid}"
    if not code or admin.store.logins.wait_s(source) > 0:
        return False
    step = totp_step(user.totp_secret, code)
    if step is not None and admin.store.users.use_totp_step(user.uid, step):
        return True
    admin.store.logins.note_failure(source)
    return False


def _person(admin: Admin, caller: Caller) -> StoredUser:
    if caller.kind is not CallerKind.PERSON:
        raise ForbiddenError("this is for people who are signed in, not for keys")
    return admin.store.users.get(caller.uid)


def _whose(admin: Admin, caller: Caller, user_uid: str, password: str) -> StoredUser:
    """The user that is meant: the caller, with their password, or with an administrator's right anybody else."""
    if user_uid in (ZERO_UID, caller.uid):
        user = _person(admin, caller)
        if user.password_hash:
            _check_password(admin, caller, user, password)
        return user
    caller.check_sees(user_uid, "user")
    caller.check_admin()
    user = admin.store.users.get(user_uid)
    _check_may_let_in(caller, user)
    return user


def _held(caller: Caller, user: StoredUser) -> Held | None:
    """Hashing takes its time: what was held against the person's own password still counts."""
    return Held(user.password_hash, user.totp_secret) if user.uid == caller.uid else None


def _check_may_let_in(caller: Caller, user: StoredUser) -> None:
    if user.role == Role.ADMIN:
        caller.check_may_make_admins()


def _check_code(admin: Admin, caller: Caller, user: StoredUser, code: str) -> None:
    """Who has a second factor gives up, or gives for another, only what they have."""
    source = _source_of_person(user, caller)
    check_not_delayed(admin, source)
    if not _code_is_right(admin, user, code):
        refuse_login(admin, caller, "the present code is wrong", source=source)


def _check_password(admin: Admin, caller: Caller, user: StoredUser, password: str) -> None:
    source = _source_of_person(user, caller)
    check_not_delayed(admin, source)
    right = verify_password(user.password_hash, password, owner=user.uid)
    check_not_delayed(admin, source)
    if not right:
        refuse_login(admin, caller, WRONG_PASSWORD, source=source)


def _source_of_person(user: StoredUser, caller: Caller) -> str:
    """Of one who is signed in, apart from their logins: callers without a session cannot delay it."""
    return account_source(f"signed in {user.uid}", caller.address)


def _object(admin: Admin, user: StoredUser) -> Person:
    return person_object(user, admin.store.traffic.usage_of_user(user.uid, clock.wall_s()).monthly)
