"""Sessions to the nodes of a cluster, over servers of the test's own: who has one when, and what one node's fate does
to the others."""

import asyncio

import pytest

from spokes._fastpath.engine import LinkDown
from spokes.client import node as node_module
from spokes.client import node_discovery, nodes
from spokes.client.app import App
from spokes.client.config import ClientConfig
from spokes.client.configured_rules import ConfiguredRules
from spokes.client.endpoint import Endpoint
from spokes.client.reconnect import Backoff
from spokes.client.status import node_figures
from spokes.errors import RemoteError
from spokes.resolver import Answer, ServiceAnswer, ServiceRecord
from spokes.wire.messages import Bye, Config, Fault
from spokes.wire.rules import Site, TunConfig
from tests.client.fake_engine import HOSTNAME, FakeServer
from tests.client.test_app import Recorder, read, running, write
from tests.support.eventually import eventually

ADDRESSES = {"tun.example": "127.0.0.9", "a.example": "127.0.0.1", "b.example": "127.0.0.2", "c.example": "127.0.0.3"}
A, B, C = "a.example", "b.example", "c.example"


class Names:
    """A resolver whose answers the test changes."""

    def __init__(self):
        self.nodes = ((10, A), (20, B), (30, C))

    async def addresses(self, host):
        return Answer((ADDRESSES[host],))

    async def services(self, name):
        assert name == "_spokes._tcp.tun.example"
        return ServiceAnswer(tuple(ServiceRecord(priority, 1, host, 443) for priority, host in self.nodes), 0.0)

    def files_version(self):
        return 0

    def use_servers(self, servers):
        pass


class ClusterConsole(Recorder):
    def node_changed(self, app, node, error):
        self.calls.append((str(node), error.code if error else ""))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(node_discovery, "ASK_INTERVAL_S_MIN", 0.005)
    monkeypatch.setattr(node_module, "DRAIN_CHECK_INTERVAL_S", 0.001)
    monkeypatch.setattr(nodes, "RETURN_STABLE_S", 0.05)


@pytest.fixture
def servers(engine):
    found = {host: FakeServer() for host in ADDRESSES}
    for server in found.values():
        server.count_rules = True
    engine.servers = {ADDRESSES[host]: server for host, server in found.items()}
    return found


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def console():
    return ClusterConsole()


@pytest.fixture
def make_app(engine, servers, names, config_path, console):
    write(config_path, serverHost="tun.example:8443", https=[{"domain": "a.test", "port": 8080}])

    def make(**attributes):
        config = ClientConfig.load(config_path)
        return App(
            engine, endpoint=Endpoint.of(config), key="k" * 64, rules=ConfiguredRules(config_path), console=console,
            resolver=names, make_backoff=lambda: Backoff(base_s=0.001, cap_s=0.001), ha_mode=config.ha_mode,
            reread=lambda: ClientConfig.load(config_path), **attributes,
        )  # fmt: skip

    return make


def states(app):
    return {node.address.host: node.state for node in app.nodes}


def cut(engine, server, code=LinkDown.DEAD):
    for link in engine.links_to(server):
        engine.cut(link, code)


ALL_ONLINE = {A: "online", B: "online", C: "online"}


async def test_active_active_every_node_has_a_session_and_the_rules(engine, servers, make_app, console):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        assert sorted(engine.tunnels) == sorted({node.tunnel for node in app.nodes})
        for host in (A, B, C):
            assert [site.domain for site in servers[host].services[-1].https] == ["a.test"]
        assert {figure["hostname"]: figure["rttMs"] for figure in node_figures(app)} == {A: 1.5, B: 1.5, C: 1.5}
        assert console.calls.count("online") == 1  # addresses and tables are said once
    assert servers["tun.example"].logins == []
    assert [len(server.byes) for server in (servers[A], servers[B], servers[C])] == [1, 1, 1]


async def test_node_lost_others_go_on_and_it_comes_back(engine, servers, make_app, console):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        engine.refused[ADDRESSES[B]] = (LinkDown.SYSTEM, b"Connection refused")
        others = engine.links_to(servers[A]) + engine.links_to(servers[C])
        cut(engine, servers[B])
        await eventually(lambda: (B, "SPK-UNREACHABLE") in console.calls)
        assert app.state == "online"
        engine.refused.clear()
        await eventually(lambda: states(app) == ALL_ONLINE)
        assert engine.links_to(servers[A]) + engine.links_to(servers[C]) == others
        assert console.calls.count("online") == 1


async def test_node_that_hangs_delays_neither_others_nor_changes(engine, servers, make_app, config_path):
    servers[A].silent = True
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE | {A: "connecting"})
        write(config_path, https=[{"domain": "a.test", "port": 8080}, {"domain": "b.test", "port": 81}])
        assert [one.domain for one in (await app.rules.apply()).https] == ["a.test", "b.test"]
        assert [site.domain for site in servers[B].services[-1].https] == ["a.test", "b.test"]
        assert len(servers[C].services) == 1  # one node is told; the cluster tells the others


async def test_same_revision_from_several_nodes_is_merged_once(engine, servers, make_app, config_path):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        merged = []
        take_remote = app.rules._rules.take_remote
        app.rules._rules.take_remote = lambda config: (merged.append(config), take_remote(config))
        newer = TunConfig(hostname=HOSTNAME, https=(Site(domain="b.test", port=2),))
        for host in (B, A, C):
            servers[host].rules_rev = 40
            servers[host].change(newer)
        for host in (B, A, C):
            (link,) = engine.links_to(servers[host])
            engine.push(link, config_of(servers[host]))
        await eventually(lambda: all(len(servers[host].services) == 2 for host in (A, B, C)))
        assert merged == [newer]
        assert [rule["domain"] for rule in read(config_path)["https"]] == ["b.test"]
        assert {servers[host].services[-1].rules_rev for host in (A, B, C)} == {41}
        (link,) = engine.links_to(servers[C])
        servers[C].rules_rev = 30
        servers[C].config = TunConfig(hostname=HOSTNAME)
        engine.push(link, config_of(servers[C]))  # it lags
        await eventually(lambda: len(servers[C].services) == 3)
        assert merged == [newer]
        assert [site.domain for site in servers[C].services[-1].https] == ["b.test"]


def config_of(server):
    return Config(config=server.config, rules_rev=server.rules_rev)


async def test_ready_of_a_node_that_lags_takes_no_rule_away(engine, servers, make_app, config_path):
    """Not even where no other node is up any more."""
    write(config_path, ha="master-only")
    servers[A].rules_rev = 10
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        engine.refused[ADDRESSES[A]] = (LinkDown.SYSTEM, b"Connection refused")
        cut(engine, servers[A])
        await eventually(lambda: states(app).get(B) == "online")
        assert [site.domain for site in servers[B].services[-1].https] == ["a.test"]
        assert [rule["domain"] for rule in read(config_path)["https"]] == ["a.test"]


async def test_rule_that_one_node_alone_refuses_is_told_and_runs_at_the_others(servers, make_app):
    servers[C].faults["a.test"] = Fault(code="SPK-TAKEN", message="held by another tunnel")
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        assert any("a.test: held by another tunnel" in trouble.line for trouble in app.troubles)
        assert [one.error for one in app.rules.accepted.https] == [None]


async def test_refused_by_one_node_the_client_goes_on(engine, servers, make_app):
    servers[B].bye = Bye(code="SPK-TOKEN", message="unknown key", retry=False)  # a replica that lags
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app).get(A) == "online")
        await eventually(lambda: any("SPK-TOKEN" in one.line for one in app.troubles))
        servers[B].bye = None
        await eventually(lambda: states(app) == ALL_ONLINE)


async def test_refused_by_every_node_the_client_ends(servers, make_app):
    for host in (A, B, C):
        servers[host].bye = Bye(code="SPK-TOKEN", message="unknown key", retry=False)
    with pytest.raises(RemoteError, match="unknown key"):
        await asyncio.wait_for(make_app().run(), 20)


async def test_replaced_at_one_node_by_another_client_the_client_ends(engine, servers, make_app):
    app = make_app()
    with pytest.raises(RemoteError) as caught:
        async with running(app) as task:
            await eventually(lambda: states(app) == ALL_ONLINE)
            (link,) = engine.links_to(servers[B])
            engine.push(link, Bye(code="SPK-REPLACED", message="another client logged in", retry=False))
            await task
    assert caught.value.code == "SPK-REPLACED"


async def test_two_names_of_one_server_get_one_session_and_it_is_said(engine, servers, names, make_app, monkeypatch):
    monkeypatch.setitem(ADDRESSES, B, ADDRESSES[A])
    names.nodes = ((10, A), (20, B))
    app = make_app()
    async with running(app):
        await eventually(lambda: len(servers[A].logins) == 2 and states(app) == {A: "online", B: "online"})
        first = engine.links_to(servers[A])[0]  # as the server does when the second one logs in
        engine.push(first, Bye(code="SPK-REPLACED", message="another client logged in", retry=False))
        await eventually(lambda: "idle" in states(app).values())
        assert any("is the same server as" in trouble.line for trouble in app.troubles)
        assert app.state == "online"
        assert len(servers[A].logins) == 2
        assert any(figure["state"].startswith("duplicate of") for figure in node_figures(app))


async def test_node_added_and_one_removed_is_drained_first(engine, servers, names, make_app):
    names.nodes = ((10, A), (20, B))
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == {A: "online", B: "online"})
        (leaving,) = engine.links_to(servers[B])
        tunnel = app.nodes.listed[1].tunnel
        engine.streams_open = 1
        names.nodes = ((10, A), (20, C))
        await eventually(lambda: leaving in engine.drained and states(app).get(C) == "online")
        assert leaving in engine.links
        assert servers[B].byes == []
        engine.streams_open = 0
        await eventually(lambda: engine.closed_tunnels == [tunnel])
        assert len(servers[B].byes) == 1
        assert states(app) == {A: "online", C: "online"}
        assert {one["name"] for one in app.supervisor.figures()} >= {f"session {A}", f"session {C}"}
        assert f"session {B}" not in {one["name"] for one in app.supervisor.figures()}
        names.nodes = ((10, A), (20, B))  # and it may come again
        await eventually(lambda: states(app) == {A: "online", B: "online"})


async def test_records_that_lead_nowhere_take_no_session_away(engine, servers, names, make_app):
    names.nodes = ((10, A),)
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == {A: "online"})
        engine.refused[ADDRESSES[C]] = (LinkDown.SYSTEM, b"Connection refused")
        names.nodes = ((10, C),)
        await eventually(lambda: states(app).get(C) in ("waiting", "connecting") and len(states(app)) == 2)
        assert states(app).get(A) == "online"
        engine.refused.clear()
        await eventually(lambda: states(app) == {C: "online"})


async def test_new_name_of_the_same_server_gets_the_place_of_the_old_one(engine, servers, names, make_app):
    """The server takes the session under the old name for another client's, and lets no second one in."""
    names.nodes = ((10, A),)
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == {A: "online"})
        servers[C].bye = Bye(code="SPK-COPY", message="another client of this tunnel is connected", retry=True)
        names.nodes = ((10, C),)
        await eventually(lambda: A not in states(app))
        servers[C].bye = None
        await eventually(lambda: states(app) == {C: "online"})


async def test_no_records_the_cluster_name_is_the_only_node(servers, names, make_app, engine):
    names.nodes = ()
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        assert engine.dialled == [("127.0.0.9", 8443)]
        assert not app.is_cluster
        assert "session" in {one["name"] for one in app.supervisor.figures()}


async def test_master_only_one_node_serves_it_is_followed_and_returned_to(engine, servers, make_app, config_path):
    write(config_path, ha="master-only")
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == {A: "online", B: "idle", C: "idle"})
        engine.refused[ADDRESSES[A]] = (LinkDown.SYSTEM, b"Connection refused")
        cut(engine, servers[A])
        await eventually(lambda: states(app).get(B) == "online")
        engine.refused[ADDRESSES[B]] = (LinkDown.SYSTEM, b"Connection refused")
        cut(engine, servers[B])
        await eventually(lambda: states(app).get(C) == "online")
        engine.refused.clear()
        await eventually(lambda: states(app) == {A: "online", B: "idle", C: "idle"})
        assert "control" in servers[A].logins  # watched before it served again
        assert servers[A].logins[-1] == "serve"
        assert servers[C].logins == ["serve"]
        assert servers[C].byes


async def test_master_only_node_that_comes_and_goes_is_not_returned_to(
    engine, servers, make_app, config_path, monkeypatch
):
    monkeypatch.setattr(nodes, "RETURN_STABLE_S", 3600.0)
    write(config_path, ha="master-only")
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        cut(engine, servers[A])
        engine.refused[ADDRESSES[A]] = (LinkDown.SYSTEM, b"Connection refused")
        await eventually(lambda: states(app).get(B) == "online")
        engine.refused.clear()
        for count in range(1, 4):
            await eventually(
                lambda: states(app).get(A) == "watched" and servers[A].logins.count("control") >= count  # noqa: B023
            )
            cut(engine, servers[A])
        assert states(app).get(B) == "online"
        assert servers[A].logins.count("serve") == 1
        await eventually(lambda: states(app).get(A) == "watched" and servers[A].logins.count("control") == 4)
        cut(engine, servers[B])  # now it is wanted at once
        engine.refused[ADDRESSES[B]] = (LinkDown.SYSTEM, b"Connection refused")
        await eventually(lambda: states(app).get(A) == "online")


async def test_master_only_node_that_hangs_is_passed_over(servers, make_app, config_path, monkeypatch):
    monkeypatch.setattr(nodes, "FAILOVER_PATIENCE_S", 0.05)
    write(config_path, ha="master-only")
    servers[A].silent = True
    app = make_app()
    async with running(app):
        await eventually(lambda: "online" in states(app).values())
        assert states(app).get(A) != "online"


async def test_reload_another_choice_of_nodes_is_in_force_at_once(servers, make_app, config_path):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        write(config_path, ha="master-only")
        app.reload()
        await eventually(lambda: states(app) == {A: "online", B: "idle", C: "idle"})
        write(config_path, ha="active-active")
        app.reload()
        await eventually(lambda: states(app) == ALL_ONLINE)
    assert servers[A].logins == ["serve"]


async def test_reload_another_server_ends_the_sessions_at_every_node(servers, names, make_app, config_path, engine):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        write(config_path, serverHost="127.0.0.9:8443")
        app.reload()
        await eventually(lambda: states(app) == {"127.0.0.9": "online"})
        assert [len(servers[host].byes) for host in (A, B, C)] == [1, 1, 1]


async def test_each_node_may_have_a_key_of_its_own(engine, servers, make_app, config_path):
    for number, host in enumerate((A, B, C)):
        servers[host].key_sha256 = bytes([number]) * 32
    write(config_path, serverKey="00" * 32, serverKeys=["01" * 32, "02" * 32])
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        assert set(engine.server_names) == {A, B, C}
        tried = len(engine.pins)
        cut(engine, servers[C])
        await eventually(lambda: len(servers[C].logins) == 2 and states(app) == ALL_ONLINE)
        assert engine.pins[tried:] == [b"\x02" * 32]  # the right one first


async def test_without_a_pin_the_certificate_must_be_of_the_configured_name(engine, servers, make_app, config_path):
    """Whoever forges DNS has certificates for names of theirs, and must not be sent the tunnel's key."""
    write(config_path, serverKey=None)
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
    assert set(engine.server_names) == {"tun.example"}


async def test_wanted_links_are_opened_for_the_node_that_wants_them(engine, servers, make_app):
    app = make_app()
    async with running(app):
        await eventually(lambda: states(app) == ALL_ONLINE)
        (link,) = engine.links_to(servers[B])
        engine.want_link(link)
        await eventually(lambda: len(engine.links_to(servers[B])) == 2)
        assert (servers[A].joined, servers[C].joined) == ([], [])
        assert app.link_count() == 4
