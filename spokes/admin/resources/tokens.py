"""Registration tokens."""

from __future__ import annotations

import msgspec

from spokes.admin.context import Admin, Caller, Scope
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.tokens import (
    CreateTokenRequest,
    DeleteTokenRequest,
    EditTokenRequest,
    TokenAnswer,
    TokensAnswer,
    token_object,
)
from spokes.model.tokens import CreateToken, DeleteToken, EditToken


def list_all(admin: Admin, caller: Caller, body: None) -> TokensAnswer:
    """All registration tokens, inactive ones too; their values for who may change something."""
    tokens = [token_object(token) for token in admin.store.tokens.select()]
    if Scope.WRITE not in caller.scopes:
        tokens = [msgspec.structs.replace(token, value="") for token in tokens]
    return TokensAnswer(tokens=tokens)


def create(admin: Admin, caller: Caller, body: CreateTokenRequest) -> TokenAnswer:
    """Make a registration token."""
    token = admin.perform(caller, CreateToken(body.description, active=body.active))
    admin.control.changed()
    return TokenAnswer(token=token_object(token))


def edit(admin: Admin, caller: Caller, body: EditTokenRequest) -> TokenAnswer:
    """Change a registration token: both values replace the old ones."""
    token = admin.perform(caller, EditToken(body.token_uid, body.description, body.active))
    admin.control.changed()
    return TokenAnswer(token=token_object(token))


def delete(admin: Admin, caller: Caller, body: DeleteTokenRequest) -> Answer:
    """Tunnels that were registered with it go on."""
    admin.perform(caller, DeleteToken(body.token_uid))
    admin.control.changed()
    return Answer(message="token deleted")
