"""API keys and sessions: everybody's own, and all of them for administrators."""

from __future__ import annotations

from msgspec import UNSET

from spokes.admin.context import Admin, Caller, CallerKind
from spokes.admin.schema.access import (
    CreateKeyRequest,
    DeleteKeyRequest,
    EditKeyRequest,
    EndLoginRequest,
    KeyAnswer,
    KeysAnswer,
    LoginsAnswer,
    LoginsQuery,
    NewKeyAnswer,
    key_object,
    login_object,
)
from spokes.admin.schema.envelope import Answer
from spokes.admin.scope import changing
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID
from spokes.model.api_keys import CreateApiKey, DeleteApiKey, EditApiKey
from spokes.store import ApiKey as StoredKey
from spokes.store import Login as StoredLogin


def list_keys(admin: Admin, caller: Caller, body: None) -> KeysAnswer:
    """All API keys; a basic caller's own."""
    keys = admin.store.api_keys.select(user_uid=None if caller.is_admin else caller.user_uid)
    return KeysAnswer(keys=[key_object(key) for key in keys])


def create_key(admin: Admin, caller: Caller, body: CreateKeyRequest) -> NewKeyAnswer:
    """Make an API key; its value is shown this once."""
    user_uid = body.user_uid
    if not caller.is_admin:
        if user_uid not in (ZERO_UID, caller.user_uid):
            raise NotFoundError("unknown user")
        user_uid = caller.user_uid
    key, value = admin.perform(caller, CreateApiKey(body.description, scopes=body.scopes, user_uid=user_uid))
    return NewKeyAnswer(key=key_object(key), value=value)


def edit_key(admin: Admin, caller: Caller, body: EditKeyRequest) -> KeyAnswer:
    """Change an API key; one that is switched off ends its sessions."""
    key = _key(admin, caller, body.key_uid)
    key = admin.perform(caller, EditApiKey(
        key.uid, description=None if body.description is UNSET else body.description,
        active=None if body.active is UNSET else body.active,
    ))
    return KeyAnswer(key=key_object(key))


def delete_key(admin: Admin, caller: Caller, body: DeleteKeyRequest) -> Answer:
    """Delete an API key; its sessions end."""
    key = _key(admin, caller, body.key_uid)
    admin.perform(caller, DeleteApiKey(key.uid))
    return Answer(message="key deleted")


def list_logins(admin: Admin, caller: Caller, body: None, *, query: LoginsQuery) -> LoginsAnswer:
    """The caller's live sessions; `everyone=true` for administrators."""
    if query.everyone:
        caller.check_admin()
    return LoginsAnswer(logins=[
        login_object(login, caller.login_uid) for login in admin.store.logins.select()
        if query.everyone or _is_own(caller, login)
    ])


def end_login(admin: Admin, caller: Caller, body: EndLoginRequest) -> Answer:
    """End a session: one's own, or as an administrator anybody's."""
    for login in admin.store.logins.select():
        if login.uid == body.login_uid and (caller.is_admin or _is_own(caller, login)):
            with changing(admin, caller):
                admin.store.audit.note("login.end", "login", login.uid)
                admin.store.logins.end(login.uid)         # last: it may be the one that this call came by
            return Answer(message="session ended")
    raise NotFoundError("unknown session")


def _key(admin: Admin, caller: Caller, uid: str) -> StoredKey:
    key = admin.store.api_keys.get(uid)
    caller.check_sees(key.user_uid, "API key")
    return key


def _is_own(caller: Caller, login: StoredLogin) -> bool:
    return caller.uid == (login.user_uid if caller.kind is CallerKind.PERSON else login.api_key_uid)
