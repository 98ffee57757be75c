import pytest

from spokes import clock
from spokes.errors import NotFoundError
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from spokes.store import DeliveryState, NewDelivery, deliveries
from spokes.store.deliveries import QUEUE_FULL
from tests.support.operations import do
from tests.support.stores import due_deliveries

PENDING, DELIVERED, FAILED = DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.FAILED
FAR = 4_000_000_000.0


@pytest.fixture
def time():
    manual = clock.ManualClock()
    with clock.replaced(manual):
        yield manual


@pytest.fixture
def webhook(store):
    return do(store, CreateWebhook("https://hooks.example.org"))


def queue(store, webhook, *bodies, subject=""):
    store.deliveries.queue(
        NewDelivery(webhook_uid=webhook.uid, kind="tunnel.up", subject=subject, body=body) for body in bodies
    )


def bodies(found):
    return [delivery.body for delivery in found]


def test_due_deliveries_in_order_per_subject(store, webhook, time):
    queue(store, webhook, "a1", "a2", subject="a")
    queue(store, webhook, "b1", subject="b")
    queue(store, webhook, "x", "y")
    assert bodies(due_deliveries(store, FAR)) == ["a1", "b1", "x", "y"]
    first = due_deliveries(store, FAR)[0]
    store.deliveries.finish(first.uid, error="refused", next_attempt=time.wall_s() + 60)
    assert bodies(due_deliveries(store, time.wall_s())) == ["b1", "x", "y"]     # a2 waits behind a1
    assert bodies(due_deliveries(store, time.wall_s() + 60)) == ["b1", "x", "y", "a1"]
    store.deliveries.finish(first.uid, http_status=204)
    assert "a2" in bodies(due_deliveries(store, time.wall_s()))


def test_due_deliveries_limit_and_webhooks_that_are_named(store, webhook):
    other = do(store, CreateWebhook("https://other.example.org"))
    queue(store, webhook, *(f"w{n}" for n in range(5)))
    queue(store, other, "o")
    assert bodies(due_deliveries(store, FAR, 2)) == ["w0", "w1"]
    assert bodies(store.deliveries.due_of([other.uid], FAR, 2)) == ["o"]


def test_due_deliveries_of_an_inactive_webhook_wait(store, webhook):
    queue(store, webhook, "a")
    do(store, EditWebhook(webhook.uid, active=False))
    assert due_deliveries(store, FAR) == []
    assert store.deliveries.next_at() is None
    do(store, EditWebhook(webhook.uid, active=True))
    assert bodies(due_deliveries(store, FAR)) == ["a"]


def test_next_delivery_at_is_of_what_may_be_sent(store, webhook, time):
    assert store.deliveries.next_at() is None
    queue(store, webhook, "a1", "a2", subject="a")
    assert store.deliveries.next_at() == time.wall_s()
    store.deliveries.finish(due_deliveries(store, FAR)[0].uid, next_attempt=time.wall_s() + 30)
    assert store.deliveries.next_at() == time.wall_s() + 30    # not a2, which waits behind a1


@pytest.mark.parametrize(("outcome", "state"), [
    ({"http_status": 200}, DELIVERED), ({"http_status": 299}, DELIVERED), ({"http_status": 302}, FAILED),
    ({"http_status": 500}, FAILED), ({}, FAILED), ({"http_status": 200, "error": "answer too long"}, FAILED),
    ({"http_status": 503, "next_attempt": FAR}, PENDING),
])
def test_finish_delivery_states(store, webhook, time, outcome, state):
    queue(store, webhook, "a")
    delivery = store.deliveries.finish(due_deliveries(store, FAR)[0].uid, **outcome)
    assert (delivery.state, delivery.attempts, delivery.http_status) == (state, 1, outcome.get("http_status", 0))
    assert delivery.finished == (None if state == PENDING else time.wall_s())
    assert store.deliveries.get(delivery.uid) == delivery
    assert store.deliveries.count(webhook.uid)[state] == 1


def test_finish_delivery_hostile_error_is_made_fit(store, webhook):
    queue(store, webhook, "a")
    delivery = store.deliveries.finish(due_deliveries(store, FAR)[0].uid, error="\x00\ud800<b>" + "x" * 999)
    assert delivery.error == ("\ufffd\ufffd<b>" + "x" * 999)[:255]


def test_resend_delivery_same_id_and_body_once_more(store, webhook):
    queue(store, webhook, "a")
    done = store.deliveries.finish(due_deliveries(store, FAR)[0].uid, http_status=200)
    again = store.deliveries.resend(done.uid)
    assert (again.uid, again.body, again.state, again.attempts, again.finished) == (done.uid, "a", PENDING, 1, None)
    assert due_deliveries(store, FAR) == [again]


@pytest.mark.parametrize("uid", ["f" * 32, "", "\x00", "\ud800"])
def test_delivery_calls_unknown_uid(store, webhook, uid):
    for call in (store.deliveries.resend, store.deliveries.get):
        with pytest.raises(NotFoundError):
            call(uid)
    assert store.deliveries.finish(uid, http_status=200) is None
    assert store.deliveries.select(uid) == []


def test_delete_webhook_takes_its_deliveries(store, webhook):
    queue(store, webhook, "a")
    delivery, = due_deliveries(store, FAR)
    do(store, DeleteWebhook(webhook.uid))
    assert store.deliveries.finish(delivery.uid, http_status=200) is None
    queue(store, webhook, "late")                            # an event that was on its way
    assert due_deliveries(store, FAR) == store.deliveries.select(webhook.uid) == []


def test_list_deliveries_pages_join_to_the_whole(store, webhook):
    queue(store, webhook, *"abcde")
    whole = store.deliveries.select(webhook.uid)
    assert bodies(whole) == list("edcba")
    page = store.deliveries.select(webhook.uid, limit=2)
    assert page + store.deliveries.select(webhook.uid, before=page[-1].seq) == whole
    assert store.deliveries.select(webhook.uid, before=10**30) == whole


def test_queue_deliveries_over_the_bound_fails_the_oldest(store, webhook, monkeypatch):
    monkeypatch.setattr(deliveries, "PENDING_COUNT_MAX", 3)
    other = do(store, CreateWebhook("https://other.example.org"))
    queue(store, other, "o")
    queue(store, webhook, *"abc")
    queue(store, webhook, *"de")
    assert bodies(due_deliveries(store, FAR)) == ["o", "c", "d", "e"]
    failed = [delivery for delivery in store.deliveries.select(webhook.uid) if delivery.state == FAILED]
    assert [(delivery.body, delivery.error) for delivery in failed] == [("b", QUEUE_FULL), ("a", QUEUE_FULL)]


def test_queue_deliveries_of_a_user_has_a_bound_of_its_own(store, monkeypatch):
    monkeypatch.setattr(deliveries, "PENDING_OF_USER_COUNT_MAX", 2)
    of_user = do(store, CreateWebhook("https://hooks.example.org", user_uid=do(store, CreateUser()).uid))
    of_system = do(store, CreateWebhook("https://hooks.example.org"))
    for webhook in (of_user, of_system):
        queue(store, webhook, *"abc")
    assert bodies(due_deliveries(store, FAR)) == ["b", "c", "a", "b", "c"]


def test_heed_clock_no_wait_is_longer_than_it_may_be(store, webhook, time):
    """The clock was set back by a day while some waited, for their first attempt too."""
    queue(store, webhook, "new", "once", "often")
    for name, attempts in (("once", 1), ("often", 4)):
        for _ in range(attempts):
            (one,) = (due for due in due_deliveries(store, FAR) if due.body == name)
            store.deliveries.finish(one.uid, error="refused", next_attempt=time.wall_s() + 5)
    time.set_wall(time.wall_s() - 86_400)
    now = time.wall_s()
    assert due_deliveries(store, now) == []
    assert store.deliveries.heed_clock(now, (12.0, 60.0)) == 3
    assert {one.body: one.next_attempt - now for one in due_deliveries(store, FAR)} == {
        "new": 0.0, "once": 12.0, "often": 60.0
    }
    assert store.deliveries.heed_clock(now, (12.0, 60.0)) == 0


def test_heed_clock_set_ahead_what_waits_goes_with_it(store, webhook, time):
    queue(store, webhook, "new", "once")
    once = due_deliveries(store, FAR)[1]
    store.deliveries.finish(once.uid, error="refused", next_attempt=time.wall_s() + 5)
    time.set_wall(time.wall_s() + 86_400)
    assert store.deliveries.heed_clock(time.wall_s(), (12.0,), jump_s=86_400.0) == 0
    assert bodies(due_deliveries(store, time.wall_s())) == ["new"]
    assert store.deliveries.next_at() <= time.wall_s()
    assert bodies(due_deliveries(store, time.wall_s() + 5)) == ["new", "once"]


def test_purge_deliveries_only_what_is_over(store, webhook, time):
    queue(store, webhook, "a", "b")
    store.deliveries.finish(due_deliveries(store, FAR)[0].uid, http_status=200)
    assert store.deliveries.purge(time.wall_s(), 100) == 0
    assert store.deliveries.purge(time.wall_s() + 1, 100) == 1
    assert bodies(store.deliveries.select(webhook.uid)) == ["b"]


def test_purge_deliveries_of_one_owner_push_out_nobody_elses(store, webhook, time, monkeypatch):
    """However many one has, and although those of the others are older."""
    monkeypatch.setattr(deliveries, "PURGE_COUNT_MAX", 4)
    quiet, loud = do(store, CreateUser()), do(store, CreateUser())
    hooks = {name: do(store, CreateWebhook(f"https://{name}.example.org", user_uid=user.uid))
             for name, user in (("quiet", quiet), ("loud", loud), ("loud2", loud))}
    hooks["system"] = webhook
    for name, count in (("quiet", 2), ("system", 3), ("loud", 9), ("loud2", 9)):
        queue(store, hooks[name], *(f"{name} {number}" for number in range(count)))
        while due := due_deliveries(store, FAR):
            for one in due:
                time.advance(1)
                store.deliveries.finish(one.uid, http_status=500, error="refused")
    removed = []
    while count := store.deliveries.purge(0, 12):
        removed.append(count)
    assert removed == [4, 4, 3]
    left = {name: sorted(bodies(store.deliveries.select(hook.uid))) for name, hook in hooks.items()}
    assert left == {
        "quiet": ["quiet 0", "quiet 1"],
        "system": ["system 0", "system 1", "system 2"],
        "loud": [],
        "loud2": [f"loud2 {number}" for number in range(2, 9)],      # the newest of all that is theirs
    }


def test_purge_deliveries_beyond_a_count_keeps_the_newest(store, webhook, time):
    queue(store, webhook, *"abcd")
    for due in due_deliveries(store, FAR)[:3]:
        time.advance(1)
        store.deliveries.finish(due.uid, http_status=200)
    assert store.deliveries.purge(0, 3) == 0
    assert store.deliveries.purge(0, 1) == 2
    assert sorted(bodies(store.deliveries.select(webhook.uid))) == ["c", "d"]
