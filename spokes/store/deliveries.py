"""Deliveries of webhooks: a queue for each webhook, in order per subject, and their history.

Bound: PENDING_COUNT_MAX waiting for one webhook of the system, PENDING_OF_USER_COUNT_MAX for one of a user; the oldest
fail then. History goes by purge_deliveries, in shares of the webhooks' owners.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import peewee

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID, is_uid, new_uid
from spokes.shares import fair_share
from spokes.store.base import PURGE_COUNT_MAX, cleaned_text, purge_oldest
from spokes.store.changes import SEQ_MAX, ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.models import WebhookModel
from spokes.store.models_admin import DeliveryModel
from spokes.store.rows_admin import Delivery, DeliveryState, NewDelivery
from spokes.store.statement import EachOf, Statement

PENDING_COUNT_MAX = 10_000               # of one webhook of the system
PENDING_OF_USER_COUNT_MAX = 1_000        # of one webhook of a user
QUEUE_FULL = "queue full"

_PENDING = DeliveryModel.state == DeliveryState.PENDING.value

# Several of these run for each delivery.
_OWNERS = Statement(
    lambda uids: WebhookModel.select(WebhookModel.uid, WebhookModel.user_uid).where(WebhookModel.uid.in_(EachOf(uids)))
)
_FINISHED_OF_OWNERS = Statement(
    lambda: DeliveryModel.select(WebhookModel.user_uid, peewee.fn.COUNT(DeliveryModel.seq))
    .join(WebhookModel, on=(WebhookModel.uid == DeliveryModel.webhook_uid))
    .where(DeliveryModel.finished.is_null(False)).group_by(WebhookModel.user_uid)
)
_NEWEST = Statement(lambda: DeliveryModel.select(peewee.fn.MAX(DeliveryModel.seq)))
_QUEUE = Statement(
    lambda seq, uid, webhook_uid, kind, subject, body, now: DeliveryModel.insert(
        seq=seq, uid=uid, webhook_uid=webhook_uid, kind=kind, subject=subject, body=body, created=now,
        state=DeliveryState.PENDING.value, attempts=0, next_attempt=now, http_status=0, error="", finished=None,
    )
)
_OLDEST_KEPT = Statement(
    lambda webhook_uid, offset: DeliveryModel.select(DeliveryModel.seq)
    .where(DeliveryModel.webhook_uid == webhook_uid, _PENDING)
    .order_by(DeliveryModel.seq.desc()).limit(1).offset(offset)
)
_DUE_OF = Statement(
    lambda now, uids, limit: _heads(DeliveryModel)
    .where(DeliveryModel.next_attempt <= now, DeliveryModel.webhook_uid.in_(EachOf(uids)))
    .order_by(DeliveryModel.next_attempt, DeliveryModel.seq).limit(limit)
)
# The due one stands first, or not far behind it, in the index of what waits for a webhook.
_DUE_WEBHOOKS = Statement(
    lambda now: WebhookModel.select(WebhookModel.uid, WebhookModel.user_uid).where(
        WebhookModel.active,
        peewee.fn.EXISTS(DeliveryModel.select(peewee.SQL("1")).where(
            DeliveryModel.webhook_uid == WebhookModel.uid, _PENDING, DeliveryModel.next_attempt <= now
        )),
    )
)
_NEXT_AT = Statement(lambda: _heads(peewee.fn.MIN(DeliveryModel.next_attempt)))
_TRY_AGAIN = Statement(
    lambda uid, http_status, error, next_attempt: _attempted(uid, http_status, error, next_attempt=next_attempt)
)
_FINISH = Statement(
    lambda uid, http_status, error, state, now: _attempted(uid, http_status, error, state=state, finished=now)
)
_SEND_AGAIN = Statement(
    lambda uid, now: _update(uid, state=DeliveryState.PENDING.value, next_attempt=now, finished=None)
)
_NAMES = tuple(DeliveryModel._meta.sorted_field_names)


class Deliveries:
    def __init__(self, db: Database, changes: ChangeLog) -> None:
        self._db = db
        self._changes = changes

    def queue(self, deliveries: Iterable[NewDelivery]) -> None:
        """All in one transaction; those of a webhook that is gone are dropped."""
        new = list(deliveries)
        if not new:
            return
        with self._changes.transaction() as tx:  # its lock makes the numbers unique
            touched = sorted({delivery.webhook_uid for delivery in new if is_uid(delivery.webhook_uid)})
            known = dict(tx.rows(_OWNERS(json.dumps(touched))))
            ((newest,),) = tx.rows(_NEWEST())
            for seq, one in enumerate((one for one in new if one.webhook_uid in known), (newest or 0) + 1):
                tx.unlogged(_QUEUE(seq, new_uid(), one.webhook_uid, one.kind, one.subject, one.body, tx.now))
            for uid, owner_uid in known.items():
                self._fail_oldest(tx, uid, PENDING_COUNT_MAX if owner_uid == ZERO_UID else PENDING_OF_USER_COUNT_MAX)

    def due_webhooks(self, now: float) -> dict[str, str]:
        """{webhook: its owner} of active ones for which something is due, or waits behind what is not due yet."""
        return dict(self._db.rows(_DUE_WEBHOOKS(now)))

    def due_of(self, webhook_uids: Collection[str], now: float, limit: int) -> list[Delivery]:
        """What may be sent: of each webhook and subject only the oldest that waits. The longest due come first."""
        uids = json.dumps(list(filter(is_uid, webhook_uids)))
        return [_to_delivery(row) for row in self._db.rows(_DUE_OF(now, uids, limit))]

    def next_at(self) -> float | None:
        """When the next one is due (also if that is over); None: nothing waits."""
        ((when,),) = self._db.rows(_NEXT_AT())
        return None if when is None else float(when)

    def finish(
        self, uid: str, *, http_status: int = 0, error: str = "", next_attempt: float | None = None
    ) -> Delivery | None:
        """What an attempt came to: delivered (2xx and no `error`), to be tried again at `next_attempt`, or failed.

        None: it is gone, with its webhook.
        """
        error = cleaned_text(error)
        if next_attempt is not None:
            return self._changed_delivery(uid, _TRY_AGAIN, http_status, error, next_attempt)
        state = DeliveryState.DELIVERED if 200 <= http_status < 300 and not error else DeliveryState.FAILED
        return self._changed_delivery(uid, _FINISH, http_status, error, state.value, clock.wall_s())

    def heed_clock(self, now: float, waits_s: Sequence[float], *, jump_s: float = 0.0) -> int:
        """After the wall clock was set: no attempt waits longer than it may after those before it (`waits_s`, by their
        number), a first one not at all. `jump_s`: how far the clock went ahead; what waits goes with it. How many rows.
        """
        count = 0
        with self._changes.transaction() as tx:
            if jump_s > 0:
                tx.unlogged(DeliveryModel.update(next_attempt=DeliveryModel.next_attempt + jump_s).where(
                    _PENDING, DeliveryModel.attempts > 0
                ))
            for attempts, wait_s in enumerate((0.0, *waits_s)):
                after = DeliveryModel.attempts == attempts
                if attempts == len(waits_s):
                    after = DeliveryModel.attempts >= attempts
                count += tx.unlogged(DeliveryModel.update(next_attempt=now + wait_s).where(
                    _PENDING, after, DeliveryModel.next_attempt > now + wait_s
                ))
        return count

    def resend(self, uid: str) -> Delivery:
        """Let it be sent at once, with its old id and body, whatever came of it before."""
        if (delivery := self._changed_delivery(uid, _SEND_AGAIN, clock.wall_s())) is None:
            raise NotFoundError("unknown delivery")
        return delivery

    def get(self, uid: str) -> Delivery:
        if is_uid(uid):
            for row in self._db.rows(DeliveryModel.select().where(DeliveryModel.uid == uid)):
                return _to_delivery(row)
        raise NotFoundError("unknown delivery")

    def select(self, webhook_uid: str, *, before: int | None = None, limit: int = 100) -> list[Delivery]:
        """Newest first; `before`: the `seq` of the last one of the page before."""
        query = DeliveryModel.select().where(DeliveryModel.webhook_uid == (webhook_uid if is_uid(webhook_uid) else ""))
        if before is not None:
            query = query.where(DeliveryModel.seq < min(before, SEQ_MAX))
        query = query.order_by(DeliveryModel.seq.desc()).limit(max(0, limit))
        return [_to_delivery(row) for row in self._db.rows(query)]

    def count(self, webhook_uid: str) -> dict[DeliveryState, int]:
        """How many are in each state; every state is there."""
        query = (
            DeliveryModel.select(DeliveryModel.state, peewee.fn.COUNT(DeliveryModel.uid))
            .where(DeliveryModel.webhook_uid == (webhook_uid if is_uid(webhook_uid) else ""))
            .group_by(DeliveryModel.state)
        )
        counts = dict.fromkeys(DeliveryState, 0)
        counts.update({DeliveryState(state): count for state, count in self._db.rows(query)})
        return counts

    def purge(self, older_than: float, row_count_max: int) -> int:
        """Remove those that were finished before `older_than` (Unix seconds), and of what is more than `row_count_max`
        the oldest of the owners who have most; how many. Of more than PURGE_COUNT_MAX some, and the others at the next
        call.
        """
        removed = purge_oldest(self._db, DeliveryModel.finished, older_than, SEQ_MAX)
        return removed or self._purge_shares(row_count_max)

    # --- below -----------------------------------------------------------------------------------------------------

    def _changed_delivery(self, uid: str, statement: Statement, *values: Any) -> Delivery | None:
        if not is_uid(uid):
            return None
        with self._db.write() as db:     # not through alone(): an attempt must not be counted twice
            rows = statement(uid, *values).execute(db)
        return _to_delivery(rows[0]) if rows else None

    def _purge_shares(self, row_count_max: int) -> int:
        """An owner keeps what the others do not fill: one who has much pushes out nobody's history but their own."""
        counts: dict[str, int] = dict(self._db.rows(_FINISHED_OF_OWNERS()))
        share = fair_share(counts.values(), row_count_max)
        owner, count = max(counts.items(), key=lambda one: one[1], default=("", 0))
        if count <= share:
            return 0
        beyond = DeliveryModel.select(DeliveryModel.seq).join(
            WebhookModel, on=(WebhookModel.uid == DeliveryModel.webhook_uid)
        ).where(WebhookModel.user_uid == owner, DeliveryModel.finished.is_null(False)).order_by(
            DeliveryModel.finished, DeliveryModel.seq
        ).limit(min(count - share, PURGE_COUNT_MAX))
        return int(self._db.run(DeliveryModel.delete().where(DeliveryModel.seq.in_(beyond))))

    @staticmethod
    def _fail_oldest(tx: Writer, webhook_uid: str, count_max: int) -> None:
        for (seq,) in tx.rows(_OLDEST_KEPT(webhook_uid, count_max - 1)):
            tx.unlogged(DeliveryModel.update(
                state=DeliveryState.FAILED.value, error=QUEUE_FULL, finished=tx.now
            ).where(DeliveryModel.webhook_uid == webhook_uid, _PENDING, DeliveryModel.seq < seq))


def _heads(*columns: Any) -> peewee.ModelSelect[DeliveryModel]:
    """Of each active webhook and subject the oldest that waits; all of those without a subject."""
    older = DeliveryModel.alias("older")
    return (
        DeliveryModel.select(*columns)
        .join(WebhookModel, on=(WebhookModel.uid == DeliveryModel.webhook_uid)).switch(DeliveryModel)
        .where(
            _PENDING, WebhookModel.active,
            (DeliveryModel.subject == "") | ~peewee.fn.EXISTS(older.select(peewee.SQL("1")).where(
                older.webhook_uid == DeliveryModel.webhook_uid, older.subject == DeliveryModel.subject,
                older.state == DeliveryState.PENDING.value, older.seq < DeliveryModel.seq,
            )),
        )
    )


def _update(uid: peewee.Node, **columns: Any) -> peewee.ModelUpdate:
    return DeliveryModel.update(columns).where(DeliveryModel.uid == uid).returning(DeliveryModel)


def _attempted(uid: peewee.Node, http_status: peewee.Node, error: peewee.Node, **columns: Any) -> peewee.ModelUpdate:
    return _update(uid, attempts=DeliveryModel.attempts + 1, http_status=http_status, error=error, **columns)


def _to_delivery(row: Sequence[Any]) -> Delivery:
    columns = dict(zip(_NAMES, row, strict=True))
    return Delivery(**{**columns, "state": DeliveryState(columns["state"])})
