"""Tunnels: lists and pages, search, one tunnel with its token and rules, and its shutdown."""

from __future__ import annotations

from collections.abc import Sequence

from spokes.admin.context import Admin, Caller
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.rules import ConfigAnswer
from spokes.admin.schema.tunnels import (
    AllTunnelsAnswer,
    AuthTokenAnswer,
    DetailsQuery,
    Link,
    PagesAnswer,
    SearchAnswer,
    SearchRequest,
    TunnelAnswer,
    TunnelsAnswer,
)
from spokes.admin.scope import own_tunnel, owner_filter
from spokes.admin.tunnel_objects import auth_token_object, live_tunnels, tunnel_object, tunnel_objects
from spokes.model.api_objects import Tunnel
from spokes.model.tunnels import SetTunnelState
from spokes.store import Tunnel as StoredTunnel
from spokes.store import TunnelState
from spokes.wire.rules import TunConfig, with_rules

PAGE_PATH = "/api/admin/v1.0/tunnel/page"
ACTIVE = frozenset({TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE})
ONLINE = frozenset({TunnelState.ONLINE})


def list_pages(admin: Admin, caller: Caller, body: None) -> PagesAnswer:
    """All tunnels, newest first, as pages to be fetched one by one."""
    uids = admin.store.tunnels.uids(user_uid=owner_filter(caller))
    return PagesAnswer(total=len(uids), links=_freeze(admin, caller, uids))


def list_active(admin: Admin, caller: Caller, body: None, *, query: DetailsQuery) -> AllTunnelsAnswer:
    """All tunnels that may come on-line, complete."""
    return _list_all(admin, caller, ACTIVE, query)


def list_online(admin: Admin, caller: Caller, body: None, *, query: DetailsQuery) -> AllTunnelsAnswer:
    """All tunnels that are on-line, complete."""
    live = live_tunnels(admin)
    if live is None:
        return _list_all(admin, caller, ONLINE, query)
    # By what the server knows: the store hears of a login a few seconds later.
    found = [tunnel for tunnel in admin.store.tunnels.get_many(list(live)) if _may_be_online(caller, tunnel)]
    found.sort(key=lambda tunnel: (-tunnel.created, tunnel.uid))
    tunnels = tunnel_objects(admin, found, details=query.details == "true", live=live)
    return AllTunnelsAnswer(total=len(tunnels), tunnels=tunnels)


def search(admin: Admin, caller: Caller, body: SearchRequest) -> SearchAnswer:
    """Tunnels that fit every condition, as pages, the first of them at once."""
    uids = admin.store.tunnels.search(
        body.term, body.os, body.arch, body.version, user_uid=owner_filter(caller)
    )
    links = _freeze(admin, caller, uids)
    first = uids[: links[0].count] if links else []
    return SearchAnswer(total=len(uids), tunnels=_tunnels_of(admin, caller, first), links=links)


def page(admin: Admin, caller: Caller, body: None, *, page_uid: str) -> TunnelsAnswer:
    """The tunnels of a page as they are now; those deleted meanwhile are missing."""
    return TunnelsAnswer(tunnels=_tunnels_of(admin, caller, admin.store.result_snapshots.read_page(page_uid)))


def info(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> TunnelAnswer:
    """One tunnel with its services."""
    return TunnelAnswer(tunnel=tunnel_object(admin, own_tunnel(admin, caller, tunnel_uid), details=True))


def auth(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> AuthTokenAnswer:
    """The token that the tunnel's client logs in with."""
    tunnel = own_tunnel(admin, caller, tunnel_uid)
    return AuthTokenAnswer(token=auth_token_object(tunnel, admin.store.tunnels.auth_token(tunnel_uid)))


def config(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> ConfigAnswer:
    """The stored rules in the shape of a client's configuration file, whether it is on-line or not."""
    tunnel = own_tunnel(admin, caller, tunnel_uid)
    rules = admin.store.rules.read(tunnel_uid)
    config = TunConfig(
        hostname=tunnel.hostname,
        server_key=admin.server_key,
        server_host=admin.server_host,
        key=admin.store.tunnels.auth_token(tunnel_uid).value,
        unmanaged=rules.unmanaged,
        version=tunnel.version,
        os=tunnel.os,
        arch=tunnel.arch,
    )
    return ConfigAnswer(config=with_rules(config, sites=rules.sites, ports=rules.ports, portmaps=rules.portmaps))


def shutdown(admin: Admin, caller: Caller, body: None, *, tunnel_uid: str) -> Answer:
    """End its session and refuse further ones, until an administrator names it again."""
    own_tunnel(admin, caller, tunnel_uid)
    admin.perform(caller, SetTunnelState(tunnel_uid, TunnelState.SHUTDOWN))
    admin.control.changed()
    return Answer(message="tunnel shut down")


# --- below ---------------------------------------------------------------------------------------------------------


def _list_all(
    admin: Admin, caller: Caller, states: frozenset[TunnelState], query: DetailsQuery
) -> AllTunnelsAnswer:
    stored = admin.store.tunnels.select(states=states, user_uid=owner_filter(caller))
    shown = tunnel_objects(admin, stored, details=query.details == "true")
    tunnels = [tunnel for tunnel in shown if tunnel.state in states]     # one may have gone off-line this moment
    return AllTunnelsAnswer(total=len(tunnels), tunnels=tunnels)


def _may_be_online(caller: Caller, tunnel: StoredTunnel) -> bool:
    return caller.may_see(tunnel.user_uid) and tunnel.state in ACTIVE


def _tunnels_of(admin: Admin, caller: Caller, uids: Sequence[str]) -> list[Tunnel]:
    stored = admin.store.tunnels.get_many(uids)
    return tunnel_objects(admin, [
        tunnel for tunnel in stored if tunnel.state != TunnelState.DELETED and caller.may_see(tunnel.user_uid)
    ])


def _freeze(admin: Admin, caller: Caller, uids: Sequence[str]) -> list[Link]:
    return [
        Link(uid=link.uid, order=link.order, count=link.count, url=f"{PAGE_PATH}/{link.uid}")
        for link in admin.store.result_snapshots.take(uids, caller.user_uid)
    ]
