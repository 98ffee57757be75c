"""Webhooks: a basic caller's hear of their own tunnels only, and never reach into private networks."""

from __future__ import annotations

from msgspec import UNSET

from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.webhooks import (
    CreateWebhookRequest,
    DeliveriesAnswer,
    DeliveriesQuery,
    DeliveryAnswer,
    DeliveryRequest,
    EditWebhookRequest,
    NewWebhookAnswer,
    WebhookAnswer,
    WebhookRequest,
    WebhooksAnswer,
    delivery_object,
    webhook_object,
)
from spokes.admin.scope import changing, is_seen
from spokes.errors import ForbiddenError, NotFoundError
from spokes.ids import ZERO_UID
from spokes.store import Webhook as StoredWebhook
from spokes.store.authority import owner_of_webhook
from spokes.store.base import View
from spokes.store.webhooks import WebhookChanges, WebhookProperties, find_webhook


def list_all(admin: Admin, caller: Caller, body: None) -> WebhooksAnswer:
    """All webhooks; a basic caller's own."""
    webhooks = admin.store.webhooks.select(user_uid=None if caller.is_admin else caller.user_uid)
    return WebhooksAnswer(webhooks=[webhook_object(webhook) for webhook in webhooks])


def get(admin: Admin, caller: Caller, body: None, *, webhook_uid: str) -> WebhookAnswer:
    """One webhook."""
    return WebhookAnswer(webhook=webhook_object(_webhook(admin, caller, webhook_uid)))


def create(admin: Admin, caller: Caller, body: CreateWebhookRequest) -> NewWebhookAnswer:
    """Make a webhook; the secret that signs its deliveries is shown this once."""
    user_uid = body.user_uid
    if not caller.is_admin:
        if user_uid not in (ZERO_UID, caller.user_uid):
            raise NotFoundError("unknown user")
        user_uid = caller.user_uid
    _check_private(caller, body.allow_private)
    properties = WebhookProperties(
        description=body.description, active=body.active, kinds=body.kinds, allow_private=body.allow_private
    )
    if body.secret:
        properties["secret"] = body.secret
    with changing(admin, caller):
        webhook = admin.store.webhooks.create(body.url, user_uid=user_uid, **properties)
    admin.control.changed()
    return NewWebhookAnswer(webhook=webhook_object(webhook), secret=webhook.secret)


def edit(admin: Admin, caller: Caller, body: EditWebhookRequest) -> WebhookAnswer:
    """Change a webhook."""
    webhook = _webhook(admin, caller, body.webhook_uid)
    changes = WebhookChanges()
    if body.url is not UNSET:
        changes["url"] = body.url
    if body.description is not UNSET:
        changes["description"] = body.description
    if body.active is not UNSET:
        changes["active"] = body.active
    if body.kinds is not UNSET:
        changes["kinds"] = body.kinds
    if body.secret is not UNSET:
        changes["secret"] = body.secret
    if body.allow_private is not UNSET:
        changes["allow_private"] = body.allow_private

    def check(tx: View) -> None:
        present = find_webhook(tx.read, webhook.uid)
        caller.check_sees(present.user_uid, "webhook")
        # An administrator let this one URL reach inside, not whatever its user makes of it.
        moved = body.url is not UNSET and body.url != present.url
        still_private = present.allow_private and body.allow_private is not False
        _check_private(caller, body.allow_private is True or (moved and still_private))

    with changing(admin, caller, check):
        webhook = admin.store.webhooks.edit(webhook.uid, **changes)
    admin.control.changed()
    return WebhookAnswer(webhook=webhook_object(webhook))


def delete(admin: Admin, caller: Caller, body: WebhookRequest) -> Answer:
    """Delete a webhook and its deliveries, sent or not."""
    webhook = _webhook(admin, caller, body.webhook_uid)
    with changing(admin, caller, is_seen(caller, owner_of_webhook, webhook.uid, "webhook")):
        admin.store.webhooks.delete(webhook.uid)
    admin.control.changed()
    return Answer(message="webhook deleted")


def test(admin: Admin, caller: Caller, body: WebhookRequest) -> Answer:
    """Have the server send a test delivery."""
    webhook = _webhook(admin, caller, body.webhook_uid)
    admin.control.call("webhook_test", webhook_uid=webhook.uid)
    return Answer(message="test delivery queued")


def list_deliveries(
    admin: Admin, caller: Caller, body: None, *, webhook_uid: str, query: DeliveriesQuery
) -> DeliveriesAnswer:
    """What was sent to a webhook, newest first"""
    webhook = _webhook(admin, caller, webhook_uid)
    deliveries = admin.store.deliveries.select(webhook.uid, before=query.before, limit=query.limit)
    return DeliveriesAnswer(deliveries=[delivery_object(delivery) for delivery in deliveries])


def resend(admin: Admin, caller: Caller, body: DeliveryRequest) -> DeliveryAnswer:
    """Send a delivery once more, as it was."""
    delivery = admin.store.deliveries.get(body.delivery_uid)
    try:
        _webhook(admin, caller, delivery.webhook_uid)
    except NotFoundError:
        raise NotFoundError("unknown delivery") from None
    with changing(admin, caller, is_seen(caller, owner_of_webhook, delivery.webhook_uid, "delivery")):
        admin.store.audit.note("delivery.resend", "webhook", delivery.webhook_uid, {"delivery": delivery.uid})
        delivery = admin.store.deliveries.resend(delivery.uid)
    admin.control.changed()
    return DeliveryAnswer(delivery=delivery_object(delivery))


def _webhook(admin: Admin, caller: Caller, uid: str) -> StoredWebhook:
    webhook = admin.store.webhooks.get(uid)
    caller.check_sees(webhook.user_uid, "webhook")
    return webhook


def _check_private(caller: Caller, allow_private: bool) -> None:
    if allow_private and not caller.is_admin:
        raise ForbiddenError("only administrators let a webhook reach into private networks")
