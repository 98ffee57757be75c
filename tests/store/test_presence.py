import logging

import pytest

from spokes.ids import new_uid
from spokes.model.tunnels import CreateTunnel, DeleteTunnel
from spokes.store import PresenceUpdate, TunnelState
from tests.support.operations import do


@pytest.fixture
def tunnels(store):
    return [do(store, CreateTunnel(name=f"t{n}", domain="tun.example.net"))[0] for n in range(3)]


@pytest.fixture
def statements():
    """Every SQL statement peewee runs, as it logs them."""
    class Collector(logging.Handler):
        def emit(self, record):
            seen.append(record.msg[0])

    seen, collector, logger = [], Collector(), logging.getLogger("peewee")
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.DEBUG)
    yield seen
    logger.removeHandler(collector)
    logger.setLevel(level)


def update(tunnel, state, at=1_800_000_000.0, **texts):
    return PresenceUpdate(tunnel_uid=tunnel.uid, state=state, last_active=at, **texts)


def test_write_presence_is_shown_and_never_logged_as_a_change(store, tunnels):
    before = store.changes.position()
    store.presence.write([update(
        tunnels[0], TunnelState.ONLINE, at=5.5, address="198.51.100.7", version="1.2.0", os="linux", arch="amd64"
    )])
    tunnel = store.tunnels.get(tunnels[0].uid)
    assert (tunnel.state, tunnel.last_active) == (TunnelState.ONLINE, 5.5)
    assert (tunnel.address, tunnel.version, tunnel.os, tunnel.arch) == ("198.51.100.7", "1.2.0", "linux", "amd64")
    assert tunnel.rev == tunnels[0].rev
    assert store.tunnels.get(tunnels[1].uid).state == TunnelState.INIT
    assert store.changes.position() == before


def test_write_presence_empty_texts_leave_what_was_known(store, tunnels):
    known = {"address": "198.51.100.7", "version": "1", "os": "o", "arch": "a"}
    store.presence.write([update(tunnels[0], TunnelState.ONLINE, **known)])
    store.presence.write([update(tunnels[0], TunnelState.OFFLINE, at=7.0)])
    tunnel = store.tunnels.get(tunnels[0].uid)
    assert (tunnel.state, tunnel.last_active) == (TunnelState.OFFLINE, 7.0)
    assert (tunnel.address, tunnel.version, tunnel.os, tunnel.arch) == ("198.51.100.7", "1", "o", "a")


@pytest.mark.parametrize("count", [1, 2_000])
def test_write_presence_any_number_is_one_statement(store, tunnels, statements, count):
    strangers = [
        PresenceUpdate(tunnel_uid=new_uid(), state=TunnelState.ONLINE, last_active=1.0) for _ in range(count - 1)
    ]
    statements.clear()
    store.presence.write([update(tunnels[0], TunnelState.ONLINE), *strangers])
    assert len(statements) == 1
    assert store.tunnels.get(tunnels[0].uid).state == TunnelState.ONLINE


def test_write_presence_is_one_statement_for_the_driver_too(store, tunnels):
    if not store._db.is_sqlite:
        pytest.skip("peewee logs no BEGIN or COMMIT; only SQLite's driver can be asked for them")
    traced = []
    store._db.peewee.connection().set_trace_callback(traced.append)
    store.presence.write([update(tunnel, TunnelState.ONLINE) for tunnel in tunnels])
    store._db.peewee.connection().set_trace_callback(None)
    assert len(traced) == 1


def test_write_presence_nothing_changed_is_no_statement(store, tunnels, statements):
    statements.clear()
    store.presence.write([])
    assert statements == []


def test_reset_presence_is_one_statement_and_leaves_nobody_online(store, tunnels, statements):
    store.presence.write([update(tunnels[0], TunnelState.ONLINE, at=3.0), update(tunnels[1], TunnelState.OFFLINE)])
    statements.clear()
    store.presence.reset()
    assert len(statements) == 1
    assert [store.tunnels.get(tunnel.uid).state for tunnel in tunnels] == [
        TunnelState.OFFLINE, TunnelState.OFFLINE, TunnelState.INIT,
    ]
    assert store.tunnels.get(tunnels[0].uid).last_active == 3.0


def test_write_presence_two_updates_of_one_tunnel_last_counts(store, tunnels):
    first, last = update(tunnels[0], TunnelState.ONLINE, at=1.0), update(tunnels[0], TunnelState.OFFLINE, at=2.0)
    store.presence.write([first, last])
    assert (store.tunnels.get(tunnels[0].uid).state, store.tunnels.get(tunnels[0].uid).last_active) == (3, 2.0)


def test_write_presence_unknown_and_deleted_tunnels_are_passed_over(store, tunnels):
    do(store, DeleteTunnel(tunnels[0].uid))
    store.presence.write([
        update(tunnels[0], TunnelState.ONLINE), update(tunnels[1], TunnelState.ONLINE),
        PresenceUpdate(tunnel_uid=new_uid(), state=TunnelState.ONLINE, last_active=1.0),
        PresenceUpdate(tunnel_uid="\x00", state=TunnelState.ONLINE, last_active=1.0),
    ])
    assert store.tunnels.get(tunnels[0].uid).state == TunnelState.DELETED
    assert store.tunnels.get(tunnels[1].uid).state == TunnelState.ONLINE


@pytest.mark.parametrize(("text", "stored"), [
    ("a\x00b", "a\ufffdb"), ("\ud800", "\ufffd"), ("\x1b[2J", "\ufffd[2J"), ("a\u202eb", "a\ufffdb"),
    ("x" * 10_000, "x" * 255), ("'; DROP TABLE presence; --", "'; DROP TABLE presence; --"), ('"\\{}%s', '"\\{}%s'),
])
def test_write_presence_hostile_texts_of_a_client_are_made_fit(store, tunnels, text, stored):
    store.presence.write([update(tunnels[0], TunnelState.ONLINE, address=text, version=text, os=text, arch=text)])
    tunnel = store.tunnels.get(tunnels[0].uid)
    assert (tunnel.address, tunnel.version, tunnel.os, tunnel.arch) == (stored,) * 4


@pytest.mark.parametrize("state", [TunnelState.SHUTDOWN, TunnelState.DELETED])
def test_write_presence_operator_s_states_are_a_mistake_of_the_program(store, tunnels, state):
    with pytest.raises(ValueError, match="operator"):
        store.presence.write([update(tunnels[0], state)])


def test_statement_count_presence_of_any_number_of_tunnels_is_one_statement(store, tunnels):
    before = store.statement_count
    store.presence.write([update(tunnel, TunnelState.ONLINE) for tunnel in tunnels])
    assert store.statement_count == before + 1
