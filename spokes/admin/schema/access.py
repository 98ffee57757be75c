"""API keys and sessions."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.ids import ZERO_UID
from spokes.store import ApiKey as StoredKey
from spokes.store import Login as StoredLogin
from spokes.wire.api_types import KeyValue, Name, Time, Uid, time_text

ScopeName = Literal["read", "write", "replication"]


class ApiKey(Part):
    """Without its value, which nobody can look up."""

    id: Uid
    created: Time
    modified: Time
    active: bool
    description: str
    prefix: str                          # the value's first digits
    scopes: list[str]
    user_uid: Uid = msgspec.field(name="userID")                    # zero: the system's
    last_used: Time = msgspec.field(name="lastUsed")
    last_address: str = msgspec.field(name="lastAddress")


class CreateKeyRequest(Request):
    description: Name = ""
    scopes: Annotated[tuple[ScopeName, ...], Meta(min_length=1, max_length=16)] = ("read", "write")
    user_uid: Uid = msgspec.field(name="userID", default=ZERO_UID)


class EditKeyRequest(Request):
    """What is left out stays as it is."""

    key_uid: Uid = msgspec.field(name="keyID")
    description: Name | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class DeleteKeyRequest(Request):
    key_uid: Uid = msgspec.field(name="keyID")


class NewKeyAnswer(Answer):
    key: ApiKey
    value: KeyValue                      # shown this once


class KeyAnswer(Answer):
    key: ApiKey


class KeysAnswer(Answer):
    keys: list[ApiKey]


class Login(Part):
    id: Uid
    key_uid: Uid = msgspec.field(name="keyID")                      # zero: a person's
    user_uid: Uid = msgspec.field(name="userID")                    # zero: a key's
    created: Time
    expires: Time
    address: str
    agent: str
    current: bool                        # this very session


class LoginsQuery(msgspec.Struct):
    everyone: bool = False               # for administrators


class EndLoginRequest(Request):
    login_uid: Uid = msgspec.field(name="loginID")


class LoginsAnswer(Answer):
    logins: list[Login]


def key_object(key: StoredKey) -> ApiKey:
    return ApiKey(
        id=key.uid, created=time_text(key.created), modified=time_text(key.modified), active=key.active,
        description=key.description, prefix=key.prefix, scopes=list(key.scopes), user_uid=key.user_uid,
        last_used=time_text(key.last_used), last_address=key.last_address,
    )


def login_object(login: StoredLogin, current_uid: str) -> Login:
    return Login(
        id=login.uid, key_uid=login.api_key_uid, user_uid=login.user_uid, created=time_text(login.created),
        expires=time_text(login.expires), address=login.address, agent=login.agent, current=login.uid == current_uid,
    )
