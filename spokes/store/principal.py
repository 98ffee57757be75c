"""On whose behalf a thread writes, as long as a `with` block lasts.

A context variable, so that callers name the principal once and every write below carries it; and with it what must hold
when a write begins (Check). It follows a task, not a thread: work handed to another thread must enter the block there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from spokes.store.base import View
from spokes.store.rows_admin import Principal

# Raises when what it stands for does not hold. It is run first in every writing transaction, behind the lock that keeps
# other writers out: so nothing that it found true can change before the transaction ends.
Check = Callable[[View], None]


@dataclass(frozen=True, slots=True)
class Acting:
    """What a block says of the writes in it."""

    principal: Principal | None = None
    checks: tuple[Check, ...] = ()


_NOBODY = Acting()
_current: ContextVar[Acting] = ContextVar("acting", default=_NOBODY)


def current_acting() -> Acting:
    return _current.get()


def current_principal() -> Principal | None:
    return _current.get().principal


@contextmanager
def acting(principal: Principal, *checks: Check) -> Iterator[None]:
    """Every mutation inside the block leaves an audit record that names `principal`, and happens only if all `checks`
    hold in its own transaction, those of the blocks around it too.
    """
    with _entered(Acting(principal, current_acting().checks + checks)):
        yield


@contextmanager
def aside() -> Iterator[None]:
    """What is written inside the block is on nobody's behalf, and depends on nobody's rights."""
    with _entered(_NOBODY):
        yield


@contextmanager
def checking(*checks: Check) -> Iterator[None]:
    """Every mutation inside the block happens only if all `checks` hold in its own transaction."""
    around = current_acting()
    with _entered(Acting(around.principal, around.checks + checks)):
        yield


@contextmanager
def _entered(acting_now: Acting) -> Iterator[None]:
    token = _current.set(acting_now)
    try:
        yield
    finally:
        _current.reset(token)
