"""What the facets of the store share: secrets and their hashes, texts, and how old rows go."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from typing import Any, Protocol

import peewee

from spokes import clock
from spokes.cluster.digest import digest_key
from spokes.errors import ValueRefusedError
from spokes.ids import new_secret
from spokes.store.db import Database, Query
from spokes.store.models import MetaModel

TEXT_CHARS_MAX = 255
HASH_KEY = "hash_key"
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


class Secrets:
    """What a database keeps from who reads it: values of its own, and the keyed hashes by which tokens are found."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.key = self.digest_key = b""
        self.set_key(bytes.fromhex(self.get(HASH_KEY)))

    def set_key(self, key: bytes) -> None:
        """What hashes and digests are keyed by from now on: the same in all of a cluster."""
        self.key = key
        self.digest_key = digest_key(key)

    def get(self, name: str) -> str:
        """The secret of this name (64 hex digits): made on first use, the same for all who open this database."""
        key = f"secret.{name}"
        new = MetaModel.insert(key=key, value=new_secret()).on_conflict_ignore()
        self._db.alone(lambda: new.execute(self._db.peewee))     # one that stands stays, also if made this moment
        (value,), = self._db.read(MetaModel.select(MetaModel.value).where(MetaModel.key == key).tuples())
        return str(value)

    def hash(self, value: str) -> str:
        """Keyed hash under which a token's value is found.

        The index is searched by this hash, so the time of a look-up says nothing about how much of a guessed value was
        right. The value itself stands beside it, because the Admin API shows it in full (admin-api.md 7.2, 7.3); a
        deployment that gives this up can empty that column and every look-up still works.
        """
        return hmac.new(self.key, value.encode(), hashlib.sha256).hexdigest()


def purge_oldest(db: Database, ended: peewee.Field, older_than: float, row_count_max: int) -> int:
    """Remove rows whose `ended` (Unix seconds; null: not yet) is before `older_than`, and of those that have one
    the oldest beyond `row_count_max`, with all of the same moment; how many. Of more than PURGE_COUNT_MAX the
    oldest go, and the others at the next call.
    """
    model = ended.model
    newest = model.select(ended).where(ended.is_null(False)).order_by(ended.desc())
    beyond = db.rows(newest.limit(1).offset(max(0, row_count_max)))
    too_old = (ended < older_than) | (ended <= beyond[0][0]) if beyond else ended < older_than
    slice_end = db.rows(
        model.select(ended).where(ended.is_null(False)).order_by(ended).limit(1).offset(PURGE_COUNT_MAX - 1)
    )
    in_slice = ended <= slice_end[0][0] if slice_end else ended.is_null(False)
    return int(db.run(model.delete().where(too_old, in_slice)))


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
