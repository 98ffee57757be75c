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
from spokes.admin.scope import changing
from spokes.errors import NotFoundError
from spokes.ids import ZERO_UID
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from spokes.store import Webhook as StoredWebhook
from spokes.store.base import View
from spokes.store.principal import Check


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
    webhook = admin.perform(caller, CreateWebhook(
        body.url, user_uid=user_uid, description=body.description, active=body.active, kinds=body.kinds,
        allow_private=body.allow_private, secret=body.secret or UNSET,
    ))
    admin.control.changed()
    return NewWebhookAnswer(webhook=webhook_object(webhook), secret=webhook.secret)


def edit(admin: Admin, caller: Caller, body: EditWebhookRequest) -> WebhookAnswer:
    """Change a webhook."""
    webhook = _webhook(admin, caller, body.webhook_uid)
    webhook = admin.perform(caller, EditWebhook(
        webhook.uid, url=body.url, description=body.description, active=body.active, kinds=body.kinds,
        secret=body.secret, allow_private=body.allow_private,
    ))
    admin.control.changed()
    return WebhookAnswer(webhook=webhook_object(webhook))


def delete(admin: Admin, caller: Caller, body: WebhookRequest) -> Answer:
    """Delete a webhook and its deliveries, sent or not."""
    webhook = _webhook(admin, caller, body.webhook_uid)
    admin.perform(caller, DeleteWebhook(webhook.uid))
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
    with changing(admin, caller, _is_seen(admin, caller, delivery.webhook_uid, "delivery")):
        admin.store.audit.note("delivery.resend", "webhook", delivery.webhook_uid, {"delivery": delivery.uid})
        delivery = admin.store.deliveries.resend(delivery.uid)
    admin.control.changed()
    return DeliveryAnswer(delivery=delivery_object(delivery))


def _is_seen(admin: Admin, caller: Caller, webhook_uid: str, what: str) -> Check:
    """The webhook exists for the caller."""
    def check(tx: View) -> None:
        caller.check_sees(admin.store.webhooks.get(webhook_uid, tx).user_uid, what)

    return check


def _webhook(admin: Admin, caller: Caller, uid: str) -> StoredWebhook:
    webhook = admin.store.webhooks.get(uid)
    caller.check_sees(webhook.user_uid, "webhook")
    return webhook

