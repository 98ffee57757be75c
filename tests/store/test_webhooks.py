import pytest

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, new_uid
from spokes.model import webhooks
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from tests.support.operations import do

URL = "https://hooks.example.org/spokes?x=1"


def test_create_webhook_bare_has_a_secret_of_its_own(store):
    webhook = do(store, CreateWebhook(URL))
    assert is_secret(webhook.secret)
    assert webhook.secret not in repr(webhook)
    assert (webhook.active, webhook.kinds, webhook.user_uid, webhook.allow_private) == (True, (), ZERO_UID, False)
    assert store.webhooks.get(webhook.uid) == webhook
    assert do(store, CreateWebhook(URL)).secret != webhook.secret


def test_edit_webhook_changes_what_is_named_only(store):
    webhook = do(store, CreateWebhook(URL, description="a", kinds=["tunnel.up"], secret="hush"))
    edited = do(store, EditWebhook(webhook.uid, url="http://b.example.org", kinds=["b", "a", "b"], active=False))
    assert (edited.description, edited.secret, edited.kinds) == ("a", "hush", ("a", "b"))
    before = store.changes.position()
    assert do(store, EditWebhook(webhook.uid, active=False)) == edited
    assert store.changes.position() == before
    with pytest.raises(TypeError):
        do(store, EditWebhook(webhook.uid, user_uid="x"))


@pytest.mark.parametrize("url", [
    "", "hooks.example.org", "ftp://a.example", "https://", "https://a b/", "https://a\n/", "https://a/\x00",
    "javascript:alert(1)", "file:///etc/passwd", "https://[::1", "https://a:99999/", "https://a:0/",
    "https://a/" + "x" * 2048, "https://\ud800/",
])
def test_create_webhook_unfit_address_refused(store, url):
    with pytest.raises(ValueRefusedError):
        do(store, CreateWebhook(url))
    assert store.webhooks.select() == []


@pytest.mark.parametrize("properties", [
    {"description": "a\nb"}, {"secret": "\x00"}, {"kinds": ["\ud800"]}, {"kinds": [""]},
    {"kinds": [f"k{n}" for n in range(65)]},
])
def test_create_webhook_unfit_text_refused(store, properties):
    with pytest.raises(ValueRefusedError):
        do(store, CreateWebhook(URL, **properties))


@pytest.mark.parametrize("text", ["'; DROP TABLE webhook; --", "<b>", "%s {} ?", "\U0001f680"])
def test_create_webhook_hostile_text_comes_back_unchanged(store, text):
    webhook = do(store, CreateWebhook(URL, description=text, kinds=[text], secret=text))
    assert store.webhooks.select() == [webhook]
    assert (webhook.description, webhook.kinds, webhook.secret) == (text, (text,), text)


def test_list_webhooks_by_owner(store):
    user = do(store, CreateUser())
    system, own = do(store, CreateWebhook(URL)), do(store, CreateWebhook(URL, user_uid=user.uid))
    assert store.webhooks.select(user_uid=user.uid) == [own]
    assert store.webhooks.select(user_uid=ZERO_UID) == [system]
    assert store.webhooks.select(user_uid="\x00") == []
    with pytest.raises(NotFoundError):
        do(store, CreateWebhook(URL, user_uid=new_uid()))


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800"])
def test_webhook_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.webhooks.get(uid), lambda: do(store, EditWebhook(uid, active=False)),
        lambda: do(store, DeleteWebhook(uid)),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_create_webhook_beyond_the_number_of_an_owner_refused(store, monkeypatch):
    monkeypatch.setattr(webhooks, "WEBHOOK_COUNT_MAX", 2)
    user = do(store, CreateUser())
    made = [do(store, CreateWebhook("https://hooks.example.org", user_uid=user.uid)) for _ in range(2)]
    with pytest.raises(LimitError):
        do(store, CreateWebhook("https://hooks.example.org", user_uid=user.uid))
    do(store, CreateWebhook("https://hooks.example.org"))
    do(store, DeleteWebhook(made[0].uid))
    do(store, CreateWebhook("https://hooks.example.org", user_uid=user.uid))
