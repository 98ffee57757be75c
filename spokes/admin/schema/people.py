"""People who sign in with e-mail and password: users with a role, and their second factor."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from spokes.admin.schema.envelope import Answer, Request
from spokes.admin.schema.users import User, UserRequest, user_object
from spokes.ids import ZERO_UID
from spokes.store import User as StoredUser
from spokes.wire.api_types import Count, NewPassword, Secret, Text, Uid

RoleName = Literal["admin", "basic"]


class Person(User):
    """A user with what only administrators of this server see."""

    role: RoleName
    tunnel_count_max: Count = msgspec.field(name="maxTunnels")      # 0: the server's
    has_password: bool = msgspec.field(name="hasPassword")
    has_totp: bool = msgspec.field(name="hasTotp")


class PersonRequest(UserRequest):
    role: RoleName | UnsetType = UNSET


class LoginRequest(Request):
    email: Text
    password: Secret
    code: Text = ""                      # of the second factor, if there is one


class PasswordRequest(Request):
    password: NewPassword
    user_uid: Uid = msgspec.field(name="userID", default=ZERO_UID)   # zero: the caller
    current: Secret = ""                 # needed for one's own


class NewTotpRequest(Request):
    """Nothing is stored before it is confirmed."""


class ConfirmTotpRequest(Request):
    password: Secret
    secret: Text
    code: Text
    current_code: Text = msgspec.field(name="currentCode", default="")      # of the second factor that there is


class RemoveTotpRequest(Request):
    user_uid: Uid = msgspec.field(name="userID", default=ZERO_UID)   # zero: the caller
    password: Secret = ""                # both are needed for one's own
    code: Text = ""


class PersonAnswer(Answer):
    person: Person


class PeopleAnswer(Answer):
    people: list[Person]


class MeAnswer(Answer):
    """Who the server takes the caller for."""

    kind: Literal["key", "person"]
    id: Uid
    name: str
    role: RoleName
    scopes: list[str]
    user_uid: Uid = msgspec.field(name="userID")
    has_totp: bool = msgspec.field(name="hasTotp", default=False)


class NewTotpAnswer(Answer):
    secret: str
    uri: str


def person_object(user: StoredUser, monthly_bytes: int) -> Person:
    return Person(
        **msgspec.structs.asdict(user_object(user, monthly_bytes)),
        role="admin" if user.role == "admin" else "basic", tunnel_count_max=user.max_tunnels,
        has_password=bool(user.password_hash), has_totp=bool(user.totp_secret),
    )
