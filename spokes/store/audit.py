"""Admin events: reading them, proving that none was changed, and letting old ones go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict

from spokes import clock
from spokes.ids import ZERO_UID, is_uid
from spokes.store.audit_chain import ANCHOR_KEY, HEAD_KEY, continues, place
from spokes.store.base import PURGE_COUNT_MAX, Present, is_printable
from spokes.store.changes import SEQ_MAX, ChangeLog
from spokes.store.db import Database
from spokes.store.models import canonical_json
from spokes.store.models_admin import AdminEventModel
from spokes.store.principal import Check, acting, aside, checking, current_principal
from spokes.store.rows import Json
from spokes.store.rows_admin import AdminEvent, Principal
from spokes.store.statement import Statement

BATCH_COUNT = 1_000                      # events held in memory at once when all are read
EVENT_COUNT_MAX = 1_000                  # most events handed out by one call

_SLICE = Statement(
    lambda after, last: AdminEventModel.select().where(AdminEventModel.seq > after, AdminEventModel.seq <= last)
    .order_by(AdminEventModel.seq)
)


class Audit:
    def __init__(self, db: Database, changes: ChangeLog) -> None:
        self._db = db
        self._changes = changes

    def acting(self, principal: Principal, *checks: Check) -> AbstractContextManager[None]:
        """`with store.audit.acting(principal):` what this thread or task changes leaves audit records that name it.

        It happens only if all `checks` hold in its transaction.
        """
        return acting(principal, *checks)

    def require(self, *checks: Check) -> None:
        """Raises what the first one that does not hold raises, now and without keeping other writers out."""
        present = Present(self._db)
        for check in checks:
            check(present)

    def checking(self, *checks: Check) -> AbstractContextManager[None]:
        """As acting(), for whom no record is to name."""
        return checking(*checks)

    def note(
        self, action: str, object_kind: str = "", object_uid: str = ZERO_UID, detail: Json | None = None
    ) -> None:
        """A record of what is no mutation: a login, a refusal, a stop. Somebody must be acting."""
        principal = current_principal()
        if principal is None:
            raise LookupError("a record needs a principal: call this inside `with store.audit.acting(…)`")
        # One that is only counted takes no turn at writing: unauthenticated callers can cause as many as they like.
        if self._changes.event_budget.admits(principal, action, clock.wall_s()):
            with self._changes.transaction() as tx:
                tx.note(action, object_kind, object_uid, detail, admitted=True)
        else:
            self.write_counted()

    def write_counted(self) -> None:
        """Those that were counted for a minute; each writing transaction does so too."""
        if self._changes.event_budget.has_due(clock.wall_s()):
            with aside(), self._changes.transaction():
                pass                     # its end writes them

    def select(
        self, *, before_seq: int | None = None, limit: int = 100, principal_uid: str | None = None,
        object_uid: str | None = None, action: str | None = None,
    ) -> list[AdminEvent]:
        """Newest first, at most EVENT_COUNT_MAX; `action` whole or up to its dot (`user`)."""
        query = AdminEventModel.select().order_by(AdminEventModel.seq.desc())
        query = query.limit(max(0, min(limit, EVENT_COUNT_MAX)))
        if before_seq is not None:
            query = query.where(AdminEventModel.seq < min(before_seq, SEQ_MAX))
        if principal_uid is not None:
            query = query.where(AdminEventModel.actor_uid == (principal_uid if is_uid(principal_uid) else ""))
        if object_uid is not None:
            query = query.where(AdminEventModel.object_uid == (object_uid if is_uid(object_uid) else ""))
        if action is not None:
            if not is_printable(action):
                return []
            # Between "user." and the character after the dot lies every "user.…".
            query = query.where(
                (AdminEventModel.action == action)
                | AdminEventModel.action.startswith(action + ".")
            )
        return [AdminEvent(**row) for row in self._db.read(query.dicts())]

    def all_records(self) -> Iterator[AdminEvent]:
        """Oldest first, in batches: also what is written meanwhile."""
        seq = 0
        query = AdminEventModel.select().order_by(AdminEventModel.seq).limit(BATCH_COUNT)
        while batch := self._db.read(query.where(AdminEventModel.seq > seq).dicts()):
            yield from (AdminEvent(**row) for row in batch)
            seq = batch[-1]["seq"]

    def export(self) -> Iterator[str]:
        """One JSON object a line, oldest first: with `previous_hash` and `hash`, so that others can prove it too."""
        for event in self.all_records():
            yield canonical_json(asdict(event)) + "\n"

    def verify(self) -> int | None:
        """None if the chain is whole; else the number of the first event that is missing or not as it was written.

        Read in slices beside whoever writes: up to what was the newest event when it began.
        """
        with self._db.snapshot():
            anchor, head = place(self._db.peewee, ANCHOR_KEY), place(self._db.peewee, HEAD_KEY)
        seq, previous_hash = anchor
        while seq < head[0]:
            rows = self._db.rows(_SLICE(seq, min(head[0], seq + BATCH_COUNT)))
            if not rows or rows[0][0] != seq + 1:
                later = place(self._db.peewee, ANCHOR_KEY)
                if later[0] > seq:       # retention took old ones away meanwhile, and says where the chain begins now
                    if later[0] > head[0]:
                        return None      # all that were to be looked at
                    seq, previous_hash = later
                    continue
                return seq + 1
            for row in rows:
                digest = continues(row, seq, previous_hash)
                if digest is None:
                    return seq + 1
                seq, previous_hash = seq + 1, digest
        return None if (seq, previous_hash) == head else seq + 1

    def purge(self, older_than: float, row_count_max: int) -> int:
        """Remove those from before `older_than` (Unix seconds), from the oldest on, and the oldest beyond
        `row_count_max`; the chain of the rest stays. At most PURGE_COUNT_MAX; how many.
        """
        with self._changes.transaction() as tx:
            newest, _ = place(self._db.peewee, HEAD_KEY)
            oldest, _ = place(self._db.peewee, ANCHOR_KEY)
            window = AdminEventModel.seq <= oldest + PURGE_COUNT_MAX
            kept = tx.rows(
                AdminEventModel.select(AdminEventModel.seq).where(window, AdminEventModel.time >= older_than)
                .order_by(AdminEventModel.seq).limit(1)
            )
            last = max(kept[0][0] - 1 if kept else newest, newest - row_count_max)
            query = AdminEventModel.select(AdminEventModel.seq, AdminEventModel.hash).where(
                window, AdminEventModel.seq <= last
            )
            for seq, digest in tx.rows(query.order_by(AdminEventModel.seq.desc()).limit(1)):
                tx.set_place(ANCHOR_KEY, seq, digest)
                return int(tx.unlogged(AdminEventModel.delete().where(AdminEventModel.seq <= seq)))
            return 0
