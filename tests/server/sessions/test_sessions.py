"""Sessions over the engine's stand-in: who gets in, who takes over, who is put out."""

import asyncio
import gc

import pytest

from spokes import clock
from spokes._fastpath.engine import EventKind, RouteKind
from spokes.errors import InactiveError, StoreError, UnmanagedError
from spokes.model.operation import perform
from spokes.model.portmaps import PutPortMaps, RemovePortMaps
from spokes.model.ports import AllocatePort
from spokes.model.rule_lists import ReplaceRules
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import DeleteTunnel, EditTunnel, RegisterTunnel, RenewTunnelKey, SetTunnelKey, SetTunnelState
from spokes.password_hash import fits, is_own_hash
from spokes.server.routing import changes
from spokes.server.routing.decisions import RulesChanged
from spokes.server.routing.stored_config import StoredConfig
from spokes.server.sessions.backlog import ANSWERS_DUE_MAX
from spokes.server.sessions.link import Link
from spokes.server.sessions.sessions import Sessions
from spokes.store import TunnelState
from spokes.store.error_mapping import explained
from spokes.wire import messages as m
from spokes.wire.parts import FLAG_MORE, PART_BYTES_MAX
from spokes.wire.rules import FwRule, Port, Site, TunConfig
from tests.server.conftest import DOMAIN
from tests.support.eventually import eventually
from tests.support.operations import do


def hello(**changes) -> m.Hello:
    agent = m.Agent(version="0.1.0", os="linux", arch="amd64")
    return m.Hello(**({"versions": (1,), "agent": agent, "time": int(clock.wall_s())} | changes))


async def hears(peer, kind, count=1):
    """The latest message of a kind, once `count` of them came."""

    def found():
        return [message for message in peer.heard if isinstance(message, kind)]

    await eventually(lambda: len(found()) >= count)
    return found()[count - 1]


@pytest.fixture
def registered(store):
    token = do(store, CreateToken("test"))
    return do(store, RegisterTunnel(token=token.value, name="shop", domain=DOMAIN))


async def log_in(engine, key, mode="serve", *, moves=False):
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Login(key=key, mode=mode, supports_failover=moves))
    return peer, await hears(peer, m.Ready)


async def join(engine, ready):
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Join(session=ready.session))
    await hears(peer, m.Joined)
    return peer


async def test_session_register_makes_a_tunnel_that_can_log_in(engine, store):
    token = do(store, CreateToken("test"))
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Register(token=token.value, name="shop"))
    registered = await hears(peer, m.Registered)
    await eventually(lambda: engine.ended[peer.link].ended == "closed")
    assert registered.hostname.endswith("." + DOMAIN)
    assert (RouteKind.HTTP, registered.hostname) in engine.routes
    _, ready = await log_in(engine, registered.key)
    assert (ready.tunnel, ready.hostname, ready.name) == (registered.tunnel, registered.hostname, "shop")


@pytest.mark.parametrize("active", [True, False])
async def test_session_register_wrong_or_inactive_token_is_refused_for_good(engine, store, active):
    token = do(store, CreateToken("test", active=False))
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Register(token="0" * 64 if active else token.value, name="shop"))
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-TOKEN" if active else "SPK-INACTIVE", False)
    assert store.tunnels.select() == []


async def test_session_login_wrong_key_is_refused_for_good(engine):
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Login(key="f" * 64))
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-TOKEN", False)
    await eventually(lambda: peer.link in engine.ended)


async def test_session_login_binds_the_link_to_the_tunnel_of_its_route(engine, registered):
    tunnel, key = registered
    peer, ready = await log_in(engine, key)
    assert engine.links[peer.link].tunnel == engine.routes[(RouteKind.HTTP, tunnel.hostname)]
    assert ready.link_count_max == 4


async def test_session_no_common_version_is_refused(engine):
    peer = engine.arrive()
    peer.say(hello(versions=(7, 9)))
    assert (await hears(peer, m.Bye)).code == "SPK-VERSION"


async def test_session_wrong_clock_is_told_and_let_in(engine, registered, caplog):
    peer = engine.arrive()
    peer.say(hello(time=1_000_000))
    peer.say(m.Login(key=registered[1]))
    await hears(peer, m.Ready)
    assert abs((await hears(peer, m.Welcome)).time - clock.wall_s()) < 60
    assert "client's clock is wrong" in caplog.messages


async def test_session_second_login_takes_over_at_once(engine, server, registered):
    first, one = await log_in(engine, registered[1])
    second, two = await log_in(engine, registered[1])
    assert two.generation == one.generation + 1
    assert engine.links[second.link].tunnel is not None
    assert [session.primary for session in server.registry.sessions()] == [second.link]
    assert (await hears(first, m.Bye)).code == "SPK-REPLACED"
    await eventually(lambda: first.link in engine.ended)


async def test_session_generation_counts_from_the_first_login(engine, server, registered):
    """Control links are told which one stands; before the first there is none."""
    _, control = await log_in(engine, registered[1], mode="control")
    _, first = await log_in(engine, registered[1])
    _, told = await log_in(engine, registered[1], mode="control")
    assert (control.generation, first.generation, told.generation) == (0, 1, 1)
    assert server.registry.get(registered[0].uid).generation == first.generation


async def test_session_taken_over_loses_every_one_of_its_links(engine, server, registered):
    leading, ready = await log_in(engine, registered[1])
    additional = [await join(engine, ready) for _ in range(ready.link_count_max - 1)]
    assert additional
    newest, _ = await log_in(engine, registered[1])
    # They are cut once the old client has answered the PING that tells two clients from one that came back.
    await eventually(lambda: {one.link for one in (leading, *additional)} <= set(engine.ended))
    assert set(engine.links) == {newest.link}
    await eventually(lambda: server.sessions.link_count == 1)


async def test_session_ten_logins_over_silent_links_leave_one(engine, server, registered):
    peers = []
    for _ in range(10):
        peers.append((await log_in(engine, registered[1]))[0])
        engine.links[peers[-1].link].silent = True
    await eventually(lambda: server.sessions.link_count == 1)
    assert list(engine.links) == [peers[-1].link]
    assert len(server.registry) == 1


async def test_session_links_gone_are_freed_without_a_collection(engine, server, registered):
    def links_in_memory() -> int:
        return sum(isinstance(thing, Link) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            peer, _ = await log_in(engine, registered[1])
            peer.hang_up()
            await eventually(lambda: server.sessions.link_count == 0)
        await eventually(lambda: links_in_memory() == 0)
    finally:
        gc.enable()


async def test_session_control_mode_leaves_the_serving_session_alone(engine, server, registered):
    serving, _ = await log_in(engine, registered[1])
    control, ready = await log_in(engine, registered[1], mode="control")
    assert ready.session == ""
    control.say(m.Request(id=1, op="tunnel.info"))
    answer = await hears(control, m.Answer)
    assert answer.result["hostname"] == registered[0].hostname
    assert serving.link in engine.links
    control.say(m.Bye(code="SPK-DONE"))
    await eventually(lambda: control.link in engine.ended)
    assert server.registry.get(registered[0].uid).primary == serving.link


async def test_session_join_adds_links_up_to_the_limit(engine, registered):
    peer, ready = await log_in(engine, registered[1])
    joined = []
    for _ in range(ready.link_count_max - 1):
        additional = engine.arrive()
        additional.say(hello())
        additional.say(m.Join(session=ready.session))
        await hears(additional, m.Joined)
        joined.append(additional)
    assert {engine.links[one.link].tunnel for one in joined} == {engine.links[peer.link].tunnel}
    one_too_many = engine.arrive()
    one_too_many.say(hello())
    one_too_many.say(m.Join(session=ready.session))
    assert (await hears(one_too_many, m.Bye)).code == "SPK-LIMIT"
    joined[0].hang_up()
    again = engine.arrive()
    again.say(hello())
    again.say(m.Join(session=ready.session))
    await hears(again, m.Joined)


async def test_session_join_wrong_secret_is_refused(engine, registered):
    _, ready = await log_in(engine, registered[1])
    for token in (ready.session[:-1] + ("0" if ready.session[-1] != "0" else "1"), "x", "x.y", ready.session + "é"):
        peer = engine.arrive()
        peer.say(hello())
        peer.say(m.Join(session=token))
        assert (await hears(peer, m.Bye)).code == "SPK-SESSION"


async def test_session_of_an_old_client_ends_with_its_primary_link(engine, server, store, registered):
    peer, ready = await log_in(engine, registered[1])
    assert not ready.supports_failover
    additional = await join(engine, ready)
    await eventually(lambda: store.tunnels.get(registered[0].uid).state is TunnelState.ONLINE)
    peer.hang_up()
    await eventually(lambda: additional.link in engine.ended)
    await eventually(lambda: store.tunnels.get(registered[0].uid).state is TunnelState.OFFLINE)
    assert len(server.registry) == 0


async def test_session_primary_link_lost_goes_on_over_the_one_that_takes_its_place(engine, server, store, registered):
    tunnel, key = registered
    peer, ready = await log_in(engine, key, moves=True)
    assert ready.supports_failover
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),)))
    await hears(peer, m.Accepted)
    additional = await join(engine, ready)
    peer.hang_up()
    session = server.registry.get(tunnel.uid)
    await eventually(lambda: session.primary is None)
    additional.say(m.Lead())
    await hears(additional, m.Leading)
    assert [site.domain for site in (await hears(additional, m.Config)).config.https] == ["a.example.org"]
    do(store, PutSites(tunnel.uid, [{"domain": "b.example.org", "port": 81}]))
    server.follower.wake()
    assert len((await hears(additional, m.Config, 2)).config.https) == 2
    additional.say(m.Request(id=1, op="tunnel.info"))
    assert (await hears(additional, m.Answer)).result["hostname"] == tunnel.hostname
    again = await join(engine, ready)
    assert server.registry.get(tunnel.uid) is session
    assert session.links == {additional.link, again.link}
    await server.presence.flush()
    assert store.tunnels.get(tunnel.uid).state is TunnelState.ONLINE


async def test_session_lead_before_the_loss_was_noticed_cuts_the_old_link(engine, server, registered):
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    additional.say(m.Lead())
    await hears(additional, m.Config)
    await eventually(lambda: peer.link in engine.ended)
    session = server.registry.get(registered[0].uid)
    await eventually(lambda: session.links == {additional.link})
    assert session.primary == additional.link


async def test_session_bye_on_the_primary_link_ends_it_although_it_could_fail_over(engine, server, registered):
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    peer.say(m.Bye(code="SPK-CLOSED"))
    await eventually(lambda: additional.link in engine.ended and len(server.registry) == 0)


async def test_session_protocol_broken_on_the_primary_link_ends_it_for_good(engine, server, registered):
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    peer.say_raw(b"garbage")
    await eventually(lambda: additional.link in engine.ended and len(server.registry) == 0)


async def test_session_last_link_lost_goes_offline(engine, server, store, registered):
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    peer.hang_up()
    additional.hang_up()
    await eventually(lambda: store.tunnels.get(registered[0].uid).state is TunnelState.OFFLINE)
    assert len(server.registry) == 0


async def test_session_that_nobody_leads_ends_at_the_deadline(engine, server, registered):
    server.sessions._primary_deadline_s = 0.05
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    peer.hang_up()
    await eventually(lambda: additional.link in engine.ended and len(server.registry) == 0)


async def test_session_shut_down_while_nobody_leads_is_cut(engine, server, store, registered):
    peer, ready = await log_in(engine, registered[1], moves=True)
    additional = await join(engine, ready)
    peer.hang_up()
    await eventually(lambda: server.registry.get(registered[0].uid).primary is None)
    do(store, SetTunnelState(registered[0].uid, TunnelState.SHUTDOWN))
    server.follower.wake()
    await eventually(lambda: additional.link in engine.ended and len(server.registry) == 0)


async def test_session_services_are_in_force_before_they_are_accepted(engine, store, registered):
    peer, _ = await log_in(engine, registered[1])
    other, _ = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="other", domain=DOMAIN))
    do(store, ReplaceRules(other.uid, [{"domain": "taken.example.org"}], {}))
    peer.say(
        m.Services(
            https=(
                Site(domain="Shop.Example.org", destination="127.0.0.1", port=8080, tls=8443),
                Site(domain="taken.example.org"),
                Site(domain="bad.example.org", firewall=(FwRule(sequence=1, action="maybe", network="::/0"),)),
            ),
            ports=(Port(port=1, destination="127.0.0.1", dst_port=22),),
        )
    )
    accepted = await hears(peer, m.Accepted)
    codes = [(one.domain, one.error.code if one.error else None) for one in accepted.https]
    assert codes == [
        ("shop.example.org", None),
        ("taken.example.org", "SPK-TAKEN"),
        ("bad.example.org", "SPK-RULE"),
    ]
    assert accepted.ports[0].error.code == "SPK-NOT-FOUND"
    slot = engine.links[peer.link].tunnel
    assert engine.routes[(RouteKind.HTTP, "shop.example.org")] == slot
    assert engine.routes[(RouteKind.TLS, "shop.example.org")] == slot
    assert engine.routes[(RouteKind.HTTP, "taken.example.org")] != slot
    assert not [message for message in peer.heard if isinstance(message, m.Config)]


async def test_session_password_typed_in_a_list_is_kept_as_a_hash_and_told_to_the_client(engine, store, registered):
    peer, ready = await log_in(engine, registered[1])
    typed = Site(domain="Shop.example.org", port=8080, password="open sesame", basic_http_auth="mara:open sesame")
    peer.say(m.Services(https=(typed,), rules_rev=ready.rules_rev))
    assert [one.error for one in (await hears(peer, m.Accepted)).https] == [None]
    told = await hears(peer, m.Config)
    (site,) = told.config.https
    for text, plain in ((site.password, typed.password), (site.basic_http_auth, typed.basic_http_auth)):
        assert is_own_hash(text) and fits(text, plain)
    assert store.sites.select(registered[0].uid)[0].rule["password"] == site.password
    # From then on it says the hash; one that keeps its file as it is says the password again. Neither is a change.
    for say in (site, typed):
        peer.heard.clear()
        peer.say(m.Services(https=(say,), rules_rev=told.rules_rev))
        assert (await hears(peer, m.Accepted)).rules_rev == told.rules_rev
        assert store.sites.select(registered[0].uid)[0].rule["password"] == site.password


@pytest.fixture
def store_fails(store, monkeypatch):
    """Rules can be neither read nor written, until the event is set."""
    back = asyncio.Event()
    monkeypatch.setattr("spokes.server.sessions.backlog.STORE_RETRY_S", 0.01)

    def failing(call):
        def call_or_fail(*args, **kwargs):
            if not back.is_set():
                raise explained(OSError("database or disk is full"), "/var/lib/spokes/spokes.db")
            return call(*args, **kwargs)

        return call_or_fail

    def fail():
        monkeypatch.setattr("spokes.server.sessions.services.perform", failing(perform))
        monkeypatch.setattr(store.rules, "read", failing(store.rules.read))
        return back

    return fail


def backlogs(link):
    return [task for task in asyncio.all_tasks() if task.get_name() == f"backlog {link}"]


async def test_session_store_away_everything_but_the_rules_is_answered_and_those_follow(
    engine, server, store, registered, store_fails
):
    uid = registered[0].uid
    peer, ready = await log_in(engine, registered[1])
    back = store_fails()
    first, second = (Site(domain="a.example.org", port=port) for port in (80, 81))
    peer.say(m.Services(https=(first,), rules_rev=ready.rules_rev))
    assert (await hears(peer, m.Delayed)).error == m.Fault(code="SPK-STORE", message="the disk is full", retry=True)
    peer.say(m.Services(https=(second,), rules_rev=ready.rules_rev))
    await hears(peer, m.Delayed, 2)
    peer.say(m.Health(failing=(m.FailingService(domain="a.example.org", code="SPK-UPSTREAM-CUT"),)))
    for number in range(5):
        peer.say(m.Request(id=number, op="tunnel.info"))
    await hears(peer, m.Answer, 5)
    assert server.registry.get(uid).failing == {("a.example.org", 0)}
    assert len(backlogs(peer.link)) == 1
    assert not [message for message in peer.heard if isinstance(message, m.Accepted)]
    back.set()
    assert not (await hears(peer, m.Accepted, 2)).stale  # the second list took the first one's place
    assert [site.rule["port"] for site in store.sites.select(uid)] == [81]
    assert len([message for message in peer.heard if isinstance(message, m.Delayed)]) == 2
    await eventually(lambda: not backlogs(peer.link))


async def test_session_store_back_what_waits_is_tried_before_the_next_answer(
    engine, registered, store_fails, monkeypatch
):
    monkeypatch.setattr("spokes.server.sessions.backlog.RETRY_INTERVAL_S_MIN", 0.0)
    peer, _ = await log_in(engine, registered[1])
    back = store_fails()
    monkeypatch.setattr("spokes.server.sessions.backlog.STORE_RETRY_S", 3600.0)
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),)))
    await hears(peer, m.Delayed)
    peer.say(m.Request(id=1, op="tunnel.info"))
    await hears(peer, m.Answer)
    assert not [message for message in peer.heard if isinstance(message, m.Accepted)]
    back.set()
    peer.say(m.Request(id=2, op="tunnel.info"))
    await hears(peer, m.Answer, 2)
    assert [type(message) for message in peer.heard[-2:]] == [m.Accepted, m.Answer]


async def test_session_store_away_lists_that_wait_are_called_stale_one_by_one(
    engine, server, store, registered, store_fails
):
    uid = registered[0].uid
    peer, ready = await log_in(engine, registered[1])
    do(store, PutSites(uid, [{"domain": "b.example.org", "port": 1}]))
    back = store_fails()
    for _ in range(2):
        peer.say(m.Services(rules_rev=ready.rules_rev))
    await hears(peer, m.Delayed, 2)
    back.set()
    await hears(peer, m.Accepted, 2)
    said = [message for message in peer.heard if isinstance(message, m.Accepted | m.Config)]
    assert [message.stale for message in said if isinstance(message, m.Accepted)] == [True, True]
    assert isinstance(said[0], m.Config)


async def test_session_store_away_bye_is_heard_and_nothing_waits_on(
    engine, server, registered, store_fails
):
    peer, _ = await log_in(engine, registered[1])
    store_fails()
    peer.say(m.Services())
    await hears(peer, m.Delayed)
    peer.say(m.Bye(code="SPK-CLOSED"))
    await eventually(lambda: len(server.registry) == 0 and not backlogs(peer.link))


async def test_session_store_away_lists_without_end_are_bounded(engine, server, registered, store_fails):
    peer, _ = await log_in(engine, registered[1])
    back = store_fails()
    for _ in range(ANSWERS_DUE_MAX + 3):
        peer.say(m.Services())
    await hears(peer, m.Delayed, ANSWERS_DUE_MAX)
    peer.say(m.Request(id=1, op="tunnel.info"))  # behind them
    back.set()
    await hears(peer, m.Accepted, ANSWERS_DUE_MAX + 3)
    await hears(peer, m.Answer)


async def test_session_store_back_tunnel_shut_down_meanwhile_ends_the_session(
    engine, server, store, registered, monkeypatch
):
    """What waited fails for good: the link's own coroutine says so."""
    calls = []

    def fails(*args, **kwargs):
        calls.append(args)
        raise StoreError("away") if len(calls) == 1 else InactiveError("this tunnel is shut down")

    monkeypatch.setattr("spokes.server.sessions.backlog.STORE_RETRY_S", 0.01)
    monkeypatch.setattr("spokes.server.sessions.services.perform", fails)
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Services())
    assert (await hears(peer, m.Bye)).code == "SPK-INACTIVE"
    await eventually(lambda: peer.link in engine.ended)


async def test_session_rules_changed_by_others_are_brought_to_the_client(engine, server, store, registered):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),)))
    await hears(peer, m.Accepted)
    do(store, PutSites(registered[0].uid, [{"domain": "b.example.org", "port": 81}]))
    server.follower.wake()
    config = (await hears(peer, m.Config)).config
    assert [site.domain for site in config.https] == ["a.example.org", "b.example.org"]


async def test_session_rules_changed_are_read_once_for_a_client_that_is_here_and_not_for_others(
    engine, server, store, registered, monkeypatch
):
    uid = registered[0].uid
    token = do(store, CreateToken("other"))
    absent = do(store, RegisterTunnel(token=token.value, name="absent", domain=DOMAIN))[0]
    peer, _ = await log_in(engine, registered[1])
    read, real = [], store.rules.read
    monkeypatch.setattr(store.rules, "read", lambda tunnel_uid: read.append(tunnel_uid) or real(tunnel_uid))
    for tunnel_uid, domain in ((uid, "b.example.org"), (uid, "c.example.org"), (absent.uid, "d.example.org")):
        do(store, PutSites(tunnel_uid, [{"domain": domain, "port": 81}]))
    before = len(read)
    await server.follower.catch_up()
    told = await hears(peer, m.Config)
    assert [site.domain for site in told.config.https] == ["b.example.org", "c.example.org"]
    assert told.rules_rev == real(uid).rev
    assert read[before:] == [uid]


async def test_session_rules_changed_that_the_store_fails_to_read_are_sent_once_it_is_back(
    engine, server, store, registered, monkeypatch
):
    peer, _ = await log_in(engine, registered[1])
    do(store, PutSites(registered[0].uid, [{"domain": "b.example.org", "port": 81}]))
    with monkeypatch.context() as away:
        away.setattr(changes, "read_config", failing_with(StoreError("the disk is full")))
        with pytest.raises(StoreError):
            await server.follower.catch_up()
    await server.follower.catch_up()
    assert [site.domain for site in (await hears(peer, m.Config)).config.https] == ["b.example.org"]


async def test_session_rules_changed_that_cannot_be_read_end_that_session_alone(
    engine, server, store, registered, monkeypatch
):
    peer, _ = await log_in(engine, registered[1])
    do(store, PutSites(registered[0].uid, [{"domain": "b.example.org", "port": 81}]))
    monkeypatch.setattr(changes, "read_config", failing_with(ValueError("no such rule")))
    await server.follower.catch_up()
    assert (await hears(peer, m.Bye)).code == "SPK-INTERNAL"
    await server.follower.catch_up()


def failing_with(error):
    def fail(*_args):
        raise error

    return fail


async def test_session_does_not_read_the_store_for_changes_that_are_its_own_or_of_no_rule(
    engine, server, store, registered, monkeypatch
):
    """What the client announced itself and what is no rule cost no query of the store, and no word to the client."""
    uid = registered[0].uid
    peer, ready = await log_in(engine, registered[1])
    read = []
    monkeypatch.setattr(changes, "read_config", lambda *args: read.append(args))
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),), rules_rev=ready.rules_rev))
    revision = (await hears(peer, m.Accepted)).rules_rev
    do(store, EditTunnel(uid, name="other"))
    await server.follower.catch_up()
    older = StoredConfig(TunConfig(hostname=ready.hostname), revision - 1)
    server.sessions.take(RulesChanged(uid, older))     # decided before the client's own list came
    peer.say(m.Request(id=1, op="tunnel.info"))
    await hears(peer, m.Answer)
    peer.say(m.Request(id=2, op="tunnel.info"))
    await hears(peer, m.Answer, 2)
    assert read == []
    assert not [message for message in peer.heard if isinstance(message, m.Config)]


async def test_session_list_that_does_not_know_the_latest_change_is_refused_and_told(engine, server, store, registered):
    """The operator changed a rule while the client was away, or a moment before its list arrived."""
    uid = registered[0].uid
    do(store, PutSites(uid, [{"domain": "a.example.org", "port": 80}]))
    peer, ready = await log_in(engine, registered[1])
    do(store, PutSites(uid, [{"domain": "a.example.org", "port": 81}, {"domain": "b.example.org", "port": 1}]))
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),), rules_rev=ready.rules_rev))
    accepted = await hears(peer, m.Accepted)
    assert accepted.stale
    assert accepted.https == ()
    config = next(message for message in peer.heard if isinstance(message, m.Config))  # came before it
    assert [(site.domain, site.port) for site in config.config.https] == [("a.example.org", 81), ("b.example.org", 1)]
    assert [site.rule["port"] for site in store.sites.select(uid)] == [81, 1]

    peer.heard.clear()
    peer.say(m.Services(https=config.config.https, rules_rev=config.rules_rev))
    taken = await hears(peer, m.Accepted)
    assert not taken.stale

    peer.heard.clear()
    peer.say(m.Services(https=(), rules_rev=taken.rules_rev))  # the revision of the answer is that of the next list
    assert not (await hears(peer, m.Accepted)).stale
    assert store.sites.select(uid) == []


async def test_session_old_client_that_counts_nothing_is_believed(engine, store, registered):
    do(store, PutSites(registered[0].uid, [{"domain": "a.example.org", "port": 80}]))
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Services(https=(Site(domain="b.example.org", port=1),)))
    assert not (await hears(peer, m.Accepted)).stale
    assert [site.domain for site in store.sites.select(registered[0].uid)] == ["b.example.org"]


async def test_session_port_maps_reach_the_client(engine, server, store, registered):
    peer, _ = await log_in(engine, registered[1])
    do(store, PutPortMaps(
        registered[0].uid, [{"listenPort": 5432, "dstPort": 22001, "destination": "", "transport": "tcp"}]
    ))
    server.follower.wake()
    (portmap,) = (await hears(peer, m.Config)).config.portmaps
    assert (portmap.listen_port, portmap.dst_port, portmap.destination) == (5432, 22001, "")
    peer.heard.clear()
    do(store, RemovePortMaps(registered[0].uid, [5432]))
    server.follower.wake()
    assert (await hears(peer, m.Config)).config.portmaps == ()


async def test_session_unmanaged_client_gets_no_rules(engine, server, store, registered):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Services(unmanaged=True))
    await hears(peer, m.Accepted)
    with pytest.raises(UnmanagedError):
        do(store, PutSites(registered[0].uid, [{"domain": "b.example.org", "port": 81}]))
    port = do(store, AllocatePort(registered[0].uid, 23000, 29000))  # no rule, and the operator's to give
    await server.follower.catch_up()
    peer.say(m.Request(id=1, op="tunnel.info"))
    assert (await hears(peer, m.Answer)).result["ports"] == [port]
    assert not [message for message in peer.heard if isinstance(message, m.Config)]


async def test_session_port_is_allocated_served_and_released(engine, server, registered):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Request(id=1, op="tcp.allocate"))
    port = (await hears(peer, m.Answer)).result["port"]
    assert port == server.config.tcp_ports.begin
    slot = engine.links[peer.link].tunnel
    assert engine.routes[(RouteKind.TCP, port)] == engine.routes[(RouteKind.UDP, port)] == slot
    assert sorted(kind for kind, at, _ in engine.listeners.values() if at == port) == [3, 3, 4]
    peer.say(m.Services(ports=(Port(port=port, destination="127.0.0.1", dst_port=22),)))
    assert (await hears(peer, m.Accepted)).ports == (m.PortResult(port=port),)
    peer.say(m.Request(id=2, op="tcp.release", args={"port": port}))
    assert (await hears(peer, m.Answer, 2)).result == {}
    assert (RouteKind.TCP, port) not in engine.routes
    assert not [1 for _, at, _ in engine.listeners.values() if at == port]


async def test_session_port_in_use_by_another_program_is_skipped(engine, server, store, registered):
    import socket

    begin = server.config.tcp_ports.begin
    with socket.socket() as other:
        other.bind(("127.0.0.1", begin))
        other.listen()
        peer, _ = await log_in(engine, registered[1])
        peer.say(m.Request(id=1, op="tcp.allocate"))
        assert (await hears(peer, m.Answer)).result == {"port": begin + 1}
    assert [port.port for port in store.ports.select()] == [begin + 1]


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("tcp.release", {"port": 22}, "SPK-NOT-FOUND"),
        ("tcp.release", {"port": "22"}, "SPK-VALUE"),
        ("tcp.release", {}, "SPK-VALUE"),
        ("tunnel.edit", {"name": "x\x00"}, "SPK-VALUE"),
        ("tunnel.fly", {}, "SPK-NOT-FOUND"),
    ],
)
async def test_session_bad_request_is_answered_and_the_session_goes_on(engine, registered, op, args, code):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Request(id=1, op=op, args=args))
    assert (await hears(peer, m.Answer)).error.code == code
    peer.say(m.Request(id=2, op="tunnel.edit", args={"name": "till 5"}))
    assert (await hears(peer, m.Answer, 2)).result == {"name": "till 5"}


async def test_session_shut_down_by_the_operator_ends_at_once_and_stays_out(engine, server, store, registered):
    peer, _ = await log_in(engine, registered[1])
    do(store, SetTunnelState(registered[0].uid, TunnelState.SHUTDOWN))
    server.follower.wake()
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-INACTIVE", False)
    assert peer.link in engine.ended
    again = engine.arrive()
    again.say(hello())
    again.say(m.Login(key=registered[1]))
    assert (await hears(again, m.Bye)).code == "SPK-INACTIVE"


@pytest.mark.parametrize("change", ["deactivate", "renew"])
async def test_session_of_a_key_that_is_changed_ends_at_once_and_stays_out(engine, server, store, registered, change):
    tunnel, key = registered
    peer, ready = await log_in(engine, key)
    additional = await join(engine, ready)
    control, _ = await log_in(engine, key, mode="control")
    if change == "deactivate":
        do(store, SetTunnelKey(tunnel.uid, active=False))
    else:
        renewed = do(store, RenewTunnelKey(tunnel.uid)).value
    server.follower.wake()
    for one in (peer, control):
        bye = await hears(one, m.Bye)
        assert (bye.code, bye.retry) == ("SPK-INACTIVE", False)
    await eventually(lambda: {peer.link, additional.link, control.link} <= set(engine.ended))
    late = engine.arrive()
    late.say(hello())
    late.say(m.Login(key=key))
    assert (await hears(late, m.Bye)).code == ("SPK-INACTIVE" if change == "deactivate" else "SPK-TOKEN")
    if change == "deactivate":
        renewed = do(store, SetTunnelKey(tunnel.uid, active=True)).value
        await server.follower.catch_up()
    back, _ = await log_in(engine, renewed)
    assert back.link in engine.links and not server.follower.is_blocked(tunnel.uid)


async def test_session_stopped_by_the_operator_is_told_to_stay_away_and_its_key_stays_good(engine, server, registered):
    peer, _ = await log_in(engine, registered[1])
    assert server.sessions.stop_tunnel(registered[0].uid)
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-STOPPED", False)
    assert peer.link in engine.ended
    assert not server.sessions.stop_tunnel(registered[0].uid)
    await log_in(engine, registered[1])


async def test_session_deleted_tunnel_ends_and_its_routes_go(engine, server, store, registered):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),)))
    await hears(peer, m.Accepted)
    do(store, DeleteTunnel(registered[0].uid))
    await server.follower.catch_up()
    assert peer.link in engine.ended
    assert {key for key in engine.routes} == {(RouteKind.HTTP, DOMAIN)}
    assert not engine.tunnels
    assert server.registry.generation(registered[0].uid) == 0


@pytest.mark.parametrize(
    "payload", [b"", b"garbage", b'{"type":"services"}', b"\xff" * 100, b'{"type":"login","key":"k"}']
)
async def test_session_garbage_ends_that_link_only(engine, registered, payload):
    good, _ = await log_in(engine, registered[1])
    bad = engine.arrive()
    bad.say_raw(payload)
    assert (await hears(bad, m.Bye)).code == "SPK-PROTOCOL"
    await eventually(lambda: bad.link in engine.ended)
    assert good.link in engine.links


async def test_session_client_that_finds_our_fault_is_heard_and_logged(engine, registered, caplog):
    peer, _ = await log_in(engine, registered[1])
    peer.say(m.Bye(code="SPK-PROTOCOL", reason=m.Reason.PROTOCOL, message="the link protocol was broken"))
    await eventually(lambda: peer.link in engine.ended)
    said = [record for record in caplog.records if record.message == "client ended the link"]
    assert [record.code for record in said] == ["SPK-PROTOCOL"]


async def test_session_flood_of_control_parts_is_cut(engine, registered):
    good, _ = await log_in(engine, registered[1])
    bad = engine.arrive()
    for _ in range(40):
        bad.say_raw(b"x" * PART_BYTES_MAX, FLAG_MORE)
    await eventually(lambda: bad.link in engine.ended)
    assert good.link in engine.links


async def test_session_silent_link_is_closed_at_the_deadline(config):
    from spokes.server.process.app import Server
    from tests.support.fake_engine import FakeEngine

    server = Server(config, make_engine=FakeEngine)
    await server.start()
    server.sessions.unauthenticated.deadline_s = 0.05
    engine = server._engine
    peer = engine.arrive()
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-TIMEOUT", True)
    await server.stop()


async def test_session_peer_gone_in_every_state_leaves_nothing(engine, server, registered):
    for words in ([], [hello()], [hello(), m.Login(key=registered[1])]):
        peer = engine.arrive()
        for message in words:
            peer.say(message)
        peer.hang_up()
    await eventually(lambda: server.sessions.link_count == 0 and len(server.registry) == 0)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("link ")]


async def test_session_too_many_logins_are_told_when_to_come_back(engine, server, registered):
    server.admission.rate_per_s = 0.01
    server.admission._next_start = asyncio.get_running_loop().time() + 60
    peer = engine.arrive()
    peer.say(hello())
    peer.say(m.Login(key=registered[1]))
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-BUSY", True)
    assert bye.retry_after_s > 0


async def test_session_drain_tells_clients_and_says_bye(engine, server, registered):
    peer, _ = await log_in(engine, registered[1])
    engine.streams_open = 1
    stopping = asyncio.ensure_future(server.stop())
    await hears(peer, m.Drain)
    assert engine.links[peer.link].drained
    assert not engine.listeners
    late = engine.arrive()
    assert (await hears(late, m.Bye)).code == "SPK-SHUTDOWN"
    assert not stopping.done()
    engine.streams_open = 0
    bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-SHUTDOWN", True)
    await stopping
    assert not engine.running


async def test_session_drain_second_signal_ends_at_once(engine, server, registered):
    await log_in(engine, registered[1])
    engine.streams_open = 1
    stopping = asyncio.ensure_future(server.stop())
    await eventually(lambda: not engine.listeners)
    server.force_stop()
    async with asyncio.timeout(2):
        await stopping


async def test_sessions_unknown_events_are_ignored(server, engine):
    assert isinstance(server.sessions, Sessions)
    for kind in (EventKind.LINK_WANTED, EventKind.DRAIN, EventKind.CONTROL, EventKind.LINK_DOWN, 99):
        engine.emit(kind, 12345, 1, b"")
    peer = engine.arrive()
    peer.say(hello())
    await hears(peer, m.Welcome)


async def test_session_stream_of_unknown_messages_is_slowed_and_cut(engine, registered):
    good, _ = await log_in(engine, registered[1])
    bad = engine.arrive()
    for _ in range(1500):
        bad.say_raw(b'{"type": "weather"}')
    await eventually(lambda: bad.link in engine.ended)
    assert good.link in engine.links


async def test_session_hundred_requests_at_once_are_answered_at_once(engine, registered):
    peer, _ = await log_in(engine, registered[1])
    for number in range(80):
        peer.say(m.Request(id=number, op="tunnel.info"))
    await hears(peer, m.Answer, 80)


async def test_session_taken_over_loses_every_link_it_had(engine, registered):
    first, ready = await log_in(engine, registered[1])
    additional = [await join(engine, ready) for _ in range(ready.link_count_max - 1)]
    assert len(additional) >= 2
    second, _ = await log_in(engine, registered[1])
    await eventually(lambda: all(one.link in engine.ended for one in (first, *additional)))
    assert second.link in engine.links
