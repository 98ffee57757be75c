"""10,000 tunnels: times are measured and told (`pytest -s -m slow tests/store`), what must not grow is asserted."""

import time

import pytest

from spokes.ids import ZERO_UID
from spokes.model.ports import AllocatePort
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import RegisterTunnel
from spokes.store import PresenceUpdate, TunnelState
from spokes.store.models import TunnelModel
from tests.support.operations import do

COUNT = 10_000
DOMAIN = "tun.example.net"

pytestmark = pytest.mark.slow


def fill(store):
    """COUNT tunnels, written past the change log for speed."""
    uids = [f"{n:032x}" for n in range(1, COUNT + 1)]
    rows = [
        {
            "uid": uid, "user_uid": ZERO_UID, "token_uid": ZERO_UID, "created": float(n), "modified": float(n),
            "name": f"tunnel {n}", "hostname": f"calm-otter-{n}.{DOMAIN}", "shutdown": False, "rev": 0,
        }
        for n, uid in enumerate(uids)
    ]
    with store._db.write() as db:
        for start in range(0, COUNT, 1_000):
            TunnelModel.insert_many(rows[start : start + 1_000]).execute(db)
    return uids


def test_ten_thousand_tunnels_times_are_told(store, store_url, record_property):
    def timed(name, call):
        begin = time.perf_counter()
        result = call()
        took_ms = (time.perf_counter() - begin) * 1000
        record_property(name, f"{took_ms:.1f} ms")
        print(f"{store_url.partition(':')[0]:>10}  {name:<32} {took_ms:8.1f} ms")
        return result

    uids = fill(store)
    print()
    token = do(store, CreateToken("t")).value
    first, key = timed("register one more", lambda: do(store, RegisterTunnel(token=token, name="x", domain=DOMAIN)))
    listed = timed("list_tunnels", store.tunnels.select)
    for share in (100, 1):
        updates = [
            PresenceUpdate(
                tunnel_uid=uid, state=TunnelState.ONLINE, last_active=float(share), address="198.51.100.7",
                version="1.2.0", os="linux", arch="amd64",
            )
            for uid in uids[::share]
        ]
        timed(f"write_presence of {len(updates)}", lambda updates=updates: store.presence.write(updates))
    online = timed("list_tunnels, all online", store.tunnels.select)
    timed("reset_presence", store.presence.reset)
    timed("find_tunnel_by_key", lambda: store.tunnels.find_by_key(key))
    timed("allocate_port", lambda: do(store, AllocatePort(first.uid, 22000, 22999)))

    assert len(listed) == COUNT + 1
    assert len({tunnel.hostname for tunnel in listed}) == COUNT + 1
    assert sum(tunnel.state == TunnelState.ONLINE for tunnel in online) == COUNT
