"""Who acts: the person, key or program on whose behalf a thread writes, as long as a `with` block lasts.

A context variable, so that handlers name the actor once and every write below carries it; and with the actor what must
hold when a write begins (authority.py). It follows a task, not a thread: work handed to another thread must enter the
block there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from spokes.ids import ZERO_UID
from spokes.store.base import View
from spokes.store.rows_admin import Actor

# Raises when what it stands for does not hold. It is run first in every writing transaction, behind the lock that keeps
# other writers out: so nothing that it found true can change before the transaction ends.
Check = Callable[[View], None]


@dataclass(frozen=True, slots=True)
class Acting:
    """What a block says of the writes in it."""

    actor: Actor | None = None
    user_uid: str = ZERO_UID             # the user whom the actor is, or whose key it is; zero: nobody's
    checks: tuple[Check, ...] = ()


_NOBODY = Acting()
_current: ContextVar[Acting] = ContextVar("acting", default=_NOBODY)


def current_acting() -> Acting:
    return _current.get()


def current_actor() -> Actor | None:
    return _current.get().actor


@contextmanager
def acting(actor: Actor, *checks: Check, user_uid: str = ZERO_UID) -> Iterator[None]:
    """Every mutation inside the block leaves an admin event that names `actor`, and happens only if all `checks` hold
    in its own transaction, those of the blocks around it too.
    """
    with _entered(Acting(actor, user_uid, current_acting().checks + checks)):
        yield


@contextmanager
def aside() -> Iterator[None]:
    """What is written inside the block is nobody's deed, and depends on nobody's rights."""
    with _entered(_NOBODY):
        yield


@contextmanager
def checking(*checks: Check) -> Iterator[None]:
    """Every mutation inside the block happens only if all `checks` hold in its own transaction."""
    around = current_acting()
    with _entered(Acting(around.actor, around.user_uid, around.checks + checks)):
        yield


@contextmanager
def _entered(acting_now: Acting) -> Iterator[None]:
    token = _current.set(acting_now)
    try:
        yield
    finally:
        _current.reset(token)
