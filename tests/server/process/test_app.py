"""The server's life: start, failures of the start, restart, reload, status."""

import asyncio
import dataclasses
import os
import stat

import pytest

from spokes._fastpath.engine import ListenerKind, RouteKind
from spokes.config_values import Address
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import AddressInUseError, DataLockedError, StoreError
from spokes.model.operation import perform
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel, RegisterTunnel, SetTunnelState
from spokes.server.process import control
from spokes.server.process.app import Server
from spokes.server.process.run import banner
from spokes.store import Store, TunnelState
from spokes.store.error_mapping import explained
from spokes.wire import messages as m
from spokes.wire.rules import Site
from tests.server.conftest import DOMAIN
from tests.server.sessions.test_sessions import hears, hello, log_in
from tests.support.descriptors import open_fds
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.operations import do


async def test_server_start_and_stop_leave_no_descriptor(config):
    server = Server(config, make_engine=FakeEngine)
    await server.start()
    await server.stop()
    before = open_fds()
    server = Server(config, make_engine=FakeEngine)
    await server.start()
    assert open_fds() - before
    await server.stop()
    assert open_fds() <= before


async def test_server_address_in_use_fails_before_anything_is_served(config, server):
    taken = server.addresses(ListenerKind.HTTP)
    second = dataclasses.replace(config, data=config.data / "other", http=tuple(taken))
    before = open_fds()
    with pytest.raises(AddressInUseError, match=str(taken[0].port)):
        await Server(second, make_engine=FakeEngine).start()
    assert open_fds() <= before


async def test_server_address_for_metrics_in_use_fails_before_anything_is_served(config, server):
    taken = server.addresses(ListenerKind.HTTP)[0]
    second = dataclasses.replace(config, data=config.data / "other", admin=True, metrics=taken)
    before = open_fds()
    with pytest.raises(AddressInUseError, match=str(taken.port)):
        await Server(second, make_engine=FakeEngine).start()
    assert open_fds() <= before


async def test_server_second_in_one_directory_is_refused(config, server):
    with pytest.raises(DataLockedError, match=str(os.getpid())):
        await Server(config, make_engine=FakeEngine).start()
    assert await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "status")


async def test_server_first_token_is_in_a_private_file_and_works(server, store):
    path = await server.offer_first_token()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = path.read_text().strip()
    do(store, RegisterTunnel(token=token, name="t", domain=DOMAIN))
    assert await server.offer_first_token() == path
    assert len(store.tokens.select()) == 1
    lines = "\n".join(banner(server, with_token=True))
    port = server.addresses(ListenerKind.TLS)[0].port
    assert f"--url https://{DOMAIN}:{port} --server-key {server.link_certificate.fingerprint}" in lines
    assert token not in lines


async def test_change_that_the_server_was_not_told_of_acts_when_the_control_socket_is_back(config, monkeypatch):
    monkeypatch.setattr(control, "CHECK_INTERVAL_S", 0.05)
    server = Server(config, make_engine=FakeEngine)
    await server.start()
    try:
        path = server.directory / CONTROL_SOCKET_NAME
        path.unlink()
        tunnel, _ = do(server._store.store, CreateTunnel(name="shop", domain=DOMAIN))
        await eventually(lambda: (RouteKind.HTTP, tunnel.hostname) in server._engine.routes)
        assert await asyncio.to_thread(call_control, path, "status")
    finally:
        server.force_stop()
        await server.stop()


async def test_server_killed_and_started_again_serves_the_same_names_and_ports(config):
    first = Server(config, make_engine=FakeEngine)
    await first.start()
    store = first._store.store
    tunnel, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    port = do(store, AllocatePort(tunnel.uid, config.tcp_ports.begin, config.tcp_ports.end))
    do(store, PutSites(tunnel.uid, [{"domain": "shop.example.org", "port": 1, "tls": 443}]))
    await first.follower.catch_up()
    await log_in(first._engine, key)
    await first.presence.flush()
    first.force_stop()
    await first.stop()
    with Store.open(config.store_url) as left:  # as a killed server leaves it
        from spokes.store import PresenceUpdate

        left.presence.write([PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=1.0)])
    second = Server(config, make_engine=FakeEngine)
    await second.start()
    engine = second._engine
    slot = engine.routes[(RouteKind.HTTP, tunnel.hostname)]
    assert {key: to for key, to in engine.routes.items() if to == slot} == {
        (RouteKind.HTTP, tunnel.hostname): slot,
        (RouteKind.HTTP, "shop.example.org"): slot,
        (RouteKind.TLS, "shop.example.org"): slot,
        (RouteKind.TCP, port): slot,
        (RouteKind.UDP, port): slot,
    }
    assert second._store.store.tunnels.get(tunnel.uid).state is TunnelState.OFFLINE
    _, ready = await log_in(engine, key)
    assert ready.hostname == tunnel.hostname
    assert [one.port for one in ready.config.ports] == [port]
    second.force_stop()
    await second.stop()


async def test_server_status_and_tunnels_over_the_control_socket(server, engine, store):
    _tunnel, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    peer, _ = await log_in(engine, key)
    path = server.directory / CONTROL_SOCKET_NAME
    status = await asyncio.to_thread(call_control, path, "status")
    assert status["tunnels"] == {"online": 1, "active": 1}
    assert status["store"]["statements_total"] > 0
    assert status["store"]["statements_total"] > 0
    assert status["link_key"] == server.link_certificate.fingerprint
    (one,) = await asyncio.to_thread(call_control, path, "tunnels")
    assert one["id"] == _tunnel.uid
    assert one["hostname"] == _tunnel.hostname
    await asyncio.to_thread(call_control, path, "close_tunnel", id=_tunnel.uid)
    await eventually(lambda: peer.link in engine.ended)


async def test_server_change_of_another_process_acts_when_told(config, server, engine):
    with Store.open(config.store_url) as other:
        tunnel, key = do(other, RegisterTunnel(token=do(other, CreateToken("t")).value, name="shop", domain=DOMAIN))
        peer, _ = await log_in(engine, key)
        do(other, SetTunnelState(tunnel.uid, TunnelState.SHUTDOWN))
    await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "changed")
    assert peer.link in engine.ended


async def test_server_reload_changes_what_changed_and_nothing_else(config):
    current = [config]
    server = Server(config, reread=lambda: current[0], make_engine=FakeEngine)
    await server.start()
    engine = server._engine
    before = dict(engine.listeners)
    (https,) = server.addresses(ListenerKind.TLS)
    current[0] = dataclasses.replace(
        config, http=(*config.http, Address("127.0.0.2", 0)), tcp_ports=config.tcp_ports, drain_timeout_s=1.0, workers=7
    )
    assert await server.reload() == ["workers"]
    assert server.addresses(ListenerKind.TLS) == [https]
    assert {address.host for address in server.addresses(ListenerKind.HTTP)} == {"127.0.0.1", "127.0.0.2"}
    assert before.items() <= engine.listeners.items()
    assert (server.config.drain_timeout_s, server.config.workers) == (1.0, 2)
    current[0] = config
    await server.reload()
    assert engine.listeners == before
    await server.stop()


async def test_server_urls_have_the_public_ports_and_follow_a_reload(config):
    current = [dataclasses.replace(config, public_http_port=80, public_https_port=8443)]
    server = Server(current[0], reread=lambda: current[0], make_engine=FakeEngine)
    await server.start()
    store, engine = server._store.store, server._engine
    tunnel, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    peer, ready = await log_in(engine, key)
    assert ready.urls == (f"http://{tunnel.hostname}", f"https://{tunnel.hostname}:8443")
    assert f"--url https://{DOMAIN}:8443" in banner(server, with_token=False)[-1]
    current[0] = config
    assert await server.reload() == []
    told = await hears(peer, m.Address)
    peer.say(m.Request(id=1, op="tunnel.info"))
    listening = [server.addresses(kind)[0].port for kind in (ListenerKind.HTTP, ListenerKind.TLS)]
    urls = (await hears(peer, m.Answer)).result["urls"]
    assert urls == [f"http://{tunnel.hostname}:{listening[0]}", f"https://{tunnel.hostname}:{listening[1]}"]
    assert told.url == urls[0]
    await server.stop()


async def test_server_reload_with_an_address_in_use_changes_nothing(config):
    current = [config]
    server = Server(config, reread=lambda: current[0], make_engine=FakeEngine)
    await server.start()
    (https,) = server.addresses(ListenerKind.TLS)
    before = dict(server._engine.listeners)
    current[0] = dataclasses.replace(config, http=(https,))
    with pytest.raises(AddressInUseError):
        await server.reload()
    assert server._engine.listeners == before
    assert server.config == config
    await server.stop()


async def test_server_presence_is_one_statement_for_many_tunnels(server, engine, store, monkeypatch):
    calls = []
    write = store.presence.write
    monkeypatch.setattr(store.presence, "write", lambda updates: (calls.append(len(updates)), write(updates)))
    server.presence.interval_s = 3600
    await server.presence.flush()
    await eventually(lambda: True)
    calls.clear()
    token = do(store, CreateToken("t"))
    keys = [do(store, RegisterTunnel(token=token.value, name=str(number), domain=DOMAIN))[1] for number in range(20)]
    for key in keys:
        await log_in(engine, key)
    await server.presence.flush()
    await server.presence.flush()
    assert sum(calls) == 20
    assert len(calls) <= 2  # the interval that was under way may have taken a part


async def test_server_store_failure_refuses_logins_for_a_while_only(server, engine, store, monkeypatch):
    def broken(key):
        raise explained(OSError("database or disk is full"), "/var/lib/spokes/spokes.db")

    monkeypatch.setattr("spokes.server.sessions.sessions.STORE_RETRY_S", 0.05)
    _, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    serving, _ = await log_in(engine, key)
    with monkeypatch.context() as patch:
        patch.setattr(store.tunnels, "find_by_key", broken)
        peer = engine.arrive()
        peer.say(hello())
        peer.say(m.Login(key=key))
        bye = await hears(peer, m.Bye)
    assert (bye.code, bye.retry) == ("SPK-STORE", True)
    assert "the disk is full" in bye.message
    assert "/var" not in bye.message     # where it stands is for the operator alone
    assert serving.link in engine.links
    await log_in(engine, key)


async def test_server_store_failure_delays_a_sessions_rules_and_does_not_end_it(server, engine, store, monkeypatch):
    calls = []

    def broken_at_first(*args):
        calls.append(args)
        if len(calls) < 3:
            raise StoreError("the database server cannot be reached")
        return perform(*args)

    monkeypatch.setattr("spokes.server.sessions.backlog.STORE_RETRY_S", 0.01)
    monkeypatch.setattr("spokes.server.sessions.services.perform", broken_at_first)
    _, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    peer, _ = await log_in(engine, key)
    peer.say(m.Services(https=(Site(domain="a.example.org", port=80),)))
    assert (await hears(peer, m.Accepted)).https == (m.SiteResult(domain="a.example.org"),)
    assert len(calls) == 3
    assert peer.link in engine.links
