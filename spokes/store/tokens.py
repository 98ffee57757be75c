"""Registration tokens."""

from __future__ import annotations

import hmac

from spokes.errors import NotFoundError
from spokes.ids import is_secret, is_uid
from spokes.store.base import Secrets, View
from spokes.store.changes import Writer
from spokes.store.db import Database
from spokes.store.logged import TOKENS
from spokes.store.models import TokenModel
from spokes.store.rows import Token

_ALL = TOKENS.where(order_by=(TokenModel.created, TokenModel.uid))
_FIND_BY_VALUE = TOKENS.where(TokenModel.value_hash)


class Tokens:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    def select(self) -> list[Token]:
        """All, inactive ones too, oldest first."""
        return [TOKENS.read(row) for row in self._db.rows(_ALL())]

    def get(self, view: View, uid: str) -> Token:
        if is_uid(uid):
            for row in view.rows(TOKENS.find(uid)):
                return TOKENS.read(row)
        raise NotFoundError("unknown registration token")

    def find_by_value(self, view: View, value: str) -> Token | None:
        if is_secret(value):
            for row in view.rows(_FIND_BY_VALUE(self._secrets.hash(value))):
                token = TOKENS.read(row)
                if hmac.compare_digest(token.value, value):
                    return token
        return None

    def insert(self, tx: Writer, token: Token) -> Token:
        return tx.insert(token, value_hash=self._secrets.hash(token.value))
