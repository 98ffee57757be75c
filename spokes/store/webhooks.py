"""Webhooks: who is told of events."""

from __future__ import annotations

import peewee

from spokes.errors import NotFoundError
from spokes.ids import is_uid
from spokes.store.base import View
from spokes.store.db import Database
from spokes.store.logged import WEBHOOKS
from spokes.store.models import WebhookModel
from spokes.store.rows import Webhook
from spokes.store.statement import Statement

_ALL = WEBHOOKS.where(order_by=(WebhookModel.created, WebhookModel.uid))
_OF_USER = WEBHOOKS.where(WebhookModel.user_uid, order_by=(WebhookModel.created, WebhookModel.uid))
_COUNT_OF_USER = Statement(
    lambda uid: WebhookModel.select(peewee.fn.COUNT(WebhookModel.uid)).where(WebhookModel.user_uid == uid)
)


class Webhooks:
    def __init__(self, db: Database) -> None:
        self._db = db

    def get(self, uid: str, view: View | None = None) -> Webhook:
        if is_uid(uid):
            for row in (view or self._db).rows(WEBHOOKS.find(uid)):
                return WEBHOOKS.read(row)
        raise NotFoundError("unknown webhook")

    def select(self, *, user_uid: str | None = None) -> list[Webhook]:
        """Oldest first, inactive ones too; `user_uid` zero: the system's."""
        query = _ALL() if user_uid is None else _OF_USER(user_uid if is_uid(user_uid) else "")
        return [WEBHOOKS.read(row) for row in self._db.rows(query)]

    def count_of_user(self, view: View, user_uid: str) -> int:
        """Zero: the system's."""
        return int(view.rows(_COUNT_OF_USER(user_uid))[0][0])
