"""Tunnels as the API shows them: rows of the store, brought together with usage and with what is on-line this moment.

Bound: a handful of statements and at most one question to the server, however many tunnels.
Fails: never for the server's sake; when it does not answer, what the store last saw is shown.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from spokes import clock
from spokes.admin.context import Admin
from spokes.admin.schema.tokens import Token
from spokes.errors import ControlError, NoServerError
from spokes.model import api_objects
from spokes.model.api_objects import HttpService, PortService, Tunnel
from spokes.store import AuthToken, Port, Site, TunnelState
from spokes.store import Tunnel as StoredTunnel
from spokes.wire.api_types import time_text

log = logging.getLogger(__name__)

LIVE_IDS_COUNT_MAX = 1000                # asked for by name; more are asked for all together


class Live(NamedTuple):
    """What a server knows of a tunnel that is on-line."""

    uptime_s: int
    address: str
    version: str
    os: str
    arch: str
    domains: frozenset[str]              # served by its client
    ports: frozenset[int]


def live_tunnels(admin: Admin, uids: Sequence[str] | None = None) -> Mapping[str, Live] | None:
    """Those that are on-line, by id, at least those among `uids` (None: all); None when the server cannot be asked."""
    args = {} if uids is None or len(uids) > LIVE_IDS_COUNT_MAX else {"ids": list(uids)}
    try:
        found = admin.control.call("live", **args)["tunnels"]
        return {uid: _live(found[uid]) for uid in (found if uids is None else uids) if uid in found}
    except NoServerError:
        return {}                        # nobody is on-line without a server
    except (ControlError, KeyError, TypeError, ValueError) as error:
        log.warning("server does not tell what is on-line", extra={"error": str(error)})
        return None


def _live(facts: Mapping[str, Any]) -> Live:
    return Live(
        uptime_s=int(facts["uptime_s"]), address=str(facts["address"]), version=str(facts["version"]),
        os=str(facts["os"]), arch=str(facts["arch"]), domains=frozenset(facts["sites"]),
        ports=frozenset(facts["ports"]),
    )


def tunnel_objects(
    admin: Admin, tunnels: Sequence[StoredTunnel], *, details: bool = False, live: Mapping[str, Live] | None = None
) -> list[Tunnel]:
    """In the order given; `live` as live_tunnels() told it, if it was asked already."""
    if not tunnels:
        return []
    now = clock.wall_s()
    uids = [tunnel.uid for tunnel in tunnels]
    if live is None:
        live = live_tunnels(admin, uids)
    usage = admin.store.traffic.usage_of_tunnels(uids, now)
    services = _Services(admin, uids, now) if details else None
    all_shown = []
    for tunnel in tunnels:
        state, session = _shown_state(tunnel, live)
        shown = api_objects.tunnel_object(
            tunnel,
            state=state,
            last_active=now if state == TunnelState.ONLINE else tunnel.last_active,
            uptime_s=session.uptime_s if session is not None else 0,
            usage=usage.get(tunnel.uid),
            client=session or tunnel,    # the store hears of a new session a few seconds later
        )
        if services is not None:
            shown.https, shown.ports = services.of(tunnel, session)
        all_shown.append(shown)
    return all_shown


def tunnel_object(admin: Admin, tunnel: StoredTunnel, *, details: bool = False) -> Tunnel:
    return tunnel_objects(admin, [tunnel], details=details)[0]


def auth_token_object(tunnel: StoredTunnel, token: AuthToken) -> Token:
    """A tunnel's own token; it is described by what it belongs to."""
    return Token(
        id=token.uid, created=time_text(token.created), modified=time_text(token.modified), active=token.active,
        description=tunnel.name, value=token.value,
    )


class _Services:
    """The services of many tunnels, read in one statement a kind."""

    def __init__(self, admin: Admin, tunnel_uids: Sequence[str], now: float) -> None:
        self._usage = admin.store.traffic.usage_of_services(tunnel_uids, now)
        self._sites: defaultdict[str, list[Site]] = defaultdict(list)
        for site in admin.store.sites.select(tunnel_uids):
            self._sites[site.tunnel_uid].append(site)
        self._ports: defaultdict[str, list[Port]] = defaultdict(list)
        for port in admin.store.ports.select(tunnel_uids):
            self._ports[port.tunnel_uid].append(port)

    def of(self, tunnel: StoredTunnel, live: Live | None) -> tuple[list[HttpService], list[PortService]]:
        https = [
            api_objects.site_object(
                site, tunnel,
                is_active=not tunnel.shutdown,
                is_available=live is not None and site.domain in live.domains,
                usage=self._usage.get(site.uid),
            )
            for site in self._sites[tunnel.uid]
        ]
        ports = [
            api_objects.port_object(
                port, tunnel,
                is_active=not tunnel.shutdown and len(port.rule) > 1,  # by more than its number: it leads somewhere
                is_available=live is not None and port.port in live.ports,
                usage=self._usage.get(port.uid),
            )
            for port in self._ports[tunnel.uid]
        ]
        return https, ports


def _shown_state(tunnel: StoredTunnel, live: Mapping[str, Live] | None) -> tuple[TunnelState, Live | None]:
    """The store hears every few seconds who came and went, the server knows now. A decision outweighs both."""
    if live is None or api_objects.is_decided(tunnel.state):
        return tunnel.state, None
    session = live.get(tunnel.uid)
    if session is not None:
        return TunnelState.ONLINE, session
    return (TunnelState.OFFLINE if tunnel.state == TunnelState.ONLINE else tunnel.state), None
