import pytest

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.model import ports
from spokes.model.ports import AllocatePort, PutPortRules, ReleasePort
from spokes.model.tunnels import CreateTunnel
from tests.support.operations import do


@pytest.fixture
def tunnels(store):
    return [do(store, CreateTunnel(name=f"t{n}", domain="tun.example.net"))[0] for n in range(2)]


def test_allocate_port_lowest_free_within_both_bounds(store, tunnels):
    assert [do(store, AllocatePort(tunnels[n % 2].uid, 22000, 22003)) for n in range(4)] == [22000, 22001, 22002, 22003]
    with pytest.raises(LimitError, match="22000-22003"):
        do(store, AllocatePort(tunnels[0].uid, 22000, 22003))
    do(store, ReleasePort(tunnels[1].uid, 22001))
    assert do(store, AllocatePort(tunnels[0].uid, 22000, 22003)) == 22001


def test_allocate_port_outside_ports_do_not_count(store, tunnels):
    do(store, AllocatePort(tunnels[0].uid, 100, 100))
    assert do(store, AllocatePort(tunnels[0].uid, 101, 101)) == 101


def test_list_ports_by_number_and_by_tunnel(store, tunnels):
    for n in (0, 1, 0):
        do(store, AllocatePort(tunnels[n].uid, 22000, 22999))
    assert [(port.port, port.tunnel_uid) for port in store.ports.select()] == [
        (22000, tunnels[0].uid), (22001, tunnels[1].uid), (22002, tunnels[0].uid),
    ]
    assert [port.port for port in store.ports.select(tunnels[0].uid)] == [22000, 22002]
    assert store.ports.select()[0].rule == {"port": 22000}


def test_put_port_rules_replaces_and_clears(store, tunnels):
    do(store, AllocatePort(tunnels[0].uid, 22000, 22000))
    rule = {"destination": "10.0.0.5", "dstPort": 22, "firewall": []}
    (port,) = do(store, PutPortRules(tunnels[0].uid, {22000: {**rule, "port": 9}}))
    assert port.rule == {**rule, "port": 22000}                              # the number is the key, not the rule's say
    assert store.ports.select() == [port]
    before = store.changes.position()
    do(store, PutPortRules(tunnels[0].uid, {22000: rule}))
    assert store.changes.position() == before
    assert do(store, PutPortRules(tunnels[0].uid, {22000: {}}))[0].rule == {"port": 22000}


def test_put_port_rules_not_json_refused(store, tunnels):
    do(store, AllocatePort(tunnels[0].uid, 22000, 22000))
    with pytest.raises(ValueRefusedError):
        do(store, PutPortRules(tunnels[0].uid, {22000: {"destination": object()}}))


@pytest.mark.parametrize("port", [22000, 22001, 0, -1, 65536, 2**80])
def test_port_of_another_or_nobody_not_found(store, tunnels, port):
    do(store, AllocatePort(tunnels[0].uid, 22000, 22000))
    with pytest.raises(NotFoundError):
        do(store, ReleasePort(tunnels[1].uid, port))
    with pytest.raises(NotFoundError):
        do(store, PutPortRules(tunnels[1].uid, {port: {}}))
    assert [held.port for held in store.ports.select()] == [22000]


def test_allocate_port_beyond_a_tunnels_number_refused(store, tunnels, monkeypatch):
    monkeypatch.setattr(ports, "PORT_COUNT_MAX", 2)
    taken = [do(store, AllocatePort(tunnels[0].uid, 22000, 22999)) for _ in range(2)]
    with pytest.raises(LimitError, match="at most 2 ports"):
        do(store, AllocatePort(tunnels[0].uid, 22000, 22999))
    do(store, AllocatePort(tunnels[1].uid, 22000, 22999))
    do(store, ReleasePort(tunnels[0].uid, taken[0]))
    do(store, AllocatePort(tunnels[0].uid, 22000, 22999))
