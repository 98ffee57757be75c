"""Frozen lists: long results cut into pages that stay as they were when somebody asked, for a while.

One row a list, found by its content, so that the same result asked for again costs nothing. A page's id is the list's
id and the page's number; the first is a keyed hash, so nobody guesses one.
Bound: LIST_COUNT_MAX lists of one owner (the oldest go), each for LIST_LIFETIME_S after it was last handed out.
"""

from __future__ import annotations

from collections.abc import Sequence

import peewee

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID, is_uid
from spokes.store.base import Secrets
from spokes.store.db import Database
from spokes.store.models_admin import FrozenListModel
from spokes.store.rows_admin import PageLink

PAGE_COUNT = 100                         # ids on one page
LIST_COUNT_MAX = 200
LIST_LIFETIME_S = 900
_LIST_DIGITS = 24                        # of a page's 32; the rest is its number
_UID_DIGITS = 32


class ResultSnapshots:
    def __init__(self, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._secrets = secrets

    def take(self, uids: Sequence[str], owner_uid: str = ZERO_UID) -> list[PageLink]:
        """The pages under which these ids, in this order, can be read for LIST_LIFETIME_S; none of no ids.

        `owner_uid`: whose oldest lists go when there are too many.
        """
        if not uids:
            return []
        text = "".join(uids)
        if len(text) != len(uids) * _UID_DIGITS:
            raise ValueError("a list of what is no id")
        now, key = clock.wall_s(), self._secrets.hash(f"list:{owner_uid}:{text}")[:_LIST_DIGITS]
        if not self._db.run(FrozenListModel.update(handed_out=now).where(FrozenListModel.uid == key)):
            insert = FrozenListModel.insert(uid=key, uids=text, handed_out=now, owner_uid=owner_uid).on_conflict(
                conflict_target=[FrozenListModel.uid], preserve=[FrozenListModel.handed_out]
            )
            own = FrozenListModel.owner_uid == owner_uid
            newest = FrozenListModel.select(FrozenListModel.handed_out).where(own)
            newest = newest.order_by(FrozenListModel.handed_out.desc())
            with self._db.write() as db:
                insert.execute(db)
                FrozenListModel.delete().where(FrozenListModel.handed_out < now - LIST_LIFETIME_S).execute(db)
                for (handed_out,) in newest.limit(1).offset(LIST_COUNT_MAX).tuples().execute(db):
                    FrozenListModel.delete().where(own, FrozenListModel.handed_out <= handed_out).execute(db)
        return [
            PageLink(f"{key}{page:08x}", page + 1, min(PAGE_COUNT, len(uids) - page * PAGE_COUNT))
            for page in range(-(-len(uids) // PAGE_COUNT))
        ]

    def read_page(self, page_uid: str) -> list[str]:
        """The ids on a page; NotFoundError if there is none, or none any more."""
        if is_uid(page_uid):
            page = int(page_uid[_LIST_DIGITS:], 16)
            length = PAGE_COUNT * _UID_DIGITS
            if page * length < 2**31 - 1:                    # PostgreSQL's substr counts in 32 bits
                part = peewee.fn.SUBSTR(FrozenListModel.uids, page * length + 1, length)
                query = FrozenListModel.select(part).where(
                    FrozenListModel.uid == page_uid[:_LIST_DIGITS],
                    FrozenListModel.handed_out >= clock.wall_s() - LIST_LIFETIME_S,
                )
                for (text,) in self._db.rows(query):
                    if text:
                        return [text[i : i + _UID_DIGITS] for i in range(0, len(text), _UID_DIGITS)]
        raise NotFoundError("unknown or expired page", hint="ask for the list again")
