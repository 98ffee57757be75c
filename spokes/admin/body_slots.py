"""Whose body may be read: each that is on its way holds a thread, threads are few, and some bodies come in crumbs.

Owns: the places of callers who are signed in and those of strangers; and how many bytes of bodies, large ones alone,
are held at once: as objects they take several times as much, until their call is done.
Bound: together the places leave a thread free. Fails: as Slots; a body that came with its head is read in far less.
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
        self.strangers = Slots(max(1, half - 1), REFUSAL)
        self._bytes = SharedSlots(
            BYTES_MAX, LARGE_REFUSAL, waiting_max=LARGE_WAITING_MAX, patience_s=LARGE_PATIENCE_S
        )

    def place(self, source: str, *, signed_in: bool) -> AbstractContextManager[None]:
        """For as long as the body is being read, and made objects of."""
        return (self.signed_in if signed_in else self.strangers).place(source)

    def room(self, source: str, byte_count: int) -> AbstractContextManager[None]:
        """For as long as a body of so many bytes, or what was made of it, is held."""
        return self._bytes.place(source, byte_count) if byte_count > LARGE_BYTES else nullcontext()
