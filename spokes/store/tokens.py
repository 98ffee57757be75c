"""Registration tokens."""

from __future__ import annotations

import hmac
from dataclasses import replace

from spokes.errors import InactiveError, NotFoundError, TokenError, ValueRefusedError
from spokes.ids import is_secret, is_uid, new_secret, new_uid
from spokes.store.base import Read, Secrets, checked_text
from spokes.store.changes import ChangeLog
from spokes.store.db import Database
from spokes.store.logged import TOKENS
from spokes.store.models import TokenModel
from spokes.store.rows import Token

COUNT_MAX = 2**31 - 1                    # PostgreSQL's INTEGER

_ALL = TOKENS.where(order_by=(TokenModel.created, TokenModel.uid))
_FIND_BY_VALUE = TOKENS.where(TokenModel.value_hash)


class Tokens:
    def __init__(self, db: Database, changes: ChangeLog, secrets: Secrets) -> None:
        self._db = db
        self._changes = changes
        self._secrets = secrets

    def create(
        self, description: str, active: bool = True, *, tunnel_count_max: int = 0, tunnels_per_hour_max: int = 0
    ) -> Token:
        description = checked_text(description, "description")
        _check_counts(tunnel_count_max, tunnels_per_hour_max)
        with self._changes.transaction() as tx:
            token = Token(
                uid=new_uid(), created=tx.now, modified=tx.now, active=active, description=description,
                value=new_secret(), tunnel_count_max=tunnel_count_max, tunnels_per_hour_max=tunnels_per_hour_max,
            )
            return tx.insert(token, value_hash=self._secrets.hash(token.value))

    def select(self) -> list[Token]:
        """All, inactive ones too, oldest first."""
        return [TOKENS.read(row) for row in self._db.rows(_ALL())]

    def edit(
        self,
        uid: str,
        description: str,
        active: bool,
        *,
        tunnel_count_max: int | None = None,
        tunnels_per_hour_max: int | None = None,
    ) -> Token:
        """None leaves a maximum as it is. Tunnels beyond a new one go on."""
        description = checked_text(description, "description")
        with self._changes.transaction() as tx:
            token = self._token(tx.read, uid)
            count_max = token.tunnel_count_max if tunnel_count_max is None else tunnel_count_max
            per_hour_max = token.tunnels_per_hour_max if tunnels_per_hour_max is None else tunnels_per_hour_max
            _check_counts(count_max, per_hour_max)
            return tx.update(replace(
                token, description=description, active=active, modified=tx.now, tunnel_count_max=count_max,
                tunnels_per_hour_max=per_hour_max,
            ))

    def delete(self, uid: str) -> None:
        """Tunnels that were registered with it go on."""
        with self._changes.transaction() as tx:
            tx.delete(self._token(tx.read, uid))

    def usable(self, read: Read, value: str) -> Token:
        """The token with this value: TokenError if there is none, InactiveError if it is switched off."""
        if is_secret(value):
            for row in read(_FIND_BY_VALUE(self._secrets.hash(value))):
                token = TOKENS.read(row)
                if hmac.compare_digest(token.value, value):
                    if not token.active:
                        raise InactiveError("this registration token is switched off", hint="ask the operator")
                    return token
        raise TokenError(
            "unknown registration token",
            hint="check it for missing characters; `spokes token create` on the server makes a new one",
        )

    @staticmethod
    def _token(read: Read, uid: str) -> Token:
        if is_uid(uid):
            for row in read(TOKENS.find(uid)):
                return TOKENS.read(row)
        raise NotFoundError("unknown registration token")


def _check_counts(*counts: int) -> None:
    if not all(0 <= count <= COUNT_MAX for count in counts):
        raise ValueRefusedError(f"a token's maximum is a number up to {COUNT_MAX}; 0 is none")
