import pytest

from spokes import clock
from spokes.ids import ZERO_UID, new_uid
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel, DeleteTunnel, SetTunnelState
from spokes.model.users import CreateUser
from spokes.store import PresenceUpdate, TunnelState
from tests.support.operations import do

DOMAIN = "tun.example.net"


@pytest.fixture
def fleet(store):
    """Tunnels by name, made one second after the other; the last is the newest."""
    named = {}
    for n, name in enumerate(("till 4", "Ladenkasse ÄÖ", "100%_\\ off", "gone", "shut")):
        with clock.replaced(clock.ManualClock(wall_s=1_800_000_000.0 + n)):
            named[name] = do(store, CreateTunnel(name=name, hostname=f"host-{n}.{DOMAIN}", domain=DOMAIN))[0].uid
    store.presence.write([
        PresenceUpdate(
            tunnel_uid=named["till 4"], state=TunnelState.ONLINE, last_active=1.0, address="198.51.100.7",
            version="1.2.0", os="Linux", arch="amd64",
        ),
        PresenceUpdate(
            tunnel_uid=named["100%_\\ off"], state=TunnelState.OFFLINE, last_active=1.0, address="2001:db8::a",
            version="1.12.0", os="windows", arch="arm64",
        ),
    ])
    do(store, PutSites(named["Ladenkasse ÄÖ"], [{"domain": "shop.example.org"}, {"domain": "büro.example.org"}]))
    do(store, DeleteTunnel(named["gone"]))
    do(store, SetTunnelState(named["shut"], TunnelState.SHUTDOWN))
    return named


def names(fleet, uids):
    by_uid = {uid: name for name, uid in fleet.items()}
    return [by_uid[uid] for uid in uids]


def test_list_tunnels_by_state(store, fleet):
    for states, expected in (
        ((TunnelState.ONLINE,), ["till 4"]), ((TunnelState.OFFLINE,), ["100%_\\ off"]),
        ((TunnelState.INIT,), ["Ladenkasse ÄÖ"]), ((TunnelState.SHUTDOWN,), ["shut"]),
        ((TunnelState.DELETED,), ["gone"]), (tuple(TunnelState), list(reversed(fleet))), ((), []),
    ):
        assert names(fleet, [tunnel.uid for tunnel in store.tunnels.select(states=states)]) == expected
        assert all(tunnel.state in states for tunnel in store.tunnels.select(states=states))


def test_list_tunnels_pages_join_to_the_whole(store, fleet):
    whole = store.tunnels.select()
    assert store.tunnels.uids() == [tunnel.uid for tunnel in whole]
    assert [page for n in range(4) for page in store.tunnels.select(limit=1, offset=n)] == whole
    assert store.tunnels.select(limit=0) == store.tunnels.select(limit=5, offset=99) == []


def test_list_tunnels_by_owner(store, fleet):
    user = do(store, CreateUser())
    own, _ = do(store, CreateTunnel(name="mine", domain=DOMAIN, user_uid=user.uid))
    assert store.tunnels.of_user(user.uid) == store.tunnels.select(user_uid=user.uid) == [own]
    assert store.tunnels.search("", user_uid=user.uid) == store.tunnels.uids(user_uid=user.uid) == [own.uid]
    assert own.uid not in store.tunnels.uids(user_uid=ZERO_UID)


def test_count_active_tunnels_neither_deleted_nor_shut_down(store, fleet):
    may_run = (TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE)
    states = [tunnel.state for tunnel in store.tunnels.select(states=TunnelState)]
    assert {state: states.count(state) for state in TunnelState} == dict.fromkeys(TunnelState, 1)
    assert store.tunnels.count_active() == (len(may_run), 1)
    online, = store.tunnels.select(states=[TunnelState.ONLINE])
    do(store, SetTunnelState(online.uid, TunnelState.SHUTDOWN))
    assert store.tunnels.count_active() == (2, 0)
    do(store, SetTunnelState(online.uid, TunnelState.INIT))
    do(store, DeleteTunnel(online.uid))
    assert store.tunnels.count_active() == (2, 0)


def test_get_tunnels_in_the_order_asked_for(store, fleet):
    uids = [fleet["shut"], fleet["gone"], fleet["till 4"]]
    asked = [uids[0], new_uid(), uids[1], "\x00", uids[2], uids[0]]
    assert [tunnel.uid for tunnel in store.tunnels.get_many(asked)] == [*uids, uids[0]]
    assert store.tunnels.get_many([]) == []


def test_services_of_many_tunnels_in_one_statement(store, fleet):
    port = do(store, AllocatePort(fleet["till 4"], 22000, 22999))
    before = store.statement_count
    sites = store.sites.select([fleet["till 4"], fleet["Ladenkasse ÄÖ"], "\x00"])
    ports = store.ports.select(fleet.values())
    assert store.statement_count == before + 2
    assert [site.domain for site in sites] == ["shop.example.org", "xn--bro-hoa.example.org"]
    assert [row.port for row in ports] == [port]
    assert store.sites.select([]) == store.ports.select([]) == []


@pytest.mark.parametrize(("term", "expected"), [
    ("TILL", ["till 4"]), ("host-0", ["till 4"]), ("HOST-", ["shut", "100%_\\ off", "Ladenkasse ÄÖ", "till 4"]),
    ("198.51", ["till 4"]), ("2001:DB8", ["100%_\\ off"]), ("shop.EXAMPLE", ["Ladenkasse ÄÖ"]),
    ("ladenkasse äö", ["Ladenkasse ÄÖ"]), ("BÜRO.example.org", ["Ladenkasse ÄÖ"]), ("é", []),
    ("%", ["100%_\\ off"]), ("_", ["100%_\\ off"]), ("\\", ["100%_\\ off"]), ("%_\\", ["100%_\\ off"]),
    ("gone", []), ("t_ll", []), ("'", []), ("' OR 1=1 --", []), ("\x00", []), ("\ud800", []), ("x" * 100_000, []),
    ("", ["shut", "100%_\\ off", "Ladenkasse ÄÖ", "till 4"]),
])
def test_search_tunnels_by_term(store, fleet, term, expected):
    assert names(fleet, store.tunnels.search(term)) == expected


def test_search_tunnels_by_id(store, fleet):
    uid = fleet["till 4"]
    assert names(fleet, store.tunnels.search(uid[4:20].upper())) == ["till 4"]


@pytest.mark.parametrize(("conditions", "expected"), [
    ({"os": "linux"}, ["till 4"]), ({"os": "LIN"}, []), ({"os": "lin%"}, []), ({"arch": "ARM64"}, ["100%_\\ off"]),
    ({"version": "1."}, ["100%_\\ off", "till 4"]), ({"version": "1.1"}, ["100%_\\ off"]), ({"version": "1_"}, []),
    ({"os": "linux", "arch": "arm64"}, []), ({"term": "off", "os": "windows", "version": "1.12.0"}, ["100%_\\ off"]),
    ({"term": "äö", "os": "linux"}, []), ({"os": "\x00"}, []), ({"version": "\ud800"}, []),
])
def test_search_tunnels_conditions_are_joined_by_and(store, fleet, conditions, expected):
    assert names(fleet, store.tunnels.search(**conditions)) == expected
