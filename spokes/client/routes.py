"""Traffic rules turned into the engine's routes to upstreams and directories; only what differs is touched.

Owns: the set of routes this client has given to the engine. A route that did not change is not set again, so
connections of untouched services go on. What a removed rule has open is ended, at once or after `removed_drain_s`; what
a rule has open that leads elsewhere now goes on, as with any proxy whose configuration is read again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterable
from typing import Protocol, cast

from spokes._fastpath import engine
from spokes._fastpath.engine import Directory, Limits, Policy, RouteKind, Upstream
from spokes.client.rule_parsing import Place, http_place, place_text, site_key, tcp_place, tls_place
from spokes.client.service_addresses import ServiceAddresses
from spokes.client.service_health import Served
from spokes.client.webroots import OpenDirectory, WebRoots
from spokes.errors import SpokesError, WebRootError
from spokes.wire.rules import UNIX_PREFIX, Port, Site

log = logging.getLogger(__name__)

RouteKey = tuple[int, str | int]


class RouteTable(Protocol):
    """The part of the engine that is used here."""

    def set_route(self, kind: int, key: str | int, site: engine.Site) -> None: ...
    def drop_route(self, kind: int, key: str | int) -> None: ...
    def publish(self) -> int: ...
    def retire_upstream(self, upstream: Upstream) -> None: ...
    def end_upstream(self, upstream: Upstream, *, after_s: float = 0.0) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where a route leads, as compared between one set of rules and the next."""

    name: str  # "127.0.0.1:8080", shown in error pages; the path of a directory
    destination: str = ""  # what is looked up
    addresses: tuple[tuple[str, int], ...] = ()
    unix_path: str = ""
    host: str = ""  # Host header instead of the visitor's
    is_directory: bool = False
    directory: OpenDirectory | None = None  # None: it cannot be opened
    udp_idle_s: int = 0  # of flows of datagrams; 0: the engine's


PAGE_NO_DIRECTORY = WebRootError.code


class Routes:
    def __init__(
        self, engine: RouteTable, addresses: ServiceAddresses, web_roots: WebRoots, *, removed_drain_s: float = 0.0
    ) -> None:
        self.removed_drain_s = removed_drain_s
        self._engine = engine
        self._addresses = addresses
        self._web_roots = web_roots
        addresses.on_change = web_roots.on_change = self.refresh
        self._rules: tuple[list[Site], list[Port]] = ([], [])
        self._set: dict[RouteKey, Target] = {}
        self._upstreams: dict[RouteKey, Upstream] = {}  # of the routes that lead to one: they count what comes of them
        self._hosts: dict[int, str] = {}  # of those, by the upstream's id: what was looked up for it

    async def apply(self, sites: Iterable[Site], ports: Iterable[Port]) -> None:
        """Serve these rules and no others; names and directories new here are looked up first, with little patience."""
        sites, ports = list(sites), list(ports)
        hosts = {host for host, _ in _places(sites, ports) if not host.startswith(UNIX_PREFIX)}
        directories = {site.web_root for site in sites if site.web_root}
        await asyncio.gather(self._addresses.use(hosts), self._web_roots.use(directories))
        self._rules = (sites, ports)
        self.refresh()

    def refresh(self) -> None:
        """Bring the engine up to the addresses and directories known now."""
        wanted = self._targets(*self._rules)
        removed = self._set.keys() - wanted.keys()
        moved = [key for key, target in wanted.items() if self._set.get(key) != target]
        limited = {key: upstream for key in moved if (upstream := self._kept(key, wanted[key])) is not None}
        left = {
            key: self._upstreams.pop(key) for key in (*removed, *moved) if key in self._upstreams and key not in limited
        }
        for key in removed:
            self._engine.drop_route(*key)
        for key in moved:
            self._give(key, wanted[key], limited.get(key))
        if wanted != self._set:
            self._engine.publish()
        self._set = wanted
        for key, upstream in left.items():  # no stream begins there any more
            del self._hosts[upstream.id]
            if key in removed:
                self._engine.end_upstream(upstream, after_s=self.removed_drain_s)
            else:
                self._engine.retire_upstream(upstream)

    def take_fault(self, upstream_id: int) -> None:
        """The engine could not reach an upstream: its name may have moved."""
        if host := self._hosts.get(upstream_id):
            self._addresses.report(host)

    def _kept(self, key: RouteKey, target: Target) -> Upstream | None:
        """The upstream in use, where the route leads to the same place under other limits: its flows go on."""
        before = self._set.get(key)
        if before is None or dataclasses.replace(before, udp_idle_s=target.udp_idle_s) != target:
            return None
        return self._upstreams.get(key)

    def _give(self, key: RouteKey, target: Target, kept: Upstream | None = None) -> None:
        kind, name = key
        if target.directory is not None:
            self._engine.set_route(kind, name, engine.Site(directory=cast(Directory, target.directory)))
        elif target.is_directory:
            self._engine.set_route(kind, name, engine.Site(page=PAGE_NO_DIRECTORY))
        else:  # without addresses as well: asking it is a fault that counts
            upstream = kept or _upstream(target)
            policy = Policy(limits=Limits(udp_idle_s=target.udp_idle_s))
            self._engine.set_route(kind, name, engine.Site(upstream=upstream, policy=policy))
            self._upstreams[key] = upstream
            self._hosts[upstream.id] = target.destination

    def served(self) -> dict[RouteKey, Served]:
        """Where each route leads now."""
        return {
            key: Served(
                upstream=f"{target.name}/udp" if key[0] == RouteKind.UDP else target.name,
                counter=self._upstreams.get(key),
                code=PAGE_NO_DIRECTORY if target.is_directory and target.directory is None else "",
            )
            for key, target in self._set.items()
        }

    def _targets(self, sites: list[Site], ports: list[Port]) -> dict[RouteKey, Target]:
        targets: dict[RouteKey, Target] = {}
        for site in sites:
            if site.web_root:
                targets[(int(RouteKind.HTTP), site_key(site))] = Target(
                    name=site.web_root, is_directory=True, directory=self._web_roots.directory(site.web_root)
                )
            elif place := http_place(site):
                targets[(int(RouteKind.HTTP), site_key(site))] = self._target(place, host=site.rewrite_host)
            if place := tls_place(site):
                targets[(int(RouteKind.TLS), site_key(site))] = self._target(place)
        for port in ports:
            if place := tcp_place(port):
                target = targets[(int(RouteKind.TCP), port.port)] = self._target(place)
                if not target.unix_path:  # a public port is TCP and UDP, and so is the service's
                    targets[(int(RouteKind.UDP), port.port)] = dataclasses.replace(target, udp_idle_s=port.udp_timeout)
        return targets

    def _target(self, place: Place, *, host: str = "") -> Target:
        destination, port = place
        if destination.startswith(UNIX_PREFIX):
            return Target(name=destination, unix_path=destination.removeprefix(UNIX_PREFIX), host=host)
        addresses = tuple((address, port) for address in self._addresses.addresses(destination))
        return Target(name=place_text(place), destination=destination, addresses=addresses, host=host)


def _upstream(target: Target) -> Upstream:
    """One that the engine does not take is one that cannot be asked: it must not keep the other rules from being
    served. Rules may have come from a file or a server that checked less."""
    try:
        return Upstream(
            addresses=list(target.addresses), unix_path=target.unix_path, host=target.host, name=target.name
        )
    except (SpokesError, ValueError) as error:
        log.error("service cannot be asked", extra={"upstream": target.name, "reason": str(error)})
        return Upstream(name=target.name)


def _places(sites: list[Site], ports: list[Port]) -> list[Place]:
    places = [*(http_place(site) for site in sites), *(tls_place(site) for site in sites)]
    return [place for place in (*places, *(tcp_place(port) for port in ports)) if place is not None]
