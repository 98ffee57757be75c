"""A change that cannot be worked off: set aside and reported; what is behind it comes into force."""

import asyncio

import pytest

from spokes.errors import StoreError
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import RegisterTunnel
from spokes.server.base.set_aside import ITEM_COUNT_MAX, TRY_COUNT_MAX, SetAside, Subject
from spokes.store import NewDelivery
from tests.server.conftest import DOMAIN
from tests.server.notify.test_webhooks import bodies, hook, receiver  # noqa: F401
from tests.server.sessions.test_sessions import hello
from tests.support.eventually import eventually
from tests.support.operations import do

SITE = Subject("site", "5" * 32)


def add_site(store, tunnel_uid, domain):
    do(store, PutSites(tunnel_uid, [{"domain": domain, "port": 80}]))
    return next(site for site in store.sites.select(tunnel_uid) if site.domain == domain)


@pytest.fixture
def tunnel(server, store):
    token = do(store, CreateToken("t"))
    return do(store, RegisterTunnel(token=token.value, name="one", domain=DOMAIN))[0]


@pytest.fixture
def poisoned(server, monkeypatch):
    """Names whose route no attempt can set."""
    names = {"bad.example.org"}
    put_site = server.routes.put_site

    def refusing(uid, tunnel_uid, domain, **words):
        if domain in names:
            raise KeyError(domain)
        put_site(uid, tunnel_uid, domain, **words)

    monkeypatch.setattr(server.routes, "put_site", refusing)
    return names


async def test_bad_change_is_set_aside_reported_and_those_behind_it_come_into_force(server, store, tunnel, poisoned):
    bad = add_site(store, tunnel.uid, "bad.example.org")
    good = add_site(store, tunnel.uid, "good.example.org")
    await server.follower.catch_up()
    assert server.routes.name_of(good.uid) == "good.example.org"
    assert server.follower.set_aside.subjects() == [("site", bad.uid)]
    assert server.follower.seq == store.changes.position()[1]
    await eventually(lambda: [a.subject for a in store.alerts.select(open_only=True)] == [f"site {bad.uid}"])


async def test_set_aside_change_is_settled_by_a_newer_one_of_the_same_object(server, store, tunnel, poisoned):
    add_site(store, tunnel.uid, "bad.example.org")
    await server.follower.catch_up()
    await eventually(lambda: store.alerts.select(open_only=True))
    poisoned.clear()
    do(store, PutSites(tunnel.uid, [{"domain": "bad.example.org", "port": 81}]))
    await server.follower.catch_up()
    assert len(server.follower.set_aside) == 0
    await eventually(lambda: not store.alerts.select(open_only=True))


async def test_set_aside_change_is_tried_again_without_a_newer_one(server, store, tunnel, poisoned, monkeypatch):
    monkeypatch.setattr("spokes.server.base.set_aside.RETRY_S", 0.01)
    bad = add_site(store, tunnel.uid, "bad.example.org")
    await server.follower.catch_up()
    poisoned.clear()
    await eventually(lambda: server.routes.name_of(bad.uid) == "bad.example.org")
    assert len(server.follower.set_aside) == 0


@pytest.fixture
def broken(server, monkeypatch):
    """Calls of the route table that fail, whatever for."""
    monkeypatch.setattr("spokes.server.base.set_aside.RETRY_S", 0.01)
    monkeypatch.setattr("spokes.server.base.set_aside.TRY_COUNT_MAX", 10)
    names: set[str] = set()
    for name in ("put_tunnel", "put_site", "drop"):
        monkeypatch.setattr(server.routes, name, _refusing(getattr(server.routes, name), name, names))
    return names


def _refusing(call, name, names):
    def refusing(*args, **words):
        if name in names:
            raise KeyError(name)
        call(*args, **words)

    return refusing


async def test_object_that_fails_while_everything_loads_is_tried_again(server, store, tunnel, broken):
    bad = add_site(store, tunnel.uid, "bad.example.org")
    broken.add("put_site")
    await server.follower.load()
    assert server.follower.set_aside.subjects() == [("site", bad.uid)]
    await eventually(lambda: [a.subject for a in store.alerts.select(open_only=True)] == [f"site {bad.uid}"])
    broken.clear()
    await eventually(lambda: server.routes.name_of(bad.uid) == "bad.example.org")
    await eventually(lambda: not store.alerts.select(open_only=True))


@pytest.mark.parametrize("by_load", [True, False])
async def test_tunnel_that_comes_late_brings_its_sites_and_ports(server, store, broken, by_load):
    broken.add("put_tunnel")
    tunnel = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="one", domain=DOMAIN))[0]
    site = add_site(store, tunnel.uid, "late.example.org")
    do(store, AllocatePort(tunnel.uid, 1, 65535))
    await (server.follower.load() if by_load else server.follower.catch_up())
    assert server.routes.name_of(site.uid) == ""
    broken.clear()
    await eventually(lambda: server.routes.name_of(site.uid) == "late.example.org")
    (port,) = store.ports.select(tunnel.uid)
    assert server.routes.name_of(port.uid) == str(port.port)


async def test_more_changes_than_are_known_one_by_one_come_into_force_by_reading_everything(
    server, store, tunnel, broken, monkeypatch
):
    monkeypatch.setattr("spokes.server.base.set_aside.ITEM_COUNT_MAX", 2)
    gone = add_site(store, tunnel.uid, "gone.example.org")
    await server.follower.catch_up()
    broken.update(("put_site", "drop"))
    rules = [{"domain": f"{number}.example.org", "port": 80} for number in range(5)]
    do(store, PutSites(tunnel.uid, rules))
    do(store, RemoveSites(tunnel.uid, [gone.domain]))
    await server.follower.catch_up()
    subjects = [str(one) for one in server.follower.set_aside.subjects()]
    assert len(subjects) == 3
    assert "more changes" in subjects
    await eventually(lambda: sorted(a.subject for a in store.alerts.select(open_only=True)) == sorted(subjects))
    broken.clear()
    await eventually(lambda: len(server.follower.set_aside) == 0)
    wanted = {f"{number}.example.org" for number in range(5)}
    await eventually(lambda: {server.routes.name_of(uid) for uid in server.routes.objects()} == wanted)
    await eventually(lambda: not store.alerts.select(open_only=True))


async def test_follower_survives_what_is_no_error_of_ours_and_is_shown(server, store, tunnel, monkeypatch):
    """Where not one change but the whole reading fails."""
    failing = [True]
    changes_after = type(server._store.store.changes).after

    def breaks(self, *args):
        if failing:
            raise KeyError("columns")
        return changes_after(self, *args)

    monkeypatch.setattr(type(server._store.store.changes), "after", breaks)
    site = add_site(store, tunnel.uid, "late.example.org")
    server.follower.wake()
    await eventually(lambda: failures(server, "change log"))
    await eventually(lambda: "task" in {alert.kind for alert in store.alerts.select(open_only=True)})
    failing.clear()
    await eventually(lambda: server.routes.name_of(site.uid) == "late.example.org")


async def test_damaged_row_of_the_change_log_is_set_aside_and_the_next_ones_are_read(server, store, tunnel):
    site = add_site(store, tunnel.uid, "damaged.example.org")
    seq = store.changes.position()[1]
    store._db.alone(lambda: store._db.query("UPDATE change SET body = {} WHERE seq = {}", ("broken", seq)))
    good = add_site(store, tunnel.uid, "good.example.org")
    await server.follower.catch_up()
    assert server.routes.name_of(good.uid) == "good.example.org"
    assert server.follower.set_aside.subjects() == [("site", site.uid)]


def failures(server, name):
    return next(one["failures_total"] for one in server.supervisor.figures() if one["name"] == name)


async def test_every_long_lived_task_of_the_server_is_supervised(server):
    names = {one["name"] for one in server.supervisor.figures()}
    assert names >= {
        "change log", "presence", "traffic", "upkeep", "control socket", "alerts", "watch", "webhooks", "webhook events"
    }


async def test_fault_in_what_a_link_or_an_event_meets_is_counted_and_an_alert(server, store, engine, monkeypatch):
    def breaks(*_args):
        raise KeyError("a fault of ours")

    monkeypatch.setattr(server.sessions.unauthenticated, "_welcome", breaks)
    engine.arrive().say(hello())
    await eventually(lambda: failures(server, "links") == 1)
    monkeypatch.setattr(server.sessions, "_link_up", breaks)
    engine.arrive()
    await eventually(lambda: failures(server, "events") == 1)
    await server.notifications.alerts.flush()
    alerts = {(alert.kind, alert.subject) for alert in store.alerts.select(open_only=True)}
    assert alerts >= {("task", "links"), ("task", "events")}


async def test_event_that_cannot_be_told_is_set_aside_and_the_others_are_told(
    server, store, receiver, tunnel, monkeypatch  # noqa: F811
):
    await hook(server, store, receiver, kinds=("token",))
    await server.notifications.events.catch_up()
    queue = type(server._store.store.deliveries).queue

    def refusing(self, new):
        if any("poison" in one.body for one in new):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates")
        return queue(self, new)

    monkeypatch.setattr(type(server._store.store.deliveries), "queue", refusing)
    for name in ("before", "poison", "after"):
        do(store, CreateToken(name))
    await server.follower.catch_up()
    await eventually(lambda: len(receiver.posts) == 2)
    assert sorted(body["object"]["description"] for body in bodies(receiver)) == ["after", "before"]
    assert [subject.kind for subject in server.notifications.events.set_aside.subjects()] == ["token"]


async def test_events_queued_by_many_at_once_are_queued_once(server, store, receiver, monkeypatch):  # noqa: F811
    """Each reading waits for the store in between, so another can come into the middle of it."""
    await hook(server, store, receiver, kinds=("token",))
    await server.notifications.events.catch_up()
    queued: list[NewDelivery] = []
    monkeypatch.setattr(type(server._store.store.deliveries), "queue", lambda self, new: queued.extend(new))
    for number in range(5):
        do(store, CreateToken(f"token {number}"))
    events = server.notifications.events
    await asyncio.gather(*(events.catch_up() for _ in range(4)))
    assert len(queued) == 5


def test_aside_is_tried_a_few_times_and_is_bounded(monkeypatch):
    monkeypatch.setattr("spokes.server.base.set_aside.RETRY_S", 0.0)
    aside: SetAside[str] = SetAside("change")
    told = []
    aside.on_put = lambda subject, words: told.append(subject)
    for tries in range(1, TRY_COUNT_MAX + 1):
        aside.put(SITE, "change", KeyError())
        assert aside.due() == ([(SITE, "change")] if tries < TRY_COUNT_MAX else [])
    assert told == [SITE]
    assert aside.next_try_s() is None


def test_aside_beyond_its_bound_stands_as_more_until_that_is_settled():
    aside: SetAside[str] = SetAside("change")
    told, settled = [], []
    aside.on_put = lambda subject, words: told.append(subject)
    aside.on_settled = settled.append
    sites = [Subject("site", str(number)) for number in range(2 * ITEM_COUNT_MAX)]
    for site in sites:
        aside.put(site, None, StoreError("refused"))
    assert aside.subjects() == told == [*sites[:ITEM_COUNT_MAX], Subject("more", "changes")]
    assert (settled, aside.total_count) == ([], 2 * ITEM_COUNT_MAX)
    aside.put(sites[0], None, StoreError("refused"))     # one that is known is no more than it was
    assert len(aside) == ITEM_COUNT_MAX + 1
    for site in sites:
        assert not aside.settle_more() or site == sites[ITEM_COUNT_MAX]
        aside.settle(site)
    assert settled == [*sites[:ITEM_COUNT_MAX], Subject("more", "changes")]


def test_aside_newer_change_of_the_same_object_is_tried_as_often_as_the_first(monkeypatch):
    monkeypatch.setattr("spokes.server.base.set_aside.RETRY_S", 0.0)
    aside: SetAside[str] = SetAside("change")
    for change in ("first", "newer"):
        aside.forget(SITE)
        for tries in range(1, TRY_COUNT_MAX + 1):
            aside.put(SITE, change, KeyError())
            assert aside.due() == ([(SITE, change)] if tries < TRY_COUNT_MAX else [])


def test_aside_object_whose_every_change_fails_is_set_aside_however_many_there_are():
    aside: SetAside[str] = SetAside("event")
    for _ in range(1200):                # the wait doubles, and a float has an end
        aside.put(SITE, None, KeyError())
    assert aside.subjects() == [SITE]
    assert aside.total_count == 1
