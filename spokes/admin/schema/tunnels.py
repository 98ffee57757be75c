"""Tunnels and their services, as lists and dashboards show them. What they serve by is in rules.py."""

from __future__ import annotations

from msgspec import UNSET, UnsetType, field

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.admin.schema.tokens import Token
from spokes.admin.schema.types import Bytes, Count, Enum16, Hostname, Name, PortNumber, Seconds, Text, Time, Uid
from spokes.ids import ZERO_UID


class DataUsage(Part):
    """Bytes both ways, of the calendar day and month in UTC."""

    daily: Bytes
    monthly: Bytes


class HttpService(Part):
    id: Uid
    user_uid: Uid = field(name="userID")
    tunnel_uid: Uid = field(name="tunID")
    active: bool                         # the rule is in force
    available: bool                      # the service can be reached now
    secure: bool
    domain_name: str = field(name="domainName")
    bandwidth: DataUsage


class PortService(Part):
    id: Uid
    user_uid: Uid = field(name="userID")
    tunnel_uid: Uid = field(name="tunID")
    active: bool
    available: bool
    protocol: Enum16
    port: PortNumber
    bandwidth: DataUsage
    label: str


class Tunnel(Part):
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


class Link(Part):
    """A page of a long list; `url` is for people, programs build the path from `uid`."""

    uid: Uid
    order: Count
    count: Count
    url: str


class DetailsQuery(Request):
    """Exactly `true` switches it on; anything else is as if it were not there."""

    details: Text = ""


class SearchRequest(Request):
    """An empty text is met by every tunnel."""

    term: Text = ""
    os: Text = ""
    arch: Text = ""
    version: Text = ""


class CreateTunnelRequest(Request):
    user_uid: Uid = field(name="userID", default=ZERO_UID)
    tunnel_uid: Uid = field(name="tunID", default=ZERO_UID)
    name: Name = ""
    hostname: Hostname = ""


class PagesAnswer(Answer):
    total: Count
    links: list[Link]


class TunnelsAnswer(Answer):
    tunnels: list[Tunnel]


class AllTunnelsAnswer(TunnelsAnswer):
    """A complete list."""

    total: Count


class TunnelRequest(Request):
    tunnel_uid: Uid = field(name="tunID")


class EditTunnelKeyRequest(TunnelRequest):
    active: bool


class SearchAnswer(AllTunnelsAnswer):
    """`tunnels` is the first page, `links` are all pages."""

    links: list[Link]


class TunnelAnswer(Answer):
    tunnel: Tunnel


class AuthTokenAnswer(Answer):
    token: Token


class NewTunnelAnswer(TunnelAnswer):
    token: Token
