import pytest

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.ids import ZERO_UID, is_secret, new_uid
from spokes.store import webhooks

URL = "https://hooks.example.org/spokes?x=1"


def test_create_webhook_bare_has_a_secret_of_its_own(store):
    webhook = store.create_webhook(URL)
    assert is_secret(webhook.secret)
    assert webhook.secret not in repr(webhook)
    assert (webhook.active, webhook.kinds, webhook.user_uid, webhook.allow_private) == (True, (), ZERO_UID, False)
    assert store.get_webhook(webhook.uid) == webhook
    assert store.create_webhook(URL).secret != webhook.secret


def test_edit_webhook_changes_what_is_named_only(store):
    webhook = store.create_webhook(URL, description="a", kinds=["tunnel.up"], secret="hush")
    edited = store.edit_webhook(webhook.uid, url="http://b.example.org", kinds=["b", "a", "b"], active=False)
    assert (edited.description, edited.secret, edited.kinds) == ("a", "hush", ("a", "b"))
    before = store.position()
    assert store.edit_webhook(webhook.uid, active=False) == edited
    assert store.position() == before
    with pytest.raises(TypeError):
        store.edit_webhook(webhook.uid, user_uid="x")


@pytest.mark.parametrize("url", [
    "", "hooks.example.org", "ftp://a.example", "https://", "https://a b/", "https://a\n/", "https://a/\x00",
    "javascript:alert(1)", "file:///etc/passwd", "https://[::1", "https://a:99999/", "https://a:0/",
    "https://a/" + "x" * 2048, "https://\ud800/",
])
def test_create_webhook_unfit_address_refused(store, url):
    with pytest.raises(ValueRefusedError):
        store.create_webhook(url)
    assert store.list_webhooks() == []


@pytest.mark.parametrize("properties", [
    {"description": "a\nb"}, {"secret": "\x00"}, {"kinds": ["\ud800"]}, {"kinds": [""]},
    {"kinds": [f"k{n}" for n in range(65)]},
])
def test_create_webhook_unfit_text_refused(store, properties):
    with pytest.raises(ValueRefusedError):
        store.create_webhook(URL, **properties)


@pytest.mark.parametrize("text", ["'; DROP TABLE webhook; --", "<b>", "%s {} ?", "\U0001f680"])
def test_create_webhook_hostile_text_comes_back_unchanged(store, text):
    webhook = store.create_webhook(URL, description=text, kinds=[text], secret=text)
    assert store.list_webhooks() == [webhook]
    assert (webhook.description, webhook.kinds, webhook.secret) == (text, (text,), text)


def test_list_webhooks_by_owner(store):
    user = store.create_user()
    system, own = store.create_webhook(URL), store.create_webhook(URL, user_uid=user.uid)
    assert store.list_webhooks(user_uid=user.uid) == [own]
    assert store.list_webhooks(user_uid=ZERO_UID) == [system]
    assert store.list_webhooks(user_uid="\x00") == []
    with pytest.raises(NotFoundError):
        store.create_webhook(URL, user_uid=new_uid())


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800"])
def test_webhook_calls_unknown_uid_not_found(store, uid):
    for call in (
        lambda: store.get_webhook(uid), lambda: store.edit_webhook(uid, active=False), lambda: store.delete_webhook(uid)
    ):
        with pytest.raises(NotFoundError):
            call()


def test_create_webhook_beyond_the_number_of_an_owner_refused(store, monkeypatch):
    monkeypatch.setattr(webhooks, "WEBHOOK_COUNT_MAX", 2)
    user = store.create_user()
    made = [store.create_webhook("https://hooks.example.org", user_uid=user.uid) for _ in range(2)]
    with pytest.raises(LimitError):
        store.create_webhook("https://hooks.example.org", user_uid=user.uid)
    store.create_webhook("https://hooks.example.org")
    store.delete_webhook(made[0].uid)
    store.create_webhook("https://hooks.example.org", user_uid=user.uid)
