"""API keys: operations that create, edit and delete them. A key's value is shown once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spokes.errors import ForbiddenError, ValueRefusedError
from spokes.ids import ZERO_UID, new_secret, new_uid
from spokes.model.limits import check_room
from spokes.model.operation import Operation, Work
from spokes.store import ApiKey
from spokes.store.base import checked_text
from spokes.store.changes import Writer
from spokes.store.logins import end_logins
from spokes.store.rows import SCOPES

PREFIX_DIGITS = 8
API_KEY_COUNT_MAX = 100                  # of one user, or of the system


class CreateApiKey(Operation[tuple[ApiKey, str]], frozen=True, tag="api_key.create"):
    """Creates a key and returns it with its value, which cannot be looked up later.

    ForbiddenError if the key would have a scope that the principal lacks.
    """

    description: str
    scopes: Sequence[str] = ("read", "write")
    user_uid: str = ZERO_UID

    def apply(self, work: Work) -> tuple[ApiKey, str]:
        description = checked_text(self.description, "description")
        scopes, store = self.scopes, work.store
        if not scopes or not set(scopes) <= set(SCOPES):
            raise ValueRefusedError(f"scopes are some of {', '.join(SCOPES)}")
        if missing := set(scopes) - set(work.principal.scopes):
            raise ForbiddenError(f"the caller lacks the scope: {', '.join(sorted(missing))}")
        work.check_sees(self.user_uid, "user")
        value = new_secret()
        with work.transaction() as tx:
            if self.user_uid != ZERO_UID:
                store.users.get(self.user_uid, tx)
            check_room(store.api_keys.count_of_user(tx, self.user_uid), API_KEY_COUNT_MAX, "API key")
            key = ApiKey(
                uid=new_uid(), created=tx.now, modified=tx.now, active=True, description=description,
                prefix=value[:PREFIX_DIGITS], scopes=tuple(scope for scope in SCOPES if scope in scopes),
                user_uid=self.user_uid,
            )
            return store.api_keys.insert(tx, key, value), value


class EditApiKey(Operation[ApiKey], frozen=True, tag="api_key.edit"):
    """Changes a key; None leaves a member as it is. Switching a key off ends its logins."""

    uid: str
    description: str | None = None
    active: bool | None = None

    def apply(self, work: Work) -> ApiKey:
        description = None if self.description is None else checked_text(self.description, "description")
        with work.transaction() as tx:
            key = _key(work, tx, self.uid)
            changed = replace(
                key, description=key.description if description is None else description,
                active=key.active if self.active is None else self.active,
            )
            if changed == key:
                return key
            if not changed.active:
                end_logins(tx, api_key_uid=self.uid)
            return tx.update(replace(changed, modified=tx.now))


class DeleteApiKey(Operation[None], frozen=True, tag="api_key.delete"):
    """Deletes a key and ends its logins."""

    uid: str

    def apply(self, work: Work) -> None:
        with work.transaction() as tx:
            key = _key(work, tx, self.uid)
            end_logins(tx, api_key_uid=self.uid)
            tx.delete(key)


def _key(work: Work, tx: Writer, uid: str) -> ApiKey:
    key = work.store.api_keys.get(uid, tx)
    work.check_sees(key.user_uid, "API key")
    return key
