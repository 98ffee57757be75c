"""Webhooks end to end on the engine's stand-in: what happens, what is queued, what arrives, and what goes wrong."""

import base64
import hashlib
import hmac
import json

import pytest

from spokes import clock
from spokes.errors import SpokesError
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel, DeleteTunnel, EditTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook, DeleteWebhook, EditWebhook
from spokes.server.notify.webhooks import (
    JITTER,
    REQUEST_COUNT_MAX,
    REQUEST_COUNT_PER_WEBHOOK_MAX,
    WAITS_S,
    WebhookDispatcher,
)
from spokes.server.process.app import Server
from spokes.store import DeliveryState, NewDelivery, Severity
from spokes.wire import messages as m
from spokes.wire.rules import Port, Site
from tests.server.conftest import DOMAIN
from tests.server.sessions.test_sessions import hears, log_in, registered  # noqa: F401  (a fixture)
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.operations import do
from tests.support.webhook_receiver import webhook_receiver


@pytest.fixture
async def receiver():
    async with webhook_receiver() as receiver:
        yield receiver


async def hook(server, store, receiver, kinds=(), **properties):
    made = do(store, CreateWebhook(receiver.url, kinds=kinds, allow_private=True, **properties))
    await server.follower.catch_up()
    return made


def bodies(receiver):
    return [json.loads(post.body) for post in receiver.posts]


async def test_webhook_tells_of_a_committed_change_without_its_secrets(server, store, receiver):
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    webhook = await hook(server, store, receiver, kinds=("token",), secret=secret)
    token = do(store, CreateToken("branch"))
    server.follower.wake()
    await eventually(lambda: receiver.posts)
    (got,) = receiver.posts
    body = json.loads(got.body)
    assert (body["kind"], body["object"]["uid"]) == ("token.created", token.uid)
    assert body["object"]["description"] == "branch"
    assert token.value not in got.body.decode()
    assert body["object"]["value"] == "…"
    text = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    signature = base64.b64encode(hmac.digest(b"k" * 24, text, hashlib.sha256)).decode()
    assert got.headers["webhook-signature"] == f"v1,{signature}"
    assert got.headers["x-spokes-delivery"] == got.headers["webhook-id"]
    await eventually(lambda: store.deliveries.select(webhook.uid)[0].state is DeliveryState.DELIVERED)


async def test_webhook_hears_only_the_kinds_it_wants_and_only_of_its_user(server, store, receiver):
    mine, other = do(store, CreateUser()), do(store, CreateUser())
    await hook(server, store, receiver, kinds=("tunnel",), user_uid=mine.uid)
    do(store, CreateTunnel(name="not mine", domain=DOMAIN, user_uid=other.uid))
    do(store, CreateTunnel(name="nobody's", domain=DOMAIN))
    do(store, CreateToken("another kind"))
    tunnel, _ = do(store, CreateTunnel(name="mine", domain=DOMAIN, user_uid=mine.uid))
    do(store, EditTunnel(tunnel.uid, name="still mine"))
    do(store, DeleteTunnel(tunnel.uid))
    await server.follower.catch_up()
    await eventually(lambda: len(receiver.posts) == 3)
    seen = sorted((body["kind"], body["object"]["name"]) for body in bodies(receiver))
    assert seen == [("tunnel.changed", "still mine"), ("tunnel.created", "mine"), ("tunnel.deleted", "still mine")]


async def test_webhook_of_a_user_hears_what_of_theirs_is_deleted(server, store, receiver):
    mine, other = do(store, CreateUser()), do(store, CreateUser())
    await hook(server, store, receiver, kinds=("site.deleted", "port.deleted", "portmap.deleted"), user_uid=mine.uid)
    for owner in (mine, other):
        first, second = (f"{letter}{owner.uid[:6]}.example.org" for letter in "ab")
        tunnel, _ = do(store, CreateTunnel(name="desk", domain=DOMAIN, user_uid=owner.uid))
        do(store, PutSites(tunnel.uid, [{"domain": first}, {"domain": second}]))
        port = do(store, AllocatePort(tunnel.uid, 22_000, 22_999))
        do(store, RemoveSites(tunnel.uid, [first]))
        if owner is mine:
            kept = port
        await server.follower.catch_up()
        do(store, DeleteTunnel(tunnel.uid))  # with what it still has; by then nobody owns it as the routes see it
        await server.follower.catch_up()
    await eventually(lambda: len(receiver.posts) == 3)
    told = sorted((body["kind"], body["object"].get("domain") or body["object"]["port"]) for body in bodies(receiver))
    assert told == [
        ("port.deleted", kept),
        ("site.deleted", f"a{mine.uid[:6]}.example.org"),
        ("site.deleted", f"b{mine.uid[:6]}.example.org"),
    ]


async def test_webhook_service_up_and_down_has_the_body_of_the_contract(
    engine, server, store, receiver, registered  # noqa: F811
):
    await hook(server, store, receiver, kinds=("service",))
    tunnel, key = registered
    port = do(store, AllocatePort(tunnel.uid, server.config.tcp_ports.begin, server.config.tcp_ports.end))
    await server.follower.catch_up()
    peer, _ = await log_in(engine, key)
    peer.say(
        m.Services(
            https=(Site(domain="shop.example.org", destination="127.0.0.1", port=80, secure=True),),
            ports=(Port(port=port, destination="127.0.0.1", dst_port=22),),
        )
    )
    await hears(peer, m.Accepted)
    await eventually(lambda: len(receiver.posts) == 2)
    by_kind = {("http" if "http" in body else "port"): body for body in bodies(receiver)}
    up = by_kind["http"]
    assert set(up) == {"tunnel", "http", "available", "timestamp"}
    assert set(by_kind["port"]) == {"tunnel", "port", "available", "timestamp"}
    assert set(up["tunnel"]) == {
        "id", "userID", "created", "lastActive", "state", "uptime", "bandwidth", "name", "hostname", "address",
        "version", "os", "arch",
    }  # fmt: skip
    assert (up["tunnel"]["id"], up["tunnel"]["state"], up["available"]) == (tunnel.uid, 2, True)
    assert up["http"] == {
        "id": store.sites.select(tunnel.uid)[0].uid, "userID": "0" * 32, "tunID": tunnel.uid, "active": True,
        "available": True, "secure": True, "domainName": "shop.example.org", "bandwidth": {"daily": 0, "monthly": 0},
    }  # fmt: skip
    assert by_kind["port"]["port"]["port"] == port
    assert up["timestamp"].endswith("Z")
    peer.hang_up()
    await eventually(lambda: len(receiver.posts) == 4)
    down = bodies(receiver)[2]
    assert (down["available"], down["tunnel"]["state"], down["tunnel"]["uptime"]) == (False, 3, 0)


async def test_webhook_rule_removed_is_down_and_the_others_stay(engine, server, store, receiver, registered):  # noqa: F811
    await hook(server, store, receiver, kinds=("service.down",))
    peer, _ = await log_in(engine, registered[1])
    sites = tuple(Site(domain=f"{name}.example.org", port=80) for name in "ab")
    peer.say(m.Services(https=sites))
    await hears(peer, m.Accepted)
    peer.say(m.Services(https=sites[:1]))
    await hears(peer, m.Accepted, 2)
    do(store, CreateToken("wakes"))
    await server.follower.catch_up()
    await server.notifications.events.catch_up()
    assert receiver.posts == []  # the rule is gone with its service: site.deleted tells that


async def test_webhook_changes_made_while_no_server_ran_are_told(config, server, store, receiver):
    await hook(server, store, receiver, kinds=("token",))
    await server.notifications.events.catch_up()
    url = config.store_url
    await server.stop()
    from spokes.store import Store

    with Store.open(url) as offline:
        token = do(offline, CreateToken("offline"))
    again = Server(config, make_engine=FakeEngine)
    await again.start()
    try:
        await eventually(lambda: receiver.posts)
        assert bodies(receiver)[0]["object"]["uid"] == token.uid
    finally:
        again.force_stop()
        await again.stop()


async def test_webhook_alert_is_told_raised_and_resolved(server, store, receiver):
    await hook(server, store, receiver, kinds=("alert",))
    server.notifications.alerts.raise_("disk", "/data", Severity.WARNING, "3% of the disk are free")
    await eventually(lambda: len(receiver.posts) == 1)
    server.notifications.alerts.settle("disk", "/data")
    await eventually(lambda: len(receiver.posts) == 2)
    assert [body["kind"] for body in bodies(receiver)] == ["alert.raised", "alert.resolved"]
    assert bodies(receiver)[0]["object"]["text"] == "3% of the disk are free"


async def test_webhook_test_arrives_whatever_is_wanted(server, store, receiver):
    webhook = await hook(server, store, receiver, kinds=("none",))
    await server._operations(server._engine).by_name()["webhook_test"]({"webhook_uid": webhook.uid})
    await eventually(lambda: receiver.posts)
    assert bodies(receiver)[0]["kind"] == "test"
    for args in ({}, {"webhook_uid": 1}, {"webhook_uid": "f" * 32}):
        with pytest.raises(SpokesError):
            await server._operations(server._engine).by_name()["webhook_test"](args)


# the dispatcher


@pytest.fixture
async def impatient(server):
    """The server's dispatcher, trying again after a moment and four times in all."""
    dispatcher = server.notifications.dispatcher
    dispatcher._waits_s = (0.01, 0.01, 0.01)
    return dispatcher


def queue(store, webhook, count=1, subject=""):
    store.deliveries.queue([
        NewDelivery(webhook_uid=webhook.uid, kind="test", subject=subject, body=json.dumps({"n": number}))
        for number in range(count)
    ])


async def test_delivery_refused_is_tried_again_then_fails_and_raises_an_alert(server, store, receiver, impatient):
    webhook = await hook(server, store, receiver, kinds=("none",))
    receiver.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    queue(store, webhook)
    impatient.wake()
    await eventually(lambda: store.deliveries.select(webhook.uid)[0].state is DeliveryState.FAILED)
    (failed,) = store.deliveries.select(webhook.uid)
    assert (failed.attempts, failed.http_status, failed.error) == (4, 500, "answered 500")
    assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
    await eventually(lambda: [alert.subject for alert in store.alerts.select(open_only=True)] == [webhook.uid])
    receiver.answer = b"HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n"
    store.deliveries.resend(failed.uid)
    impatient.wake()
    await eventually(lambda: store.deliveries.select(webhook.uid)[0].state is DeliveryState.DELIVERED)
    await eventually(lambda: store.alerts.select(open_only=True) == [])


@pytest.mark.parametrize("by_s", [-86_400.0, 86_400.0])
async def test_clock_set_by_a_day_neither_stops_nor_hurries_deliveries(server, store, receiver, by_s):
    dispatcher = server.notifications.dispatcher
    webhook = await hook(server, store, receiver, kinds=("none",))
    receiver.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def waits_s():
        return sorted(one.next_attempt - clock.wall_s() for one in store.deliveries.select(webhook.uid))

    now = clock.ManualClock(wall_s=clock.wall_s())
    with clock.replaced(now):
        dispatcher._ahead_s = now.wall_s() - now.monotonic_s()
        queue(store, webhook, 3)
        dispatcher.wake()
        await eventually(lambda: [one.attempts for one in store.deliveries.select(webhook.uid)] == [1, 1, 1])
        await eventually(lambda: not dispatcher.request_count)
        now.set_wall(now.wall_s() + by_s)
        dispatcher.wake()
        await eventually(lambda: 0 < waits_s()[0] <= waits_s()[-1] <= WAITS_S[0] * (1 + JITTER))
        assert len(receiver.posts) == 3
        now.advance(WAITS_S[0] * (1 + JITTER))
        dispatcher.wake()
        await eventually(lambda: [one.attempts for one in store.deliveries.select(webhook.uid)] == [2, 2, 2])


async def test_clock_set_back_while_no_server_ran_holds_up_no_delivery(config, server, store, receiver):
    webhook = await hook(server, store, receiver, kinds=("none",))
    with clock.replaced(clock.ManualClock(wall_s=clock.wall_s() + 86_400)):
        queue(store, webhook)
    server.force_stop()
    await server.stop()
    again = Server(config, make_engine=FakeEngine)
    await again.start()
    try:
        await eventually(lambda: len(receiver.posts) == 1)
    finally:
        again.force_stop()
        await again.stop()


@pytest.mark.parametrize("end", ["delete", "switch off"])
async def test_alert_of_a_webhook_ends_with_the_webhook(server, store, receiver, impatient, end):
    webhook = await hook(server, store, receiver, kinds=("none",))
    server.notifications.alerts.raise_("webhook", webhook.uid, Severity.WARNING, "it does not take its events")
    await eventually(lambda: server.notifications.alerts.is_open("webhook", webhook.uid))
    impatient.wake()
    if end == "delete":
        do(store, DeleteWebhook(webhook.uid))
    else:
        do(store, EditWebhook(webhook.uid, active=False))
    impatient.wake()
    await eventually(lambda: store.alerts.select(open_only=True) == [])


async def test_webhook_is_told_of_a_large_object_by_its_name_alone(server, store, receiver):
    await hook(server, store, receiver, kinds=("site.created",))
    tunnel, _ = do(store, CreateTunnel(name="desk", domain=DOMAIN))
    site, = do(store, PutSites(tunnel.uid, [{"domain": "a.example.org", "x": ["203.0.113.7/32"] * 2_000}]))
    server.follower.wake()
    await eventually(lambda: receiver.posts)
    assert len(receiver.posts[0].body) < 1_000
    assert bodies(receiver)[0]["object"] == {
        "uid": site.uid, "tunnel_uid": tunnel.uid, "domain": "a.example.org", "truncated": True,
    }


async def test_deliveries_of_one_service_stay_in_order_though_the_first_is_refused(server, store, receiver, impatient):
    webhook = await hook(server, store, receiver, kinds=("none",))
    receiver.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    queue(store, webhook, 5, subject="f" * 32)
    impatient.wake()
    await eventually(lambda: len(receiver.posts) >= 2)
    assert {body["n"] for body in bodies(receiver)} == {0}
    receiver.answer = b"HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n"
    await eventually(lambda: store.deliveries.count(webhook.uid)[DeliveryState.PENDING] == 0)
    numbers = [body["n"] for body in bodies(receiver)]
    assert numbers == sorted(numbers)
    assert set(numbers) >= {1, 2, 3, 4}


async def test_target_that_hangs_holds_back_nobody_else(server, store, receiver):
    async with webhook_receiver() as hanging:
        hanging.hangs = True
        slow = await hook(server, store, hanging, kinds=("none",))
        quick = await hook(server, store, receiver, kinds=("none",))
        queue(store, slow, 50)
        queue(store, quick, 20)
        server.notifications.dispatcher.wake()
        await eventually(lambda: len(receiver.posts) == 20)
        assert hanging.open_max <= REQUEST_COUNT_PER_WEBHOOK_MAX


async def test_twenty_hanging_webhooks_of_a_tenant_hold_back_nobody_else(server, store, receiver):
    """They want more than there is, and what they want came first."""
    user = do(store, CreateUser(fullname="tenant"))
    async with webhook_receiver() as hanging:
        hanging.hangs = True
        for _ in range(20):
            queue(store, await hook(server, store, hanging, kinds=("none",), user_uid=user.uid), 50)
        server.notifications.dispatcher.wake()
        await eventually(lambda: hanging.open_max >= REQUEST_COUNT_MAX // 2)
        operators = await hook(server, store, receiver, kinds=("none",))
        queue(store, operators, 30)
        server.notifications.dispatcher.wake()
        await eventually(lambda: len(receiver.posts) == 30)
        assert hanging.open_max < REQUEST_COUNT_MAX


async def test_many_deliveries_are_bounded_requests_at_once(server, store, receiver):
    webhook = await hook(server, store, receiver, kinds=("none",))
    queue(store, webhook, 200)
    server.notifications.dispatcher.wake()
    await eventually(lambda: len(receiver.posts) == 200)
    assert receiver.open_max <= REQUEST_COUNT_PER_WEBHOOK_MAX


async def test_private_target_is_refused_unless_allowed(server, store, receiver):
    webhook = do(store, CreateWebhook(receiver.url, kinds=("none",)))
    queue(store, webhook)
    server.notifications.dispatcher.wake()
    await eventually(lambda: store.deliveries.select(webhook.uid)[0].state is DeliveryState.FAILED)
    assert store.deliveries.select(webhook.uid)[0].attempts == 1
    assert "not a public address" in store.deliveries.select(webhook.uid)[0].error
    assert receiver.connections == 0
    await eventually(lambda: server.notifications.alerts.is_open("webhook", webhook.uid))


async def test_webhook_switched_off_or_deleted_gets_nothing_until_it_is_switched_on(server, store, receiver):
    off = do(store, CreateWebhook(receiver.url, kinds=("none",), allow_private=True, active=False))
    gone = do(store, CreateWebhook(receiver.url, kinds=("none",), allow_private=True))
    queue(store, off)
    queue(store, gone)
    do(store, DeleteWebhook(gone.uid))
    server.notifications.dispatcher.wake()
    await server.notifications.dispatcher._step()
    assert receiver.connections == 0
    do(store, EditWebhook(off.uid, active=True))
    await server.follower.catch_up()
    await eventually(lambda: store.deliveries.select(off.uid)[0].state is DeliveryState.DELIVERED)
    assert len(receiver.posts) == 1


async def test_dispatcher_stops_with_requests_under_way(config, server, store):
    async with webhook_receiver() as hanging:
        hanging.hangs = True
        webhook = await hook(server, store, hanging, kinds=("none",))
        queue(store, webhook, 3)
        server.notifications.dispatcher.wake()
        await eventually(lambda: hanging.open == 3)
        await server.stop()
        await eventually(lambda: hanging.open == 0)
    assert isinstance(server.notifications.dispatcher, WebhookDispatcher)
