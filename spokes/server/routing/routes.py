"""From tunnels, sites and ports to the engine's routes; one publication for all changes of a loop turn.

Owns: the engine's tunnel slots, its services (one for each object: a site, a port, a tunnel's own name), every route.
A tunnel has its slot while it exists, on-line or not, so that a visitor of an off-line one is told so. An object that
goes is counted to its end: its service stays until forget_service(). What visitors have open there is ended once the
engine knows no route to it. Knows no store: changes.py feeds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from spokes._fastpath.engine import Engine, Limits, Policy, RouteKind, Site, Upstream
from spokes.wire.rules import limit_in

WELCOME_CODE = "SPK-WELCOME"
CLOSED_CODE = "SPK-BANDWIDTH"
RouteKey = tuple[RouteKind, str | int]
NO_LIMITS = Limits()


class CountedObject(NamedTuple):
    """What a service of the engine stands for."""

    object_uid: str
    tunnel_uid: str
    is_port: bool


def site_limits(rule: Mapping[str, object]) -> Limits:
    """What the engine holds a site's requests to; `rule` as it is stored."""
    return Limits(
        silence_s=limit_in(rule, "responseTimeout"),
        body_bytes_max=limit_in(rule, "maxBody"),
        line_bytes_max=limit_in(rule, "maxHeaderLine"),
    )


def port_limits(rule: Mapping[str, object]) -> Limits:
    return Limits(udp_idle_s=limit_in(rule, "udpTimeout"))


class RouteTable:
    """All routes to tunnels, by the object that asks for them."""

    def __init__(
        self,
        engine: Engine,
        domain: str,
        own: Upstream | None = None,
        *,
        removed_drain_s: float = 0.0,
    ) -> None:
        """`own`: who answers at the server's own name; None: a page of welcome. `removed_drain_s`: how long what
        visitors have open at an object that goes may go on.
        """
        self.removed_drain_s = removed_drain_s
        self.on_tunnel: Callable[[str], None] = _ignore  # a tunnel has a slot from now on
        self._engine = engine
        self._domain = domain
        self._slots: dict[str, int] = {}
        self._slots_to_close: list[int] = []
        self._hostnames: dict[str, str] = {}
        self._objects: dict[str, dict[str, frozenset[RouteKey]]] = {}  # tunnel: object: the routes it wants
        self._tunnel_of: dict[str, str] = {}  # object: tunnel
        self._owners: dict[RouteKey, str] = {}  # route: object
        self._service_of: dict[str, int] = {}  # object: its service
        self._counted: dict[int, CountedObject] = {}  # service: its object, there or gone
        self._retired: set[int] = set()  # services of objects that are gone
        self._services_to_end: list[int] = []
        self._closed: set[str] = set()  # tunnels that get no traffic
        self._tls_only: set[str] = set()  # sites whose plain HTTP nobody answers
        self._limits: dict[str, Limits] = {}  # of objects whose rule sets some
        self._https_port: int | None = None
        self._ports: set[int] = set()
        self._publish_due = False
        if own is None:
            engine.set_route(RouteKind.HTTP, domain, Site(page=WELCOME_CODE))
        else:
            engine.set_route(RouteKind.HTTP, domain, Site(upstream=own))
        self._changed()

    def slot(self, tunnel_uid: str) -> int | None:
        """The engine's tunnel for a tunnel that exists."""
        return self._slots.get(tunnel_uid)

    def slots(self) -> dict[str, int]:
        return dict(self._slots)

    def service(self, object_uid: str) -> int | None:
        """Where the engine counts an object that exists."""
        return self._service_of.get(object_uid)

    def services(self) -> dict[int, CountedObject]:
        """Also of objects that are gone, until they are forgotten."""
        return dict(self._counted)

    def objects(self) -> Set[str]:
        return self._tunnel_of.keys()

    def counted(self, service: int) -> CountedObject | None:
        return self._counted.get(service)

    def name_of(self, object_uid: str) -> str:
        """The host name or the number of the port that leads to it; empty when it is gone."""
        routes = self._objects.get(self.tunnel_of(object_uid), {}).get(object_uid, frozenset())
        return next((str(key) for _, key in routes), "")

    def retired_services(self) -> Set[int]:
        """Of objects that are gone; the engine knows no route to them once publish() has been called."""
        return frozenset(self._retired)

    def forget_service(self, service: int) -> None:
        """All that it carried has been taken over."""
        self._retired.remove(service)
        del self._counted[service]
        self._engine.close_service(service)

    def hostname(self, tunnel_uid: str) -> str:
        return self._hostnames.get(tunnel_uid, "")

    def tunnel_of(self, object_uid: str) -> str:
        """The tunnel a site or port belongs to; empty when it is unknown here."""
        return self._tunnel_of.get(object_uid, "")

    def ports(self) -> Set[int]:
        """Every port that has a route; a view that follows changes."""
        return self._ports

    def put_tunnel(self, uid: str, hostname: str) -> None:
        if uid not in self._slots:
            self._slots[uid] = self._engine.open_tunnel()
            self._objects[uid] = {}
            self.on_tunnel(uid)
        self._hostnames[uid] = hostname
        self._put(uid, uid, frozenset({(RouteKind.HTTP, hostname)}) if hostname else frozenset())

    def drop_tunnel(self, uid: str) -> None:
        """Drops the tunnel with all that still belongs to it. Its links are the caller's to cut, before publish()."""
        for object_uid in list(self._objects.get(uid, ())):
            self.drop(object_uid)
        self._objects.pop(uid, None)
        self._hostnames.pop(uid, None)
        self._closed.discard(uid)
        slot = self._slots.pop(uid, None)
        if slot is not None:
            self._slots_to_close.append(slot)
            self._changed()

    def close_to_visitors(self, uid: str, *, closed: bool) -> None:
        """Closed: its host names answer a page, its ports and server names nothing. The ports stay its own."""
        if uid not in self._slots or (uid in self._closed) == closed:
            return
        (self._closed.add if closed else self._closed.discard)(uid)
        for object_uid in self._objects[uid]:
            self._lead_again(object_uid)

    @property
    def https_port(self) -> int | None:
        """Where visitors reach our TLS; None: there is none, and nobody is sent to it."""
        return self._https_port

    @https_port.setter
    def https_port(self, port: int | None) -> None:
        if port != self._https_port:
            self._https_port = port
            for uid in self._tls_only:
                self._lead_again(uid)

    def put_site(
        self,
        uid: str,
        tunnel_uid: str,
        domain: str,
        *,
        pass_through: bool,
        plain: bool = True,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """`pass_through`: the tunnel wants TLS as it arrives, although a certificate for the name may be here.
        `plain`: somebody answers plain HTTP too; else visitors are sent to https."""
        routes: set[RouteKey] = {(RouteKind.HTTP, domain)}
        if pass_through:
            routes.add((RouteKind.TLS, domain))
        self._put(uid, tunnel_uid, frozenset(routes))
        self._limit(uid, limits)
        tls_only = pass_through and not plain
        if self.tunnel_of(uid) and tls_only != (uid in self._tls_only):
            (self._tls_only.add if tls_only else self._tls_only.discard)(uid)
            try:
                self._lead_again(uid)
            except BaseException:
                self._tls_only.symmetric_difference_update({uid})  # led to at the next try
                raise

    def put_port(self, uid: str, tunnel_uid: str, port: int, *, limits: Limits = NO_LIMITS) -> None:
        self._put(uid, tunnel_uid, frozenset({(RouteKind.TCP, port), (RouteKind.UDP, port)}))
        self._limit(uid, limits)

    def _limit(self, uid: str, limits: Limits) -> None:
        """Requests and flows that begin from now on; of UDP, those that are open too."""
        before = self._limits.get(uid, NO_LIMITS)
        if limits == before or not self.tunnel_of(uid):
            return
        self._limits[uid] = limits
        try:
            self._lead_again(uid)
        except BaseException:
            self._limits[uid] = before  # led to at the next try
            raise
        if limits == NO_LIMITS:
            del self._limits[uid]

    def drop(self, object_uid: str) -> None:
        tunnel_uid = self._tunnel_of.pop(object_uid, None)
        self._tls_only.discard(object_uid)
        self._limits.pop(object_uid, None)
        if tunnel_uid is not None:
            for route in self._objects[tunnel_uid].pop(object_uid):
                self._release(route, object_uid, tunnel_uid)
            service = self._service_of.pop(object_uid)
            self._retired.add(service)
            self._services_to_end.append(service)
            self._changed()

    def _put(self, object_uid: str, tunnel_uid: str, routes: frozenset[RouteKey]) -> None:
        if self._tunnel_of.get(object_uid, tunnel_uid) != tunnel_uid:
            self.drop(object_uid)
        objects = self._objects.get(tunnel_uid)
        if objects is None:
            return  # its tunnel is gone; the row that says so for this object follows in the log
        before = objects.get(object_uid, frozenset())
        if {key for _, key in before} - {key for _, key in routes}:  # it has another name: nothing stays under the old
            self.drop(object_uid)
            before = frozenset()
        if object_uid not in self._service_of:
            self._service_of[object_uid] = service = self._engine.open_service(self._slots[tunnel_uid])
            is_port = any(kind in (RouteKind.TCP, RouteKind.UDP) for kind, _ in routes)
            self._counted[service] = CountedObject(object_uid, tunnel_uid, is_port)
        objects[object_uid] = routes
        self._tunnel_of[object_uid] = tunnel_uid
        try:
            for route in before - routes:
                self._release(route, object_uid, tunnel_uid)
            for route in routes - before:
                if route[1] != self._domain:  # ours; the store refuses it too
                    self._owners[route] = object_uid
                    if route[0] is RouteKind.TCP:
                        self._ports.add(int(route[1]))
                    self._lead(route, object_uid, tunnel_uid)
        except BaseException:
            objects[object_uid] = before & routes  # the others are led to at the next try
            raise

    def _lead(self, route: RouteKey, object_uid: str, tunnel_uid: str) -> None:
        kind, key = route
        if tunnel_uid not in self._closed:
            self._engine.set_route(kind, key, self._site(object_uid, tunnel_uid))
        elif kind is RouteKind.HTTP:
            self._engine.set_route(kind, key, Site(page=CLOSED_CODE))
        else:
            self._engine.drop_route(kind, key)
        self._changed()

    def _site(self, object_uid: str, tunnel_uid: str) -> Site:
        secure_port = self._https_port if object_uid in self._tls_only else None
        return Site(
            tunnels=(self._slots[tunnel_uid],),
            service=self._service_of[object_uid],
            policy=Policy(limits=self._limits.get(object_uid, NO_LIMITS), https_port=secure_port or 0),
        )

    def _lead_again(self, object_uid: str) -> None:
        tunnel_uid = self.tunnel_of(object_uid)
        for route in self._objects.get(tunnel_uid, {}).get(object_uid, frozenset()):
            if self._owners.get(route) == object_uid:
                self._lead(route, object_uid, tunnel_uid)

    def _release(self, route: RouteKey, object_uid: str, tunnel_uid: str) -> None:
        if self._owners.get(route) != object_uid:
            return  # taken over by another object in the same batch
        heirs = (uid for uid, routes in self._objects[tunnel_uid].items() if route in routes)
        heir = next(heirs, None)
        if heir is None:
            del self._owners[route]
            if route[0] is RouteKind.TCP:
                self._ports.discard(int(route[1]))
            self._engine.drop_route(*route)
        else:  # a site for a tunnel's own host name is gone: the name still leads to its tunnel
            self._owners[route] = heir
            self._lead(route, heir, tunnel_uid)
        self._changed()

    def _changed(self) -> None:
        if not self._publish_due:
            self._publish_due = True
            asyncio.get_running_loop().call_soon(self.publish)

    def publish(self) -> None:
        """Puts all changes in force now, if there are any."""
        if self._publish_due:
            self._publish_due = False
            try:
                self._engine.publish()
            except BaseException:
                self._publish_due = True
                raise
        while self._services_to_end:
            self._engine.end_service(self._services_to_end.pop(), after_s=self.removed_drain_s)
        while self._slots_to_close:  # the engine wants no route to a slot that closes
            self._engine.close_tunnel(self._slots_to_close.pop())


def _ignore(_tunnel_uid: str) -> None:
    """Nobody else is told."""
