"""An engine in memory: engine.pyi without sockets, for tests of the control plane.

Links are made by the test (`peer = engine.arrive()`), speak through FakePeer, and every command is looked up in plain
attributes. What a test can see here, it must be able to see at the real engine too; tests/e2e hold the real one.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from spokes._fastpath.engine import Certificate, Event, EventKind, Limits, LinkDown, RouteKind, Site
from spokes.wire.handshake import ClientHandshake
from spokes.wire.messages import Message


@dataclass
class FakeLink:
    """The engine's side of a link."""

    id: int
    peer: FakePeer
    tunnel: int | None = None
    drained: bool = False
    silent: bool = False  # answers no PING
    pings: int = 0
    ended: str = ""  # "", "closed" (after what was queued) or "aborted" (at once)


@dataclass
class FakePeer:
    """A client at the other end: says what it is told to, and keeps what it hears."""

    engine: FakeEngine
    link: int
    handshake: ClientHandshake = field(default_factory=ClientHandshake)
    heard: list[Message] = field(default_factory=list)

    def say(self, message: Message) -> None:
        for part in self.handshake.send(message):
            self.say_raw(part.payload, part.flags)

    def say_raw(self, payload: bytes, flags: int = 0) -> None:
        self.engine.emit(EventKind.CONTROL, self.link, flags, payload)

    def hang_up(self) -> None:
        self.engine.links.pop(self.link, None)
        self.engine.emit(EventKind.LINK_DOWN, self.link, LinkDown.CLOSED, b"closed by the peer")

    def hear(self, payload: bytes, flags: int) -> None:
        message = self.handshake.receive(payload, flags)
        if message is not None:
            self.heard.append(message)


class FakeEngine:
    """Commands go into attributes, events come from emit()."""

    def __init__(self, *, workers: int = 1, memory_limit_bytes: int = 0, accepting: bool = True, **_: Any) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.worker_count = workers
        self.memory_limit_bytes = memory_limit_bytes
        self.running = False
        self.events: deque[Event] = deque()
        self.links: dict[int, FakeLink] = {}
        self.ended: dict[int, FakeLink] = {}
        self.tunnels: set[int] = set()
        self.listeners: dict[int, tuple[int, int, int]] = {}  # id: kind, port, fd
        self.pages: dict[str, int] = {}
        self.certificates: dict[str, Certificate] = {}
        self.link_certificate: Certificate | None = None
        self.ticket_keys: list[bytes] = []
        self.routes: dict[tuple[int, str | int], object] = {}  # in force
        self.publish_count = 0
        self.streams_open = 0
        self.counters: dict[int, tuple[int, int, int, float]] = {}  # of a tunnel, where a test has set them
        self.services: dict[int, int] = {}  # service: tunnel
        self.service_of: dict[tuple[int, str | int], int] = {}  # of a route that was set
        self.limits_of: dict[tuple[int, str | int], Limits] = {}  # the same
        self.traffic: dict[int, tuple[int, int, int]] = {}  # of a service, to be taken: set by a test
        self.service_streams: dict[int, int] = {}  # open now, where a test has set them
        self.visits: list[tuple[int, str, int, int, float, float]] = []  # to be drained
        self.services_ended: dict[int, float] = {}  # and how long after
        self._set: dict[tuple[int, str | int], object] = {}
        self._ids = 0

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    # the test's side

    def arrive(self, peer: str = "198.51.100.7 50000") -> FakePeer:
        """A link whose TLS is done."""
        link = self._next_id()
        client = FakePeer(self, link)
        self.links[link] = FakeLink(link, client)
        self.emit(EventKind.LINK_UP, link, 0, peer.encode())
        return client

    def emit(self, kind: int, link: int, code: int, data: bytes) -> None:
        self.events.append(Event(kind, link, code, data))
        os.eventfd_write(self.event_fd, 1)

    # engine.pyi

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        if self.event_fd >= 0:
            os.close(self.event_fd)
            self.event_fd = -1
        for listener in list(self.listeners):
            self.remove_listener(listener)
        self.running = False

    def add_listener(self, kind: int, fd: int, *, worker: int, port: int) -> int:
        assert 0 <= worker < self.worker_count
        listener = self._next_id()
        self.listeners[listener] = (kind, port, fd)
        return listener

    def remove_listener(self, listener: int) -> None:
        os.close(self.listeners.pop(listener)[2])

    def open_tunnel(self) -> int:
        tunnel = self._next_id()
        self.tunnels.add(tunnel)
        return tunnel

    def close_tunnel(self, tunnel: int) -> None:
        assert tunnel not in self._set.values() and tunnel not in self.routes.values()
        assert tunnel not in {link.tunnel for link in self.links.values()}
        self.tunnels.remove(tunnel)

    def tunnel_counters(self, tunnel: int) -> tuple[int, int, int, float]:
        assert tunnel in self.tunnels
        return self.counters.get(tunnel, (0, 0, 0, 0.0))

    def open_service(self, tunnel: int) -> int:
        assert tunnel in self.tunnels
        service = self._next_id()
        self.services[service] = tunnel
        return service

    def end_service(self, service: int, *, after_s: float = 0.0) -> None:
        assert service not in {self.service_of[route] for route, to in self.routes.items() if isinstance(to, int)}
        self.services_ended[service] = after_s

    def close_service(self, service: int) -> None:
        assert service not in {self.service_of[route] for route, to in self.routes.items() if isinstance(to, int)}
        del self.services[service]

    def service_counters(self, service: int) -> tuple[int, int, int, int, int]:
        assert service in self.services
        return 0, 0, 0, 0, self.service_streams.get(service, 0)

    def take_traffic(self) -> list[tuple[int, int, int, int]]:
        taken = [(service, *carried) for service, carried in self.traffic.items() if service in self.services]
        self.traffic.clear()
        return taken

    def drain_access_records(self) -> list[tuple[int, str, int, int, float, float]]:
        drained, self.visits = self.visits, []
        return drained

    def set_route(self, kind: int, key: str | int, site: Site) -> None:
        """In `routes` stands who answers: a tunnel, an upstream, a page's code, or `https:port`."""
        if site.page:
            assert site.page in self.pages
            self._set[(kind, key)] = site.page
            return
        if site.upstream is not None:
            self._set[(kind, key)] = site.upstream
            return
        (tunnel,) = site.tunnels
        assert tunnel in self.tunnels
        assert self.services[site.service] == tunnel
        self.service_of[(kind, key)] = site.service
        self.limits_of[(kind, key)] = site.policy.limits
        sent_on = kind == RouteKind.HTTP and site.policy.https_port
        self._set[(kind, key)] = f"https:{site.policy.https_port}" if sent_on else tunnel

    def drop_route(self, kind: int, key: str | int) -> None:
        self._set.pop((kind, key), None)

    def publish(self) -> int:
        self.routes = dict(self._set)
        self.publish_count += 1
        return self.publish_count

    def set_page(
        self, code: str, *, status: int, content_type: str, body: bytes, retry_after_s: int = 0
    ) -> None:
        assert not self.running
        self.pages[code] = status

    def set_certificate(self, name: str, certificate: Certificate) -> None:
        self.certificates[name] = certificate

    def drop_certificate(self, name: str) -> None:
        self.certificates.pop(name, None)

    def set_link_certificate(self, certificate: Certificate) -> None:
        self.link_certificate = certificate

    def set_ticket_keys(self, keys: list[bytes]) -> None:
        self.ticket_keys = keys

    def send_control(self, link: int, payload: bytes, flags: int = 0) -> None:
        if link in self.links:
            self.links[link].peer.hear(payload, flags)

    def bind_link(self, link: int, tunnel: int) -> None:
        assert tunnel in self.tunnels
        if link in self.links:
            self.links[link].tunnel = tunnel

    def drain_link(self, link: int) -> None:
        if link in self.links:
            self.links[link].drained = True

    def ping_link(self, link: int) -> None:
        if link in self.links:
            self.links[link].pings += 1
            if not self.links[link].silent:
                self.emit(EventKind.PONG, link, 0, b"")

    def close_link(self, link: int) -> None:
        self._end(link, "closed")

    def abort_link(self, link: int) -> None:
        self._end(link, "aborted")

    def _end(self, link: int, how: str) -> None:
        if link in self.links:
            self.links[link].ended = how
            self.ended[link] = self.links.pop(link)
            self.emit(EventKind.LINK_DOWN, link, LinkDown.LOCAL, how.encode())

    def link_rtt_ms(self, link: int) -> float:
        return 0.0

    def drain_events(self, event_count_max: int = 256) -> list[Event]:
        batch = [self.events.popleft() for _ in range(min(event_count_max, len(self.events)))]
        if not self.events:
            os.eventfd_read(self.event_fd)
        return batch

    def stats(self) -> dict[str, int]:
        return {"streams_open": self.streams_open, "links_open": len(self.links), "streams_reclaimed": 0}

    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None:
        pass

    def worker_stats(self) -> list[dict[str, int]]:
        return [{"streams_open": self.streams_open} for _ in range(self.worker_count)]
