"""Slots for reading bodies: each body on its way holds a thread, threads are few, and some bodies come in crumbs.

Owns: the slots of callers who are signed in and of those who are not; and how many bytes of bodies, large ones alone,
are held at once: as objects they take several times as much, until their call is done.
Bound: together the slots leave a thread free. Fails: as Slots; a body that came with its head is read in far less.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from spokes.admin.slots import SharedSlots, Slots

REFUSAL = "too many slow bodies at once; try again"
LARGE_REFUSAL = "too many large bodies at once; try again"
LARGE_BYTES = 64 * 1024
BYTES_MAX = 8 * 1024 * 1024
LARGE_WAITING_MAX = 2
LARGE_PATIENCE_S = 3.0


class BodySlots:
    """Shared by all calls of a process."""

    def __init__(self, thread_count: int) -> None:
        half = max(1, thread_count // 2)
        self.signed_in = Slots(half, REFUSAL)
        self.unauthenticated = Slots(max(1, half - 1), REFUSAL)
        self._bytes = SharedSlots(
            BYTES_MAX, LARGE_REFUSAL, waiting_max=LARGE_WAITING_MAX, patience_s=LARGE_PATIENCE_S
        )

    def slot(self, source: str, *, signed_in: bool) -> AbstractContextManager[None]:
        """Holds a slot while a body is read and decoded."""
        return (self.signed_in if signed_in else self.unauthenticated).slot(source)

    def room(self, source: str, byte_count: int) -> AbstractContextManager[None]:
        """Holds the bytes of a large body while it, or the objects made of it, are in memory."""
        return self._bytes.slot(source, byte_count) if byte_count > LARGE_BYTES else nullcontext()
