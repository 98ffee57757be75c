"""Registration tokens: operations that create, edit and delete them. Whoever has one may register tunnels."""

from __future__ import annotations

from dataclasses import replace

from spokes.errors import ValueRefusedError
from spokes.ids import new_secret, new_uid
from spokes.model.operation import Operation, Work
from spokes.store import Token
from spokes.store.base import checked_text

COUNT_MAX = 2**31 - 1                    # PostgreSQL's INTEGER


class CreateToken(Operation[Token], frozen=True, tag="token.create"):
    """Creates a registration token; a maximum of 0 is none."""

    admin_only = True

    description: str
    active: bool = True
    tunnel_count_max: int = 0
    tunnels_per_hour_max: int = 0

    def apply(self, work: Work) -> Token:
        description = checked_text(self.description, "description")
        _check_counts(self.tunnel_count_max, self.tunnels_per_hour_max)
        with work.transaction() as tx:
            return work.store.tokens.insert(tx, Token(
                uid=new_uid(), created=tx.now, modified=tx.now, active=self.active, description=description,
                value=new_secret(), tunnel_count_max=self.tunnel_count_max,
                tunnels_per_hour_max=self.tunnels_per_hour_max,
            ))


class EditToken(Operation[Token], frozen=True, tag="token.edit"):
    """Changes a registration token; None leaves a maximum as it is. Tunnels beyond a new maximum go on."""

    admin_only = True

    uid: str
    description: str
    active: bool
    tunnel_count_max: int | None = None
    tunnels_per_hour_max: int | None = None

    def apply(self, work: Work) -> Token:
        description = checked_text(self.description, "description")
        with work.transaction() as tx:
            token = work.store.tokens.get(tx, self.uid)
            count_max = token.tunnel_count_max if self.tunnel_count_max is None else self.tunnel_count_max
            per_hour_max = (
                token.tunnels_per_hour_max if self.tunnels_per_hour_max is None else self.tunnels_per_hour_max
            )
            _check_counts(count_max, per_hour_max)
            return tx.update(replace(
                token, description=description, active=self.active, modified=tx.now, tunnel_count_max=count_max,
                tunnels_per_hour_max=per_hour_max,
            ))


class DeleteToken(Operation[None], frozen=True, tag="token.delete"):
    """Deletes a registration token. Tunnels that were registered with it go on."""

    admin_only = True

    uid: str

    def apply(self, work: Work) -> None:
        with work.transaction() as tx:
            tx.delete(work.store.tokens.get(tx, self.uid))


def _check_counts(*counts: int) -> None:
    if not all(0 <= count <= COUNT_MAX for count in counts):
        raise ValueRefusedError(f"a token's maximum is a number up to {COUNT_MAX}; 0 is none")
