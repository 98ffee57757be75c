"""Webhooks: everybody makes their own; administrators alone let one reach into private networks."""

import pytest

from spokes.errors import ForbiddenError, LimitError, NotFoundError, ValueRefusedError
from spokes.ids import ZERO_UID
from spokes.model import webhooks
from spokes.model.webhooks import KIND_COUNT_MAX, CreateWebhook, DeleteWebhook, EditWebhook
from tests.model.tenants import UNKNOWN

URL = "https://hooks.example.org/a"


def test_tenant_creates_edits_and_deletes_their_own(world):
    mara = world.mara
    webhook = world.do(mara.principal, CreateWebhook(URL, user_uid=mara.user.uid, kinds=["tunnel", "site", "tunnel"]))
    assert (webhook.active, webhook.kinds, len(webhook.secret)) == (True, ("site", "tunnel"), 64)
    assert world.do(mara.principal, EditWebhook(webhook.uid, active=False)).active is False
    world.do(mara.principal, DeleteWebhook(webhook.uid))
    assert [one.uid for one in world.store.webhooks.select(user_uid=mara.user.uid)] == [mara.webhook.uid]


@pytest.mark.parametrize("owner", ["another's", "the system's", "nobody's"])
def test_webhook_of_another_is_not_made(world, owner):
    uid = {"another's": world.lind.user.uid, "the system's": ZERO_UID, "nobody's": UNKNOWN}[owner]
    world.refuses(NotFoundError, world.mara.principal, CreateWebhook(URL, user_uid=uid))
    world.refuses(ForbiddenError, world.mara.client, CreateWebhook(URL, user_uid=uid))


@pytest.mark.parametrize("operation", [lambda uid: EditWebhook(uid, active=False), DeleteWebhook])
def test_webhook_of_another_is_not_there(world, operation):
    world.refuses(NotFoundError, world.mara.principal, operation(world.lind.webhook.uid))
    world.refuses(NotFoundError, world.admin, operation(UNKNOWN))
    world.do(world.admin, operation(world.lind.webhook.uid))


def test_tenant_does_not_let_one_inside_nor_move_one_that_was(world):
    mara = world.mara
    world.refuses(
        ForbiddenError, mara.principal, CreateWebhook(URL, user_uid=mara.user.uid, allow_private=True)
    )
    world.refuses(ForbiddenError, mara.principal, EditWebhook(mara.webhook.uid, allow_private=True))
    world.do(world.admin, EditWebhook(mara.webhook.uid, allow_private=True))
    world.refuses(ForbiddenError, mara.principal, EditWebhook(mara.webhook.uid, url="http://10.0.0.1/"))
    moved = world.do(mara.principal, EditWebhook(mara.webhook.uid, url=URL, allow_private=False))
    assert (moved.url, moved.allow_private) == (URL, False)


@pytest.mark.parametrize("value", [
    {"url": "ftp://example.org/"}, {"url": "https://"}, {"url": "https://user@example.org/"}, {"url": "https://a b/"},
    {"url": "https://example.org:0/"}, {"url": "https://example.org/" + "x" * 2048}, {"kinds": [""]},
    {"kinds": [f"k{n}" for n in range(KIND_COUNT_MAX + 1)]}, {"description": "a\nb"}, {"secret": "a\x00b"},
])  # fmt: skip
def test_bad_value_is_refused(world, value):
    world.refuses(ValueRefusedError, world.admin, CreateWebhook(**{"url": URL, **value}))
    world.refuses(ValueRefusedError, world.admin, EditWebhook(world.mara.webhook.uid, **value))


def test_owner_has_a_number_of_webhooks_at_most(world, monkeypatch):
    monkeypatch.setattr(webhooks, "WEBHOOK_COUNT_MAX", 1)
    world.refuses(LimitError, world.mara.principal, CreateWebhook(URL, user_uid=world.mara.user.uid))
