"""Two server engines as nodes of one cluster, linked worker to worker, and a client that is on-line at one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from spokes._fastpath.engine import Engine, EventKind, ListenerKind, RouteKind, Site, Upstream
from tests.support.engines import (
    CHAIN_PEM,
    DOMAIN,
    KEY_PEM,
    PIN,
    Pair,
    engine_pair,
    eventually,
    publish,
    terminate,
    wait_events,
)


def worker_of(link: int) -> int:
    return (link >> 56) - 1


class Nodes:
    """`pair.server` is the node that has the client, `front` the one that visitors come to."""

    def __init__(self, pair: Pair, front: Engine) -> None:
        self.pair = pair
        self.front = front
        self.back = pair.server
        self.tunnel = front.open_tunnel()
        self.at_front = front.open_node()           # the number that front has for back …
        self.at_back = self.back.open_node()        # … and back for front
        self.ports: dict[str, int] = {}
        self.links: list[tuple[int, int]] = []
        for kind, name in ((ListenerKind.HTTP, "http"), (ListenerKind.TLS, "tls")):
            self.listen(name, kind)

    def listen(self, name: str, kind: ListenerKind, port: int = 0) -> int:
        server, self.pair.server = self.pair.server, self.front
        try:
            socks = self.pair.bind(kind, port)
        finally:
            self.pair.server = server
        port = socks[0].getsockname()[1]
        for worker, sock in enumerate(socks):
            self.front.add_listener(kind, sock.detach(), worker=worker, port=port)
        self.ports[name] = port
        return port

    def link(self, worker: int, peer_worker: int) -> None:
        """From a worker of `front` to one of `back`."""
        dialled = self.front.connect_link(
            "127.0.0.1", self.pair.ports["tls"], server_name=DOMAIN, pin_sha256=PIN, worker=worker,
            peer_worker=peer_worker,
        )
        accepted = wait_events(self.back, lambda event: event.kind == EventKind.LINK_UP).link
        wait_events(self.front, lambda event: event.kind == EventKind.LINK_UP and event.link == dialled)
        assert (worker_of(dialled), worker_of(accepted)) == (worker, peer_worker)
        here = self.front.node_worker(self.at_front, peer_worker)
        there = self.back.node_worker(self.at_back, worker)
        self.front.bind_link(dialled, here)
        self.back.bind_link(accepted, there)
        eventually(lambda: self.front.tunnel_counters(here)[3] > 0 and self.back.tunnel_counters(there)[3] > 0)
        self.links.append((dialled, accepted))

    def link_all(self) -> None:
        for worker in range(self.front.worker_count):
            for peer_worker in range(self.back.worker_count):
                self.link(worker, peer_worker)

    def announce(self) -> None:
        """The client is on-line there: where its link is."""
        self.front.set_via(self.tunnel, self.at_front, 1 << worker_of(self.pair.server_link))

    def serve_http(self, host: str, upstream: Upstream, service: int = 0) -> None:
        self.pair.serve_http(host, upstream)
        self.front.set_route(RouteKind.HTTP, host, Site(tunnels=(self.tunnel,), service=service))
        publish(self.front)

    def serve_tcp(self, upstream: Upstream, kind: ListenerKind = ListenerKind.TCP) -> int:
        """The public port at the front; back has the rule, and no listener of its own."""
        route = RouteKind.UDP if kind is ListenerKind.UDP else RouteKind.TCP
        server, self.pair.server = self.pair.server, self.front
        try:
            socks = self.pair.bind(kind)
        finally:
            self.pair.server = server
        port = socks[0].getsockname()[1]
        self.back.set_route(route, port, Site(tunnels=(self.pair.server_tunnel,)))
        self.pair.client.set_route(route, port, Site(upstream=upstream))
        self.front.set_route(route, port, Site(tunnels=(self.tunnel,)))
        for engine in (self.front, self.back, self.pair.client):
            publish(engine)
        for worker, sock in enumerate(socks):
            self.front.add_listener(kind, sock.detach(), worker=worker, port=port)
        return port

    def assert_idle(self) -> None:
        self.pair.assert_idle()
        for name in ("streams_open", "visitors_open", "buffer_bytes", "window_promised_bytes"):
            eventually(lambda name=name: self.front.stats()[name] == 0)


@contextmanager
def two_nodes(*, workers: int = 1, linked: bool = True, **limits: int) -> Iterator[Nodes]:
    with engine_pair(workers=workers, via=b"back", **limits) as pair:
        front = Engine(workers=workers, memory_limit_bytes=64 << 20, accepting=True, via=b"front", **limits)
        try:
            front.set_link_certificate(terminate(front, [DOMAIN, f"*.{DOMAIN}"], CHAIN_PEM, KEY_PEM))
            front.start()
            nodes = Nodes(pair, front)
            publish(front)
            if linked:
                nodes.link_all()
                nodes.announce()
            yield nodes
        finally:
            front.stop()
