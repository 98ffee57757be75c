"""Thousands of tunnels in the store of a running server: users, sites, traffic, and none of them on-line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from benchmarks.loads.api_client import open_store, wait_for_admin
from benchmarks.peers import RunningPeer
from benchmarks.peers.spokes import DOMAIN, Control, answers
from benchmarks.processes import BenchmarkError
from spokes.model.operation import SYSTEM, perform
from spokes.model.sites import PutSites
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.store import PresenceUpdate, TrafficDelta, TunnelState

TUNNELS_PER_USER = 5
SERVED_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class StoredFleet:
    tunnel_uids: list[str]
    user_uids: list[str]


def start_with_fleet(peer: RunningPeer, tunnel_count: int) -> StoredFleet:
    """Fills the store and starts the server anew, as one that has had them for long; returns when all is served."""
    control, server = peer.control, peer.processes["server"]
    if not isinstance(control, Control):
        raise BenchmarkError(f"{peer.name} has no Admin API")
    fleet = _fill_store(control, tunnel_count)
    server.restart()
    wait_for_admin(control)
    for service in ("http", "tcp"):
        served = partial(answers, control.room, peer.endpoint(service))
        server.wait_for(served, f"serves {service}", SERVED_WITHIN_S)
    return fleet


def _fill_store(control: Control, tunnel_count: int) -> StoredFleet:
    tunnel_uids, user_uids = [], []
    with open_store(control) as store:
        for number in range(-(-tunnel_count // TUNNELS_PER_USER)):
            user = perform(store, SYSTEM, CreateUser(
                fullname=f"Mara Lind {number}", email=f"mara{number}@example.org", bandwidth_mb=1_000,
            ))
            user_uids.append(user.uid)
        for number in range(tunnel_count):
            owner = user_uids[number // TUNNELS_PER_USER]
            tunnel, _ = perform(store, SYSTEM, CreateTunnel(
                name=f"till {number}", hostname=f"calm-otter-{number}.{DOMAIN}", domain=DOMAIN, user_uid=owner,
            ))
            site = {"domain": f"shop{number}.example.org", "destination": "127.0.0.1"}
            perform(store, SYSTEM, PutSites(tunnel.uid, [site]))
            tunnel_uids.append(tunnel.uid)
        now = time.time()
        store.presence.write(
            PresenceUpdate(
                tunnel_uid=uid, state=TunnelState.OFFLINE, last_active=now, address="198.51.100.7", version="1.2.0",
                os="linux", arch="amd64",
            )
            for uid in tunnel_uids
        )
        store.traffic.add(now, [
            TrafficDelta(tunnel_uid=site.tunnel_uid, service_uid=site.uid, bytes_in=1_000, bytes_out=9_000, conns=1)
            for site in store.sites.select()
        ])
    return StoredFleet(tunnel_uids, user_uids)
