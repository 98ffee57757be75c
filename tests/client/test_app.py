import asyncio
import contextlib
import json
import logging

import pytest

from spokes._fastpath.engine import LinkDown, RouteKind
from spokes.client import additional_links, rules_in_force
from spokes.client import app as app_module
from spokes.client import session as session_module
from spokes.client.app import App
from spokes.client.config import ClientConfig
from spokes.client.configured_rules import ConfiguredRules
from spokes.client.endpoint import Endpoint
from spokes.client.node import Node
from spokes.client.reconnect import Backoff
from spokes.client.session import Session
from spokes.errors import ConfigError, RemoteError, UnreachableError
from spokes.wire.messages import Accepted, Answer, Bye, Drain, Fault
from spokes.wire.rules import Port, Site, TunConfig
from tests.client.fake_engine import HOSTNAME
from tests.support.eventually import eventually

HTTP = int(RouteKind.HTTP)


class Recorder:
    """A console that keeps what it was told."""

    def __init__(self):
        self.calls = []
        self.waits = []

    def connecting(self):
        self.calls.append("connecting")

    async def online(self, app):
        self.calls.append("online")

    def changed(self, app):
        self.calls.append("changed")

    def delayed(self, app, error):
        self.calls.append(error.code)

    def offline(self, error, wait_s):
        self.calls.append(error.code)
        self.waits.append(wait_s)

    async def run(self, app):
        await asyncio.Event().wait()


def node_of(app):
    """The only one."""
    (node,) = app.nodes.listed
    return node


def session_of(app):
    return node_of(app).session


def write(path, **members):
    document = json.loads(path.read_text()) | members
    path.write_text(json.dumps(document))


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def console():
    return Recorder()


@pytest.fixture
def make_app(engine, config_path, console):
    def make(**attributes):
        return App(
            engine,
            endpoint=Endpoint.of(ClientConfig.load(config_path)),
            key="k" * 64,
            rules=ConfiguredRules(config_path, **attributes),
            console=console,
            make_backoff=lambda: Backoff(base_s=0.001, cap_s=0.001),
            reread=lambda: ClientConfig.load(config_path),
        )

    return make


@contextlib.asynccontextmanager
async def running(app):
    task = asyncio.create_task(app.run())
    try:
        yield task
        app.stop(drain=False)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_run_serves_what_the_file_says(engine, config_path, make_app, console):
    write(config_path, https=[{"domain": "a.example", "port": 8080}], ports=[{"port": 22000, "dstPort": 22}])
    engine.server.config = TunConfig(hostname=HOSTNAME, ports=(Port(port=22000),))
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        assert [site.domain for site in engine.server.services[0].https] == ["a.example"]
        assert (HTTP, "a.example") in engine.upstreams
        assert engine.bound == engine.links
        assert read(config_path)["hostname"] == HOSTNAME
    assert engine.stopped
    assert [bye.code for bye in engine.server.byes] == ["SPK-CLOSED"]
    assert console.calls == ["connecting", "online"]


async def test_run_routes_are_set_before_streams_may_come(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 8080}])
    seen = []
    bind_link = engine.bind_link
    engine.bind_link = lambda link, tunnel: (seen.append(dict(engine.upstreams)), bind_link(link, tunnel))
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
    assert (HTTP, "a.example") in seen[0]


async def test_run_link_lost_comes_back_again_and_again(engine, make_app, console):
    app = make_app()
    async with running(app):
        for generation in range(1, 6):
            await eventually(lambda: app.state == "online" and len(engine.server.logins) == generation)  # noqa: B023
            engine.cut(engine.links[0], LinkDown.DEAD)
        await eventually(lambda: app.state == "online" and len(engine.server.logins) == 6)
    assert console.calls[:6] == ["connecting", "online", "SPK-UNREACHABLE", "connecting", "online", "SPK-UNREACHABLE"]


async def test_run_server_away_never_ends(engine, make_app, console):
    engine.refused = {"127.0.0.1": (LinkDown.SYSTEM, b"Connection refused")}
    app = make_app()
    async with running(app) as task:
        await eventually(lambda: len(console.waits) > 20)
        assert not task.done()
        engine.refused = {}
        await eventually(lambda: app.state == "online")


async def test_run_wrong_server_key_is_said_and_tried_again(engine, make_app, console):
    engine.refused = {"127.0.0.1": (LinkDown.PIN, b"")}
    app = make_app()
    async with running(app):
        await eventually(lambda: "SPK-SERVER-KEY" in console.calls)
        assert engine.server.logins == []
        engine.refused = {}
        await eventually(lambda: app.state == "online")


async def test_run_replaced_by_another_client_ends_and_does_not_fight(engine, make_app):
    app = make_app()
    with pytest.raises(RemoteError) as caught:
        async with running(app) as task:
            await eventually(lambda: app.state == "online")
            engine.push(engine.links[0], Bye(code="SPK-REPLACED", message="another client logged in", retry=False))
            await task
    assert caught.value.code == "SPK-REPLACED"
    assert engine.server.logins == ["serve"]
    assert engine.stopped


async def test_run_login_refused_for_good_ends(engine, make_app):
    engine.server.bye = Bye(code="SPK-TOKEN", message="unknown key", retry=False)
    with pytest.raises(RemoteError, match="unknown key"):
        await make_app().run()


async def test_run_bye_with_retry_waits_as_asked(engine, make_app, console):
    engine.server.bye = Bye(code="SPK-SHUTDOWN", message="stopping", retry=True, retry_after_s=3.0)
    app = make_app()
    async with running(app):
        await eventually(lambda: console.waits)
    assert 3.0 <= console.waits[0] <= 3.1


async def test_run_drain_message_sets_the_wait_after_the_link_ends(engine, make_app, console):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.push(engine.links[0], Drain(retry_after_s=5.0))
        await eventually(lambda: session_of(app).retry_after_s == 5.0)
        engine.cut(engine.links[0], LinkDown.CLOSED)
        await eventually(lambda: console.waits)
    assert 5.0 <= console.waits[0] <= 5.1


async def test_config_push_is_served_and_saved(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 8080}])
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        pushed = TunConfig(https=(Site(domain="a.example", port=9090), Site(domain="b.example", port=1)))
        engine.push_config(engine.links[0], pushed)
        await eventually(lambda: len(engine.server.services) == 2)
        assert engine.upstreams[(HTTP, "a.example")].name == "localhost:9090"
        assert read(config_path)["https"] == [{"domain": "a.example", "port": 9090}, {"domain": "b.example", "port": 1}]


async def test_config_push_flood_costs_one_turn_and_the_newest_is_served(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 8080}])
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        for port in range(1, 301):
            engine.push_config(engine.links[0], TunConfig(https=(Site(domain="a.example", port=port),)))
        await eventually(lambda: engine.upstreams[(HTTP, "a.example")].name == "localhost:300")
        assert len(engine.server.services) <= 4


async def test_config_push_unmanaged_changes_nothing(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 8080}], unmanaged=True)
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.push_config(engine.links[0], TunConfig(https=(Site(domain="b.example", port=1),)))
        await eventually(lambda: len(engine.server.services) == 2)
        assert engine.server.services[-1].unmanaged
        assert [site.domain for site in engine.server.services[-1].https] == ["a.example"]
        assert read(config_path)["https"] == [{"domain": "a.example", "port": 8080}]


async def test_ready_rules_changed_on_both_sides_are_brought_together(engine, config_path, make_app):
    old = {"domain": "old.example", "port": 1}
    write(config_path, https=[old, {"domain": "mine.example", "port": 2}], synced={"https": [old], "ports": []})
    engine.server.config = TunConfig(https=(Site(domain="theirs.example", port=3),))
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
    assert [site.domain for site in engine.server.services[0].https] == ["mine.example", "theirs.example"]


async def test_list_called_stale_newer_rules_are_taken_and_announced(engine, config_path, make_app):
    """The operator's change crossed ours: both are in force in the end."""
    write(config_path, https=[{"domain": "a.example", "port": 1}])
    engine.server.count_rules = True
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.server.change(TunConfig(https=(Site(domain="a.example", port=9), Site(domain="b.example", port=2))))
        write(config_path, https=[{"domain": "a.example", "port": 1}, {"domain": "c.example", "port": 3}])
        accepted = await app.rules.apply()
    assert [result.domain for result in accepted.https] == ["a.example", "c.example", "b.example"]
    assert [(s.domain, s.port) for s in engine.server.services[-1].https] == [
        ("a.example", 9), ("c.example", 3), ("b.example", 2),
    ]  # fmt: skip
    assert {(site.domain, site.port) for site in engine.server.config.https} == {
        ("a.example", 9), ("b.example", 2), ("c.example", 3),
    }  # fmt: skip
    assert [rule["domain"] for rule in read(config_path)["https"]] == ["a.example", "c.example", "b.example"]


async def test_unmanaged_client_rules_of_the_server_are_not_taken(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 1}], unmanaged=True)
    engine.server.config = TunConfig(https=(Site(domain="theirs.example", port=3),))
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.push_config(engine.links[0], TunConfig(https=(Site(domain="b.example", port=1),)))
        await app.rules.apply()
    assert {site.domain for services in engine.server.services for site in services.https} == {"a.example"}
    assert all(services.unmanaged for services in engine.server.services)


async def test_temporary_rule_is_served_not_saved_and_withdrawn_next_time(engine, config_path, make_app):
    temporary = Site(domain=HOSTNAME, port=8080)
    write(config_path, https=[{"domain": "a.example", "port": 1}])
    app = make_app(temporary_sites=(temporary,))
    async with running(app):
        await eventually(lambda: app.state == "online")
        assert (HTTP, HOSTNAME) in engine.upstreams
    assert read(config_path)["https"] == [{"domain": "a.example", "port": 1}]

    rules = ConfiguredRules(config_path)
    ready = app.ready
    stored = TunConfig(https=engine.server.services[-1].https)  # the server keeps what was announced
    rules.take_ready(type(ready)(**{f: getattr(ready, f) for f in ready.__struct_fields__} | {"config": stored}))
    assert [site.domain for site in rules.services().https] == ["a.example"]


async def test_server_without_its_store_for_long_session_waits_and_is_not_ended(
    engine, config_path, make_app, console, monkeypatch
):
    for module in (rules_in_force, session_module):
        monkeypatch.setattr(module, "ANSWER_DEADLINE_S", 0.01)
    engine.server.services_wait = True
    app = make_app()
    async with running(app):
        await eventually(lambda: any("has not taken the rules" in trouble.line for trouble in app.troubles))
        assert engine.bound == engine.links  # streams come
        with pytest.raises(UnreachableError):
            await app.rules.apply()
        engine.server.services_wait = False
        for link, services in engine.server.waiting:
            for answer in engine.server.answer(link, services):
                engine.push(link, answer)
        await eventually(lambda: app.state == "online")
        assert await app.rules.apply() is not None
    assert engine.server.logins == ["serve"]
    assert console.calls == ["connecting", "online", "changed"]


DISK_FULL = Fault(code="SPK-STORE", message="the disk is full", retry=True)


async def leave_a_rule_waiting(app, engine, config_path):
    """With a server that cannot store it now."""
    engine.server.services_wait, engine.server.delayed = True, DISK_FULL
    write(config_path, https=[{"domain": "a.example", "port": 1}])
    with pytest.raises(RemoteError):
        await app.rules.apply()


def store_is_back(engine):
    """The server answers the lists that waited, in order."""
    engine.server.services_wait, engine.server.delayed = False, None
    waiting, engine.server.waiting = engine.server.waiting, []
    for link, services in waiting:
        for answer in engine.server.answer(link, services):
            engine.push(link, answer)


async def test_rule_that_the_server_cannot_store_is_said_at_once_kept_and_taken_later(engine, config_path, make_app):
    engine.server.count_rules = True
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.server.services_wait, engine.server.delayed = True, DISK_FULL
        write(config_path, https=[{"domain": "a.example", "port": 1}])
        for _ in range(3):  # the second and the third are not said: the first is the server's to take
            with pytest.raises(RemoteError, match="cannot store the rules now: the disk is full") as refused:
                await app.rules.apply()
            assert (refused.value.code, refused.value.retryable) == ("SPK-STORE", True)
        assert len(engine.server.waiting) == 1
        assert app.delayed == DISK_FULL
        assert any("the disk is full" in trouble.line for trouble in app.troubles)
        assert (HTTP, "a.example") in engine.upstreams

        store_is_back(engine)
        await eventually(lambda: [one.domain for one in app.rules.accepted.https] == ["a.example"])
        assert app.delayed is None
        assert read(config_path)["synced"]["https"] == [{"domain": "a.example", "port": 1}]
        assert app.rules.revision == engine.server.rules_rev
        assert await app.rules.apply() is not None
    assert [services.rules_rev for services in engine.server.services] == [1, 2, 3]  # and none of them was stale


async def test_rule_after_the_server_can_store_again_is_taken_at_once(engine, config_path, make_app):
    """Asked for anything, the server tries what waits first."""
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        await leave_a_rule_waiting(app, engine, config_path)
        engine.server.answers["tunnel.info"] = lambda _: store_is_back(engine) or {}
        write(config_path, https=[{"domain": "a.example", "port": 2}])
        assert [one.domain for one in (await app.rules.apply()).https] == ["a.example"]
        assert app.delayed is None
        assert engine.server.config.https[0].port == 2


async def test_rules_changed_while_the_server_cannot_store_are_announced_when_it_can(engine, config_path, make_app):
    engine.server.count_rules = True
    engine.server.services_wait, engine.server.delayed = True, DISK_FULL
    app = make_app()
    async with running(app):
        await eventually(lambda: app.delayed)  # of the first list, which waits for as long as the session lives
        write(config_path, https=[{"domain": "a.example", "port": 1}])
        with pytest.raises(RemoteError, match="the disk is full"):
            await app.rules.apply()
        store_is_back(engine)
        await eventually(lambda: [one.domain for one in app.rules.accepted.https] == ["a.example"])
        await eventually(lambda: app.state == "online")
        await eventually(lambda: read(config_path)["synced"]["https"] == [{"domain": "a.example", "port": 1}])
    assert [len(services.https) for services in engine.server.services[:2]] == [0, 1]


async def test_rule_of_a_late_list_that_the_operator_changed_meanwhile_is_brought_together(
    engine, config_path, make_app
):
    engine.server.count_rules = True
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        await leave_a_rule_waiting(app, engine, config_path)
        engine.server.change(TunConfig(hostname=HOSTNAME, https=(Site(domain="b.example", port=2),)))
        store_is_back(engine)  # the list is stale by now
        await eventually(lambda: {one.domain for one in app.rules.accepted.https} == {"a.example", "b.example"})
    assert {site["domain"] for site in read(config_path)["https"]} == {"a.example", "b.example"}


async def test_leading_link_lost_list_that_nobody_waits_for_is_said_again(engine, config_path, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        await leave_a_rule_waiting(app, engine, config_path)
        engine.server.services_wait, engine.server.delayed, engine.server.waiting = False, None, []
        engine.cut(engine.links[0], LinkDown.SYSTEM)
        await eventually(lambda: [one.domain for one in app.rules.accepted.https] == ["a.example"])
        assert app.delayed is None


async def test_answer_after_the_deadline_is_taken(engine, config_path, make_app, monkeypatch):
    """An older server says nothing while its store is away."""
    engine.server.count_rules = True
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.server.services_wait = True
        write(config_path, https=[{"domain": "a.example", "port": 1}])
        announce = session_of(app).announce
        monkeypatch.setattr(session_of(app), "announce", lambda services, **_: announce(services, within_s=0.01))
        with pytest.raises(UnreachableError):
            await app.rules.apply()
        store_is_back(engine)
        await eventually(lambda: [one.domain for one in app.rules.accepted.https] == ["a.example"])
        assert app.rules.revision == engine.server.rules_rev
        assert read(config_path)["synced"]["https"] == [{"domain": "a.example", "port": 1}]


async def test_refused_rule_is_shown_and_the_others_run(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 1}, {"domain": "taken.example", "port": 2}])
    engine.server.faults["taken.example"] = Fault(code="SPK-TAKEN", message="held by another tunnel")
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        cure = "choose another name, and type: spoke tunnel http rm --domain taken.example"
        line = f"taken.example: held by another tunnel; {cure} [SPK-TAKEN]"
        assert line in [trouble.line for trouble in app.troubles]
    assert read(config_path)["synced"]["https"] == [{"domain": "a.example", "port": 1}]


async def test_revision_of_accepted_is_that_of_the_next_list(engine, config_path, make_app):
    engine.server.count_rules = True
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        for port in (1, 2):
            write(config_path, https=[{"domain": "a.example", "port": port}])
            await app.rules.apply()
    assert [services.rules_rev for services in engine.server.services] == [1, 2, 3]  # and none of them was stale


async def test_file_not_writable_traffic_goes_on(engine, config_path, make_app, monkeypatch):
    def no_space(self, **_):
        raise ConfigError("cannot write: No space left on device")

    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        monkeypatch.setattr(ClientConfig, "save", no_space)
        engine.push_config(engine.links[0], TunConfig(https=(Site(domain="b.example", port=1),)))
        await eventually(lambda: (HTTP, "b.example") in engine.upstreams)
        await eventually(lambda: len(engine.server.services) == 2)
        assert [site.domain for site in engine.server.services[-1].https] == ["b.example"]
        assert app.state == "online"
    assert len(engine.server.logins) == 1


async def test_link_wanted_additional_links_up_to_the_servers_limit(engine, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        first = engine.links[0]
        for count in (2, 3):
            engine.want_link(first)
            engine.want_link(first)  # asked twice while the first is on its way
            await eventually(lambda: len(engine.bound) == count)  # noqa: B023
        engine.want_link(first)
        engine.want_link(first)
        await asyncio.sleep(0)
        await eventually(lambda: app.link_count() == 3)
        assert len(engine.server.joined) == 2


async def test_additional_link_lost_is_replaced_and_one_closed_by_the_server_is_not(engine, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        engine.cut(engine.links[1])
        await eventually(lambda: len(engine.server.joined) == 2 and app.link_count() == 2)
        engine.push(engine.links[1], Bye(code="SPK-CLOSED", message="enough", retry=False))
        await eventually(lambda: app.link_count() == 1)
        assert app.state == "online"
    assert len(engine.server.joined) == 2


async def test_leading_link_lost_session_goes_on_over_another(engine, config_path, make_app, console):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        first, second = engine.links
        engine.cut(first, LinkDown.DEAD)
        await eventually(lambda: engine.server.led == [second] and app.link_count() == 2)
        engine.push_config(second, TunConfig(https=(Site(domain="b.example", port=1),)))
        await eventually(lambda: (HTTP, "b.example") in engine.upstreams)
        assert await app.rules.apply() is not None
        assert app.state == "online"
    assert console.calls.count("connecting") == console.calls.count("online") == 1
    assert engine.server.logins == ["serve"]
    assert len(engine.server.joined) == 2  # the second one replaced what was lost


async def test_leading_link_lost_services_are_said_again_and_requests_fail(engine, config_path, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        engine.lost.add(engine.links[0])  # what is said there arrives nowhere
        write(config_path, https=[{"domain": "c.example", "port": 1}])
        applying = asyncio.create_task(app.rules.apply())
        asking = asyncio.create_task(app.ask("tunnel.info", {}))
        await eventually(lambda: len(session_of(app)._announced) == len(session_of(app)._answers) == 1)
        engine.cut(engine.links[0], LinkDown.SYSTEM)
        assert [site.domain for site in (await applying).https] == ["c.example"]
        with pytest.raises(UnreachableError, match="before the answer"):
            await asking


async def test_session_ends_before_the_server_answers_rules_are_kept_for_the_next(engine, config_path, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.lost.add(engine.links[0])  # what is said there arrives nowhere
        write(config_path, https=[{"domain": "c.example", "port": 1}])
        applying = asyncio.create_task(app.rules.apply())
        await eventually(lambda: session_of(app) is not None and session_of(app)._announced)
        engine.cut(engine.links[0], LinkDown.SYSTEM)
        assert await applying is None
        await eventually(lambda: [one.domain for one in app.rules.accepted.https] == ["c.example"])


async def test_leading_link_lost_next_one_lost_too_the_third_leads(engine, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        for count in (2, 3):
            engine.want_link(engine.links[0])
            await eventually(lambda: app.link_count() == count)  # noqa: B023
        first, second, third = engine.links
        engine.lost.add(second)
        engine.cut(first)
        await eventually(lambda: second not in {link.id for link in node_of(app).additional.links})
        engine.cut(second)
        await eventually(lambda: engine.server.led == [third])
        assert engine.server.logins == ["serve"]


async def test_leading_link_lost_old_server_the_session_begins_again(engine, make_app):
    engine.server.moves = False
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        engine.cut(engine.links[0])
        await eventually(lambda: len(engine.server.logins) == 2 and app.state == "online")
    assert engine.server.led == []


async def test_no_additional_link_is_asked_of_a_server_that_drains(engine, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        dialled = len(engine.dialled)
        engine.push(engine.links[0], Drain(retry_after_s=5.0))
        await eventually(lambda: session_of(app).draining)
        engine.want_link(engine.links[0])
        engine.push(engine.links[0], Drain(retry_after_s=6.0))  # behind it: once it is seen, the wish was too
        await eventually(lambda: session_of(app).retry_after_s == 6.0)
        assert len(engine.dialled) == dialled


async def test_idle_additional_links_are_drained_then_closed(engine, make_app, monkeypatch):
    monkeypatch.setattr(additional_links, "LINK_CHECK_INTERVAL_S", 0.002)
    monkeypatch.setattr(additional_links, "LINK_IDLE_CLOSE_S", 0.01)
    app = make_app()
    engine.streams_open = 1
    async with running(app):
        await eventually(lambda: app.state == "online")
        first = engine.links[0]
        engine.want_link(first)
        await eventually(lambda: app.link_count() == 2)
        extra = engine.links[-1]
        await asyncio.sleep(0.03)
        assert engine.drained == []  # a stream is open
        engine.streams_open = 0
        await eventually(lambda: app.link_count() == 1)
        assert engine.drained[0] == extra
        assert engine.links == [first]


async def test_stop_with_drain_waits_for_open_streams(engine, make_app):
    app = make_app()
    engine.streams_open = 1
    task = asyncio.create_task(app.run())
    await eventually(lambda: app.state == "online")
    app.stop(drain=True)
    await eventually(lambda: engine.drained)
    assert not task.done()
    assert engine.server.byes == []
    engine.streams_open = 0
    await asyncio.wait_for(task, 5)
    assert len(engine.server.byes) == 1


@pytest.mark.parametrize("drain", [True, False])
async def test_stop_again_while_draining_forces_the_stop(engine, make_app, monkeypatch, drain):
    monkeypatch.setattr(app_module, "DRAIN_TIMEOUT_S", 3600.0)
    app = make_app()
    engine.streams_open = 1
    task = asyncio.create_task(app.run())
    await eventually(lambda: app.state == "online")
    app.stop(drain=True)
    await eventually(lambda: engine.drained)
    app.stop(drain=drain)
    await asyncio.wait_for(task, 5)
    assert engine.streams_open
    assert len(engine.server.byes) == 1  # said, and not waited for


async def test_stop_while_server_is_away_ends_at_once(engine, make_app, console):
    engine.refused = {"127.0.0.1": (LinkDown.SYSTEM, b"Connection refused")}
    app = make_app()
    async with running(app):
        await eventually(lambda: console.waits)
    assert engine.stopped


@pytest.mark.parametrize("retry", [True, False])
async def test_ask_refused_says_whether_it_may_succeed_later(engine, make_app, retry):
    refusal = Answer(id=1, error=Fault(code="SPK-STORE", message="away", retry=retry))
    engine.server.answers["tunnel.info"] = lambda args: refusal
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        with pytest.raises(RemoteError) as caught:
            await app.ask("tunnel.info", {})
        assert caught.value.retryable is retry
        assert app.state == "online"


async def test_reload_changed_rules_are_announced_and_the_rest_is_not_touched(engine, config_path, make_app):
    write(config_path, https=[{"domain": "a.example", "port": 8080}])
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        calls = len(engine.route_calls)
        rules = read(config_path)["https"]
        write(config_path, https=[*rules, {"domain": "b.example", "port": 81}])
        app.reload()
        await eventually(lambda: len(engine.server.services) == 2)
        assert engine.route_calls[calls:] == [("upstream", HTTP, "b.example")]
        app.reload()  # nothing changed since
        app.reload()
        write(config_path, https=rules)
        app.reload()
        await eventually(lambda: len(engine.server.services) == 3)
        assert [site.domain for site in engine.server.services[-1].https] == ["a.example"]
    assert engine.server.logins == ["serve"]
    assert len(engine.dialled) == 1


@pytest.mark.parametrize("text", ["{", '{"key": ""}', '{"serverHost": "h:0", "key": "k"}'])
async def test_reload_file_that_cannot_be_taken_changes_nothing(engine, config_path, make_app, text):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        config_path.write_text(text)
        app.reload()
        await eventually(lambda: any("SPK-CONFIG" in trouble.line for trouble in app.troubles))
        assert app.state == "online"
        assert len(engine.links) == 1
    assert engine.server.logins == ["serve"]


async def test_reload_another_server_begins_a_new_session_with_all_links_there(engine, config_path, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        write(config_path, serverHost="127.0.0.9:9443")
        app.reload()
        await eventually(lambda: len(engine.server.logins) == 2 and app.state == "online")
        assert engine.server.led == []
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
    assert [address for address, _ in engine.dialled] == ["127.0.0.1"] * 2 + ["127.0.0.9"] * 2


async def test_reload_another_server_while_waiting_is_tried_at_once(engine, config_path, make_app, console):
    engine.refused = {"127.0.0.1": (LinkDown.SYSTEM, b"Connection refused")}
    app = make_app()
    app._make_backoff = lambda: Backoff(uniform=lambda low, high: 3600.0)
    async with running(app):
        await eventually(lambda: console.waits)
        write(config_path, serverHost="127.0.0.9")
        app.reload()
        await eventually(lambda: app.state == "online")


async def test_ask_without_session_is_unreachable(make_app):
    with pytest.raises(UnreachableError):
        await make_app().ask("tunnel.info", {})


async def test_run_logs_hold_no_secret(engine, make_app, caplog):
    caplog.set_level(logging.DEBUG)
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.want_link(engine.links[0])
        await eventually(lambda: app.link_count() == 2)
        engine.cut(engine.links[0], LinkDown.PROTOCOL, b"bad frame")
        await eventually(lambda: engine.server.led)
        await eventually(lambda: app.link_count() == 2)
        engine.push(engine.server.led[0], Bye(code="SPK-SHUTDOWN"))
        await eventually(lambda: len(engine.server.logins) == 2)
    told = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "additional link" in told
    assert "k" * 64 not in told  # the tunnel's key
    assert "s" * 32 not in told  # the session's


async def test_run_fault_of_ours_in_the_background_is_logged_shown_and_begun_again(make_app, caplog, monkeypatch):
    begun = []

    def broken(self):
        begun.append(1)
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(additional_links, "LINK_CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(additional_links.AdditionalLinks, "tend", broken)
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online" and len(begun) >= 2)
        assert "task failed" in caplog.text
        assert any("additional links" in trouble.line for trouble in app.troubles)


async def test_run_session_task_that_breaks_outside_of_a_session_begins_again(engine, make_app, monkeypatch):
    """What no session's own error handling takes must not leave a client that runs and never connects."""
    connecting = Node._wait
    broken = [True]

    async def breaks(self, error, retry_after_s):
        if broken:
            broken.clear()
            raise RuntimeError("a fault of ours")
        await connecting(self, error, retry_after_s)

    monkeypatch.setattr(Node, "_wait", breaks)
    engine.refused["127.0.0.1"] = (LinkDown.SYSTEM, b"Connection refused")
    app = make_app()
    async with running(app):
        await eventually(lambda: not broken)
        engine.refused.clear()
        await eventually(lambda: app.state == "online")
        (session,) = (one for one in app.supervisor.figures() if one["name"] == "session")
        assert (session["failures_total"], session["state"]) == (1, "running")


async def test_run_display_that_fails_begins_again_and_is_told(engine, make_app, console, caplog):
    begun = []

    async def broken(app):
        begun.append(app)
        raise RuntimeError("a fault of ours")

    console.run = broken
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online" and begun[1:] == [app])
        assert any("task display failed" in trouble.line for trouble in app.troubles)


async def test_run_fault_of_ours_in_a_session_ends_that_session_only(engine, make_app, monkeypatch):
    take = Session._take
    failing = [True]

    def breaks(self, message):
        if failing and isinstance(message, Accepted):
            failing.clear()
            raise KeyError("a fault of ours")
        take(self, message)

    monkeypatch.setattr(Session, "_take", breaks)
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        assert not failing
        assert any("SPK-INTERNAL" in trouble.line for trouble in app.troubles)
