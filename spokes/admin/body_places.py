"""Whose body may be read: each that is on its way holds a thread, threads are few, and some bodies come in crumbs.

Owns: the places of callers who are signed in and those of strangers. Bound: together they leave a thread free.
Fails: as Places; a body that came with its head is read in far less.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from spokes.admin.places import Places

REFUSAL = "too many slow bodies at once; try again"


class BodyPlaces:
    """Shared by all calls of a process."""

    def __init__(self, thread_count: int) -> None:
        half = max(1, thread_count // 2)
        self.signed_in = Places(half, REFUSAL)
        self.strangers = Places(max(1, half - 1), REFUSAL)

    def place(self, source: str, *, signed_in: bool) -> AbstractContextManager[None]:
        """For as long as the body is being read, and made objects of."""
        return (self.signed_in if signed_in else self.strangers).place(source)
