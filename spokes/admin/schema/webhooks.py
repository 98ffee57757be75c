"""Webhooks and what was sent to them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.admin.schema.events import Limit, Sequence
from spokes.ids import ZERO_UID
from spokes.store import Delivery as StoredDelivery
from spokes.store import Webhook as StoredWebhook
from spokes.wire.api_types import Count, Name, Text, Time, Uid, time_text

Url = Annotated[str, Meta(max_length=2048)]
Kinds = Annotated[tuple[Text, ...], Meta(max_length=64)]


class Webhook(Part):
    """Without its secret."""

    id: Uid
    created: Time
    modified: Time
    active: bool
    description: str
    url: str
    kinds: list[str]                     # empty: every kind
    user_uid: Uid = msgspec.field(name="userID")                    # zero: hears of everyone's tunnels
    allow_private: bool = msgspec.field(name="allowPrivate")


class CreateWebhookRequest(Request):
    url: Url
    description: Name = ""
    active: bool = True
    kinds: Kinds = ()
    secret: Text = ""                    # "": the server makes one
    user_uid: Uid = msgspec.field(name="userID", default=ZERO_UID)
    allow_private: bool = msgspec.field(name="allowPrivate", default=False)


class EditWebhookRequest(Request):
    """What is left out stays as it is."""

    webhook_uid: Uid = msgspec.field(name="webhookID")
    url: Url | UnsetType = UNSET
    description: Name | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    kinds: Kinds | UnsetType = UNSET
    secret: Annotated[str, Meta(min_length=16, max_length=255)] | UnsetType = UNSET
    allow_private: bool | UnsetType = msgspec.field(name="allowPrivate", default=UNSET)


class WebhookRequest(Request):
    webhook_uid: Uid = msgspec.field(name="webhookID")


class NewWebhookAnswer(Answer):
    webhook: Webhook
    secret: str                          # shown this once


class WebhookAnswer(Answer):
    webhook: Webhook


class WebhooksAnswer(Answer):
    webhooks: list[Webhook]


class Delivery(Part):
    seq: Sequence
    id: Uid
    webhook_uid: Uid = msgspec.field(name="webhookID")
    kind: str
    subject: str
    body: str                            # as it was sent
    created: Time
    state: Literal["pending", "delivered", "failed"]
    attempts: Count
    next_attempt: Time = msgspec.field(name="nextAttempt")
    http_status: Count = msgspec.field(name="httpStatus")           # of the latest attempt; 0: no answer
    failure: str                         # what went wrong with it
    finished: Time


class DeliveriesQuery(msgspec.Struct):
    before: Sequence | None = None       # the `seq` of the last delivery of the page before
    limit: Limit = 100


class DeliveryRequest(Request):
    delivery_uid: Uid = msgspec.field(name="deliveryID")


class DeliveryAnswer(Answer):
    delivery: Delivery


class DeliveriesAnswer(Answer):
    deliveries: list[Delivery]


def webhook_object(webhook: StoredWebhook) -> Webhook:
    return Webhook(
        id=webhook.uid, created=time_text(webhook.created), modified=time_text(webhook.modified), active=webhook.active,
        description=webhook.description, url=webhook.url, kinds=list(webhook.kinds), user_uid=webhook.user_uid,
        allow_private=webhook.allow_private,
    )


def delivery_object(delivery: StoredDelivery) -> Delivery:
    return Delivery(
        seq=delivery.seq, id=delivery.uid, webhook_uid=delivery.webhook_uid, kind=delivery.kind,
        subject=delivery.subject, body=delivery.body, created=time_text(delivery.created), state=delivery.state.value,
        attempts=delivery.attempts, next_attempt=time_text(delivery.next_attempt), http_status=delivery.http_status,
        failure=delivery.error, finished=time_text(delivery.finished),
    )
