"""Registration tokens, and the object that a tunnel's own token shares with them."""

from __future__ import annotations

import msgspec

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.store import Token as StoredToken
from spokes.wire.api_types import KeyValue, Name, Time, Uid, time_text


class Token(Part):
    id: Uid
    created: Time
    modified: Time
    active: bool
    description: str
    value: KeyValue


class CreateTokenRequest(Request):
    description: Name = ""
    active: bool = True


class EditTokenRequest(Request):
    token_uid: Uid = msgspec.field(name="tokenID")
    description: Name                    # both values replace the old ones, so neither may be forgotten
    active: bool


class DeleteTokenRequest(Request):
    token_uid: Uid = msgspec.field(name="tokenID")


class TokenAnswer(Answer):
    token: Token


class TokensAnswer(Answer):
    tokens: list[Token]


def token_object(token: StoredToken) -> Token:
    return Token(
        id=token.uid, created=time_text(token.created), modified=time_text(token.modified), active=token.active,
        description=token.description, value=token.value,
    )
