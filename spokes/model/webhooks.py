"""Webhooks: operations that create, edit and delete them. Only administrators let one reach into private networks."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET, UnsetType

from spokes.errors import ForbiddenError, ValueRefusedError
from spokes.ids import ZERO_UID, new_secret, new_uid
from spokes.model.limits import check_room
from spokes.model.operation import Operation, Work
from spokes.store import Webhook
from spokes.store.base import checked_text, is_printable
from spokes.store.changes import Writer

URL_CHARS_MAX = 2_048
KIND_COUNT_MAX = 64
WEBHOOK_COUNT_MAX = 20                   # of one user, or of the system: each is looked at for each event


class WebhookFields(Operation[Webhook], frozen=True, kw_only=True):
    """The members of a webhook that may be set beside its address; UNSET leaves one as it is."""

    description: str | UnsetType = UNSET
    secret: str | UnsetType = UNSET
    kinds: Sequence[str] | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    allow_private: bool | UnsetType = UNSET


class CreateWebhook(WebhookFields, frozen=True, tag="webhook.create"):
    """Creates a webhook, active by default; without a secret one is generated."""

    url: str
    user_uid: str = ZERO_UID

    def apply(self, work: Work) -> Webhook:
        checked = {"secret": new_secret(), "active": True, "description": "", "kinds": (), **_checked(self)}
        store = work.store
        work.check_sees(self.user_uid, "user")
        _check_private(work, self.allow_private is True)
        with work.transaction() as tx:
            if self.user_uid != ZERO_UID:
                store.users.get(self.user_uid, tx)
            check_room(store.webhooks.count_of_user(tx, self.user_uid), WEBHOOK_COUNT_MAX, "webhook")
            return tx.insert(Webhook(
                uid=new_uid(), created=tx.now, modified=tx.now, user_uid=self.user_uid, **checked
            ))


class EditWebhook(WebhookFields, frozen=True, tag="webhook.edit"):
    """Changes the members named."""

    uid: str
    url: str | UnsetType = UNSET

    def apply(self, work: Work) -> Webhook:
        checked = _checked(self)
        with work.transaction() as tx:
            webhook = _webhook(work, tx, self.uid)
            # An administrator let this one URL reach inside, not whatever its user makes of it.
            moved = self.url is not UNSET and self.url != webhook.url
            still_private = webhook.allow_private and self.allow_private is not False
            _check_private(work, self.allow_private is True or (moved and still_private))
            changed = replace(webhook, **checked)
            return webhook if changed == webhook else tx.update(replace(changed, modified=tx.now))


class DeleteWebhook(Operation[None], frozen=True, tag="webhook.delete"):
    """Deletes a webhook with its deliveries, sent or not."""

    uid: str

    def apply(self, work: Work) -> None:
        with work.transaction() as tx:
            tx.delete(_webhook(work, tx, self.uid))


def _webhook(work: Work, tx: Writer, uid: str) -> Webhook:
    webhook = work.store.webhooks.get(uid, tx)
    work.check_sees(webhook.user_uid, "webhook")
    return webhook


def _check_private(work: Work, allow_private: bool) -> None:
    if allow_private and not work.principal.is_admin:
        raise ForbiddenError("only administrators let a webhook reach into private networks")


def _checked(fields: CreateWebhook | EditWebhook) -> dict[str, Any]:
    """Returns the members named, checked and as they are stored."""
    checked: dict[str, Any] = {
        name: value for name in ("url", *WebhookFields.__struct_fields__)
        if (value := getattr(fields, name)) is not UNSET
    }
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
    """Checks the form alone: the address that a URL leads to is checked at each delivery."""
    try:
        parts = urllib.parse.urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and "@" not in parts.netloc
    except ValueError:
        fits = False
    if not fits or len(url) > URL_CHARS_MAX or not is_printable(url) or " " in url:
        raise ValueRefusedError("not a web address, or one with a user name", hint="use a form such as https://hooks.example.org/spokes")
    return url
