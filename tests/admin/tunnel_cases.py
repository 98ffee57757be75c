"""What the tests of tunnels and rules start from."""

from __future__ import annotations

import dataclasses
from typing import Any

from spokes import clock
from spokes.admin.context import Caller, Role
from spokes.model.tunnels import CreateTunnel
from spokes.store import PresenceUpdate, Store, Tunnel, TunnelState
from tests.support.admin import ADMINISTRATOR, FakeControl
from tests.support.operations import do

DOMAIN = "tun.example.net"
UNKNOWN = "f" * 32


def new_tunnel(store: Store, name: str = "shop till 4", **more: Any) -> Tunnel:
    return do(store, CreateTunnel(name=name, domain=DOMAIN, **more))[0]


def put_online(
    store: Store, control: FakeControl, tunnel: Tunnel, *, uptime_s: int = 5025, sites: tuple[str, ...] = (),
    ports: tuple[int, ...] = (),
) -> None:
    """As the server tells it and as it wrote it down."""
    now = clock.wall_s()
    store.presence.write([PresenceUpdate(
        tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=now, address="198.51.100.7", version="1.2.0",
        os="linux", arch="amd64",
    )])
    control.answers["live"]["tunnels"][tunnel.uid] = {
        "connected_at": now - uptime_s, "uptime_s": uptime_s, "address": "198.51.100.7",
        "version": "1.2.0", "os": "linux", "arch": "amd64",
        "sites": list(sites), "ports": list(ports),
    }


def basic(user_uid: str) -> Caller:
    return dataclasses.replace(ADMINISTRATOR, role=Role.BASIC, user_uid=user_uid)
