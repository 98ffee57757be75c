"""What the parts of the store share: the database, and look-up of secrets."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from typing import Any, Protocol

import peewee

from spokes import clock
from spokes.errors import ValueRefusedError
from spokes.store.audit_budget import EventBudget
from spokes.store.db import Database, Query

TEXT_CHARS_MAX = 255
PURGE_COUNT_MAX = 2_000                  # rows removed by one call: nobody writes meanwhile
_JOINERS = "\u200c\u200d"


Read = Callable[[Query], list[Any]]      # runs a SELECT: one of Database's or, inside a transaction, of Writer's


class View(Protocol):
    """What is there to be looked at: inside a writing transaction (Writer), or at this moment (Present)."""

    @property
    def now(self) -> float: ...

    def read(self, query: Query) -> list[Any]:
        """All rows of a SELECT."""
        ...

    def rows(self, query: Query) -> list[Any]:
        """As read(), but tuples as the driver gives them."""
        ...


class Present:
    """Each SELECT by itself, without keeping anybody out."""

    def __init__(self, db: Database) -> None:
        self.now = clock.wall_s()
        self.read = db.read
        self.rows = db.rows


class StoreBase:
    """State of an open store. The parts (tokens, tunnels …) are classes over it that Store joins."""

    _db: Database
    _hash_key: bytes
    _event_budget: EventBudget

    def _secret_hash(self, value: str) -> str:
        """Keyed hash under which a token's value is found.

        The index is searched by this hash, so the time of a look-up says nothing about how much of a guessed value was
        right. The value itself stands beside it, because the Admin API shows it in full (admin-api.md 7.2, 7.3); a
        deployment that gives this up can empty that column and every look-up still works.
        """
        return hmac.new(self._hash_key, value.encode(), hashlib.sha256).hexdigest()

    def _purge_oldest(self, ended: peewee.Field, older_than: float, row_count_max: int) -> int:
        """Remove rows whose `ended` (Unix seconds; null: not yet) is before `older_than`, and of those that have one
        the oldest beyond `row_count_max`, with all of the same moment; how many. Of more than PURGE_COUNT_MAX the
        oldest go, and the others at the next call.
        """
        model = ended.model
        newest = model.select(ended).where(ended.is_null(False)).order_by(ended.desc())
        beyond = self._db.rows(newest.limit(1).offset(max(0, row_count_max)))
        too_old = (ended < older_than) | (ended <= beyond[0][0]) if beyond else ended < older_than
        slice_end = self._db.rows(
            model.select(ended).where(ended.is_null(False)).order_by(ended).limit(1).offset(PURGE_COUNT_MAX - 1)
        )
        in_slice = ended <= slice_end[0][0] if slice_end else ended.is_null(False)
        return int(self._db.run(model.delete().where(too_old, in_slice)))


def checked_text(text: str, what: str) -> str:
    """A name or description as people type it, fit for one line of a listing."""
    text = text.strip()
    if len(text) > TEXT_CHARS_MAX:
        raise ValueRefusedError(f"{what} is longer than {TEXT_CHARS_MAX} characters")
    if any(_unprintable(char) for char in text):
        raise ValueRefusedError(f"{what} holds control characters")
    return text


def cleaned_text(text: str) -> str:
    """A text that a client reports of itself, made fit for storing: never refused, only cut."""
    return "".join("\ufffd" if _unprintable(char) else char for char in text[:TEXT_CHARS_MAX])


def is_printable(text: str) -> bool:
    """Whether checked_text and cleaned_text leave `text` as it is, but for its length."""
    return not any(_unprintable(char) for char in text)


def _unprintable(char: str) -> bool:
    """Control characters, lone surrogates, line and paragraph separators, and whatever is not seen but makes two texts
    look alike or turns their direction; but what joins letters of many scripts, and parts of emoji.
    """
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS
