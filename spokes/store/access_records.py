"""Visits: connections that are over, for export. Not in the change log.

Bound: purge_visits, by age and by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from spokes.ids import is_uid
from spokes.store.base import cleaned_text, is_printable, purge_oldest
from spokes.store.db import Database
from spokes.store.models import TunnelModel
from spokes.store.models_admin import VisitModel
from spokes.store.rows_traffic import Visit
from spokes.store.statement import EachOf

VISIT_COUNT_MAX = 10_000                 # most visits handed out by one call
_INSERT_COUNT = 1_000                    # nine parameters each


class AccessRecords:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, visits: Iterable[Visit]) -> None:
        """In one transaction; one that is there already is passed over."""
        rows = [
            {**asdict(visit), "address": cleaned_text(visit.address)}
            for visit in visits if is_uid(visit.uid) and is_uid(visit.tunnel_uid) and is_uid(visit.service_uid)
        ]
        if not rows:
            return
        with self._db.write() as db:
            for first in range(0, len(rows), _INSERT_COUNT):
                VisitModel.insert_many(rows[first : first + _INSERT_COUNT]).on_conflict_ignore().execute(db)

    def select(
        self, *, tunnel_uid: str | None = None, service_uid: str | None = None, address: str | None = None,
        tunnel_uids: Sequence[str] | None = None, user_uid: str | None = None, begin: float | None = None,
        end: float | None = None, before: tuple[float, str] | None = None, limit: int = 100,
    ) -> list[Visit]:
        """The latest to close first. `begin`..`end`: when they closed; `before`: (closed, uid) of the last one of the
        page before. `user_uid`: to the tunnels that are this user's now."""
        query = VisitModel.select().order_by(VisitModel.closed.desc())
        query = query.limit(max(0, min(limit, VISIT_COUNT_MAX)))
        for field, uid in ((VisitModel.tunnel_uid, tunnel_uid), (VisitModel.service_uid, service_uid)):
            if uid is not None:
                query = query.where(field == (uid if is_uid(uid) else ""))
        if address is not None:
            query = query.where(VisitModel.address == (address if is_printable(address) else ""))
        if tunnel_uids is not None:
            query = query.where(VisitModel.tunnel_uid.in_(EachOf(filter(is_uid, tunnel_uids))))
        if user_uid is not None:
            owner = user_uid if is_uid(user_uid) else ""
            own = TunnelModel.select(TunnelModel.uid).where(TunnelModel.user_uid == owner)
            query = query.where(VisitModel.tunnel_uid.in_(own))
        if begin is not None:
            query = query.where(VisitModel.closed >= begin)
        if end is not None:
            query = query.where(VisitModel.closed < end)
        if before is not None:
            closed, uid = before
            query = query.where(
                (VisitModel.closed < closed) | ((VisitModel.closed == closed) & (VisitModel.uid < uid))
            )
        return [Visit(**row) for row in self._db.read(query.dicts())]

    def purge(self, older_than: float, row_count_max: int) -> int:
        """Remove those that closed before `older_than` (Unix seconds), and the oldest beyond `row_count_max`,
        with all that closed at the same moment; how many.
        """
        return purge_oldest(self._db, VisitModel.closed, older_than, row_count_max)
