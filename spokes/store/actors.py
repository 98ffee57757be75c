"""Who acts: the person, key or program on whose behalf a thread writes, as long as a `with` block lasts.

A context variable, so that handlers name the actor once and every write below carries it. It follows a task, not a
thread: work handed to another thread must enter the block there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spokes.store.rows_admin import Actor

_current: ContextVar[Actor | None] = ContextVar("actor", default=None)


def current_actor() -> Actor | None:
    return _current.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Every mutation inside the block leaves an admin event that names `actor`."""
    token = _current.set(actor)
    try:
        yield
    finally:
        _current.reset(token)
