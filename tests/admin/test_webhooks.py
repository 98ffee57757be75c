from __future__ import annotations

import dataclasses

import pytest

from spokes.admin.context import Role
from spokes.ids import is_secret
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import NewDelivery
from tests.support.admin import ADMINISTRATOR, OWN
from tests.support.operations import do

URL = "https://hooks.example.org/spokes"
UNKNOWN = "f" * 32


def create(api, **properties):
    result = api.post(f"{OWN}/webhook/create", {"url": URL, **properties})
    assert result.status_code == 200, result.text
    return result.json


def test_webhook_life(api, store, control):
    made = create(api, description="chat", kinds=["tunnel.up", "tunnel.down"])
    webhook = made["webhook"]
    assert is_secret(made["secret"])
    assert (webhook["kinds"], webhook["allowPrivate"]) == (["tunnel.down", "tunnel.up"], False)
    assert api.get(f"{OWN}/webhook/list").json["webhooks"] == [webhook]
    assert made["secret"] not in api.get(f"{OWN}/webhook/list").text
    edited = api.post(f"{OWN}/webhook/edit", {"webhookID": webhook["id"], "active": False, "kinds": []}).json["webhook"]
    assert edited == {**webhook, "active": False, "kinds": [], "modified": edited["modified"]}
    assert api.get(f"{OWN}/webhook/get/{webhook['id']}").json["webhook"] == edited
    assert api.post(f"{OWN}/webhook/test", {"webhookID": webhook["id"]}).status_code == 200
    assert control.called("webhook_test") == [{"webhook_uid": webhook["id"]}]
    assert api.post(f"{OWN}/webhook/delete", {"webhookID": webhook["id"]}).status_code == 200
    assert api.get(f"{OWN}/webhook/get/{webhook['id']}").status_code == 404
    assert made["secret"] not in "".join(store.audit.export())


def test_webhook_test_server_gone_is_503(api, control):
    uid = create(api)["webhook"]["id"]
    control.gone = True
    result = api.post(f"{OWN}/webhook/test", {"webhookID": uid})
    assert (result.status_code, result.json["code"]) == (503, "SPK-NO-SERVER")


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://a/b", "javascript:alert(1)", "http://", "http://a b/", "http://[", "//a"]
)
def test_webhook_bad_url_is_400(api, url):
    assert api.post(f"{OWN}/webhook/create", {"url": url}).status_code == 400


def test_deliveries_are_listed_by_page_and_sent_again(api, store):
    uid = create(api)["webhook"]["id"]
    store.deliveries.queue([
        NewDelivery(webhook_uid=uid, kind="tunnel.up", subject="s", body=f'{{"n":{number}}}') for number in range(3)
    ])
    path = f"{OWN}/webhook/deliveries/{uid}"
    deliveries = api.get(path).json["deliveries"]
    assert [delivery["body"] for delivery in deliveries] == ['{"n":2}', '{"n":1}', '{"n":0}']
    assert api.get(path, query=f"limit=1&before={deliveries[0]['seq']}").json["deliveries"] == deliveries[1:2]
    store.deliveries.finish(deliveries[2]["id"], http_status=500, error="server error")
    failed = api.get(path).json["deliveries"][2]
    assert (failed["state"], failed["httpStatus"], failed["failure"]) == ("failed", 500, "server error")
    again = api.post(f"{OWN}/webhook/resend", {"deliveryID": failed["id"]}).json["delivery"]
    assert (again["state"], again["id"], again["body"]) == ("pending", failed["id"], failed["body"])


def test_webhook_basic_caller_has_only_their_own_and_no_private_networks(api, caller, store):
    own = do(store, CreateUser())
    theirs = create(api)["webhook"]["id"]
    store.deliveries.queue([NewDelivery(webhook_uid=theirs, kind="tunnel.up", body="{}")])
    delivery, = store.deliveries.select(theirs)
    caller.caller = dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=own.uid)
    mine = create(api)["webhook"]
    assert mine["userID"] == own.uid
    assert api.get(f"{OWN}/webhook/list").json["webhooks"] == [mine]
    assert api.post(f"{OWN}/webhook/create", {"url": URL, "allowPrivate": True}).status_code == 403
    assert api.post(f"{OWN}/webhook/edit", {"webhookID": mine["id"], "allowPrivate": True}).status_code == 403
    trusted = do(store, CreateWebhook(URL, user_uid=own.uid, allow_private=True)).uid
    assert api.post(f"{OWN}/webhook/edit", {"webhookID": trusted, "url": "http://10.0.0.1/"}).status_code == 403
    assert api.post(f"{OWN}/webhook/edit", {"webhookID": trusted, "url": URL, "active": False}).status_code == 200
    moved = {"webhookID": trusted, "url": "http://10.0.0.1/", "allowPrivate": False}
    assert not api.post(f"{OWN}/webhook/edit", moved).json["webhook"]["allowPrivate"]
    for uid in (theirs, UNKNOWN):
        assert api.get(f"{OWN}/webhook/get/{uid}").status_code == 404
        assert api.get(f"{OWN}/webhook/deliveries/{uid}").status_code == 404
        for call in ("edit", "delete", "test"):
            assert api.post(f"{OWN}/webhook/{call}", {"webhookID": uid}).status_code == 404
    refused = [api.post(f"{OWN}/webhook/resend", {"deliveryID": uid}) for uid in (delivery.uid, UNKNOWN)]
    assert refused[0].text == refused[1].text and refused[0].status_code == 404
