"""Requests and answers about tunnels. The tunnel object is in spokes/model/api_objects.py, its rules in rules.py."""

from __future__ import annotations

from msgspec import field

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.admin.schema.tokens import Token
from spokes.ids import ZERO_UID
from spokes.model.api_objects import Tunnel
from spokes.wire.api_types import Count, Hostname, Name, Text, Uid


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
