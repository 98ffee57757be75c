"""Webhooks: who is told of events."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from spokes.errors import NotFoundError, ValueRefusedError
from spokes.ids import ZERO_UID, is_uid, new_secret, new_uid
from spokes.store.base import Read, checked_text, is_printable
from spokes.store.changes import ChangeLog
from spokes.store.db import Database
from spokes.store.limits import check_room, find_user
from spokes.store.logged import WEBHOOKS
from spokes.store.models import WebhookModel
from spokes.store.rows import Webhook

URL_CHARS_MAX = 2_048
KIND_COUNT_MAX = 64
WEBHOOK_COUNT_MAX = 20                   # of one user, or of the system: each is looked at for each event

_ALL = WEBHOOKS.where(order_by=(WebhookModel.created, WebhookModel.uid))
_OF_USER = WEBHOOKS.where(WebhookModel.user_uid, order_by=(WebhookModel.created, WebhookModel.uid))


class WebhookProperties(TypedDict, total=False):
    """What create_webhook takes beside the address; see Webhook."""

    description: str
    secret: str
    kinds: Sequence[str]
    active: bool
    allow_private: bool


class WebhookChanges(WebhookProperties, total=False):
    """What edit_webhook takes."""

    url: str


class Webhooks:
    def __init__(self, db: Database, changes: ChangeLog) -> None:
        self._db = db
        self._changes = changes

    def create(self, url: str, *, user_uid: str = ZERO_UID, **properties: Unpack[WebhookProperties]) -> Webhook:
        """Active unless told otherwise; without a `secret` one is made."""
        given: WebhookChanges = {"url": url, **properties}
        checked = {"secret": new_secret(), "active": True, "description": "", "kinds": (), **_checked(given)}
        with self._changes.transaction() as tx:
            if user_uid != ZERO_UID:
                find_user(tx.read, user_uid)
            check_room(tx, _OF_USER(user_uid), WEBHOOK_COUNT_MAX, "webhook")
            return tx.insert(Webhook(uid=new_uid(), created=tx.now, modified=tx.now, user_uid=user_uid, **checked))

    def edit(self, uid: str, **changes: Unpack[WebhookChanges]) -> Webhook:
        """Change what is named."""
        checked = _checked(changes)
        with self._changes.transaction() as tx:
            webhook = find_webhook(tx.read, uid)
            changed = replace(webhook, **checked)
            return webhook if changed == webhook else tx.update(replace(changed, modified=tx.now))

    def delete(self, uid: str) -> None:
        """With its deliveries, sent or not."""
        with self._changes.transaction() as tx:
            tx.delete(find_webhook(tx.read, uid))

    def get(self, uid: str) -> Webhook:
        return find_webhook(self._db.read, uid)

    def select(self, *, user_uid: str | None = None) -> list[Webhook]:
        """Oldest first, inactive ones too; `user_uid` zero: the system's."""
        query = _ALL() if user_uid is None else _OF_USER(user_uid if is_uid(user_uid) else "")
        return [WEBHOOKS.read(row) for row in self._db.rows(query)]


def find_webhook(read: Read, uid: str) -> Webhook:
    if is_uid(uid):
        for row in read(WEBHOOKS.find(uid)):
            return WEBHOOKS.read(row)
    raise NotFoundError("unknown webhook")


def _checked(properties: WebhookChanges) -> dict[str, Any]:
    checked: dict[str, Any] = dict(properties)
    if unknown := checked.keys() - WebhookChanges.__annotations__.keys():
        raise TypeError(f"a webhook has no {', '.join(sorted(unknown))} to set")
    for name in ("description", "secret"):
        if name in checked:
            checked[name] = checked_text(checked[name], name)
    if "url" in checked:
        checked["url"] = _checked_url(checked["url"])
    if "kinds" in checked:
        kinds = tuple(sorted({checked_text(kind, "event kind") for kind in checked["kinds"]}))
        if len(kinds) > KIND_COUNT_MAX or "" in kinds:
            raise ValueRefusedError(f"a webhook names up to {KIND_COUNT_MAX} event kinds, none of them empty")
        checked["kinds"] = kinds
    return checked


def _checked_url(url: str) -> str:
    """Only its form: where it leads is looked at each time something is sent there."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and "@" not in parts.netloc
    except ValueError:
        fits = False
    if not fits or len(url) > URL_CHARS_MAX or not is_printable(url) or " " in url:
        raise ValueRefusedError("not a web address, or one with a user name", hint="use a form such as https://hooks.example.org/spokes")
    return url
