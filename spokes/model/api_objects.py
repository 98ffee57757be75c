"""Tunnels and services as the API answers them and webhooks tell them: each member is declared and filled in here.

What is live (a session, whether a service answers) is the caller's to say; nobody else knows it.
Source: the Admin API's objects, docs/admin-api.md; a service's event in docs/webhooks.md has the same.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import UNSET, Struct, UnsetType, field

from spokes import store
from spokes.store import TunnelState, Usage
from spokes.wire.api_types import Bytes, Enum16, PortNumber, Seconds, Time, Uid, time_text

PROTOCOL_TCP = 1
_SEEN = (TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE)
_NOTHING = Usage()


class DataUsage(Struct, kw_only=True):
    """Bytes both ways, of the calendar day and month in UTC."""

    daily: Bytes
    monthly: Bytes


class HttpService(Struct, kw_only=True):
    id: Uid
    user_uid: Uid = field(name="userID")
    tunnel_uid: Uid = field(name="tunID")
    active: bool                         # the rule is in force
    available: bool                      # the service can be reached now
    secure: bool
    domain_name: str = field(name="domainName")
    bandwidth: DataUsage


class PortService(Struct, kw_only=True):
    id: Uid
    user_uid: Uid = field(name="userID")
    tunnel_uid: Uid = field(name="tunID")
    active: bool
    available: bool
    protocol: Enum16                     # 1 TCP, 2 UDP
    port: PortNumber
    bandwidth: DataUsage
    label: str


class Tunnel(Struct, kw_only=True):
    """`https` and `ports` only where details were asked for."""

    id: Uid
    user_uid: Uid = field(name="userID")
    created: Time
    last_active: Time = field(name="lastActive")
    state: Enum16
    uptime: Seconds
    bandwidth: DataUsage
    name: str
    hostname: str
    address: str
    version: str
    os: str
    arch: str
    https: list[HttpService] | UnsetType = UNSET
    ports: list[PortService] | UnsetType = UNSET


class Client(Protocol):
    """Where a tunnel's client is and what it runs on: of its session, or as it was last."""

    @property
    def address(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def os(self) -> str: ...
    @property
    def arch(self) -> str: ...


def tunnel_object(
    tunnel: store.Tunnel, *, state: TunnelState, last_active: float, uptime_s: int, usage: Usage | None, client: Client
) -> Tunnel:
    """Without its services."""
    return Tunnel(
        id=tunnel.uid,
        user_uid=tunnel.user_uid,
        created=time_text(tunnel.created),
        last_active=time_text(last_active),
        state=int(state),
        uptime=uptime_s,
        bandwidth=_usage_object(usage),
        name=tunnel.name,
        hostname=tunnel.hostname,
        address=client.address,
        version=client.version,
        os=client.os,
        arch=client.arch,
    )


def site_object(
    site: store.Site, tunnel: store.Tunnel, *, is_active: bool, is_available: bool, usage: Usage | None
) -> HttpService:
    return HttpService(
        id=site.uid,
        user_uid=tunnel.user_uid,
        tunnel_uid=tunnel.uid,
        active=is_active,
        available=is_available,
        secure=bool(site.rule.get("secure") or site.rule.get("tls")),
        domain_name=site.domain,
        bandwidth=_usage_object(usage),
    )


def port_object(
    port: store.Port, tunnel: store.Tunnel, *, is_active: bool, is_available: bool, usage: Usage | None
) -> PortService:
    """It carries TCP and UDP alike, and is told as TCP."""
    return PortService(
        id=port.uid,
        user_uid=tunnel.user_uid,
        tunnel_uid=tunnel.uid,
        active=is_active,
        available=is_available,
        protocol=PROTOCOL_TCP,
        port=port.port,
        bandwidth=_usage_object(usage),
        label="",
    )


def is_decided(state: TunnelState) -> bool:
    """A state that an operator decided, which outweighs whether the client is here."""
    return state not in _SEEN


def _usage_object(usage: Usage | None) -> DataUsage:
    usage = usage or _NOTHING
    return DataUsage(daily=usage.daily, monthly=usage.monthly)
