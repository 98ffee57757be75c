"""An engine without sockets: links end in a FakeServer that speaks the real protocol's other end (wire.handshake).

The tests of the client's control plane need no bytes of visitors; what they need is every way a link can begin and end.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from spokes._fastpath.engine import FAULT_CODES, Event, EventKind, Limits, LinkDown
from spokes.wire.handshake import ServerHandshake
from spokes.wire.messages import (
    Accepted,
    Answer,
    Bye,
    Config,
    Delayed,
    Fault,
    Health,
    Hello,
    Join,
    Joined,
    Lead,
    Leading,
    Login,
    Message,
    PortResult,
    Ready,
    Register,
    Registered,
    Request,
    ServerInfo,
    Services,
    SiteResult,
    Welcome,
)
from spokes.wire.rules import Port, TunConfig

UID = "0123456789abcdef" * 2
HOSTNAME = "calm-otter-104.tun.example"


@dataclass(frozen=True)
class FakeUpstream:
    """What a route leads to, in a form that a test can compare."""

    addresses: list[tuple[str, int]] = field(default_factory=list)
    unix_path: str = ""
    host: str = ""
    name: str = ""
    id: int = field(default_factory=itertools.count(1).__next__, compare=False)

    def outcomes(self) -> tuple[int, float, list[int]]:
        return OUTCOMES.get(self.name, (0, 0.0, [0] * len(FAULT_CODES)))

    def has_answered(self) -> bool:
        return False


OUTCOMES: dict[str, tuple[int, float, list[int]]] = {}  # by an upstream's name; of one test


class FakeServer:
    """The other end of every link of one engine; attributes say how it behaves, lists what it heard."""

    def __init__(self) -> None:
        self.config = TunConfig(hostname=HOSTNAME)
        self.bye: Bye | None = None  # the answer to the next requests, in place of any other
        self.faults: dict[str | int, Any] = {}  # domain or port -> Fault
        self.answers: dict[str, Callable[[dict[str, Any]], Answer | dict[str, Any]]] = {"tunnel.info": lambda _: {}}
        self.link_count_max = 3
        self.key_sha256 = b""  # b"": whatever is pinned
        self.clock_skew_s = 0
        self.silent = False  # hears nothing, says nothing
        self.count_rules = False  # say and check rules_rev
        self.rules_rev = 1
        self.logins: list[str] = []  # modes
        self.registrations: list[Register] = []
        self.services: list[Services] = []
        self.joined: list[int] = []
        self.led: list[int] = []  # links that took the lead
        self.moves = True
        self.services_wait = False  # the store is away: services stay in `waiting`
        self.delayed: Fault | None = None  # said of services that wait
        self.waiting: list[tuple[int, Services]] = []
        self.urls = (f"http://{HOSTNAME}:8080", f"https://{HOSTNAME}:8443")
        self.url = ""       # of a server that does not say which one to show
        self.byes: list[Bye] = []
        self.healths: list[Health] = []

    def answer(self, link: int, message: Message) -> list[Message]:
        match message:
            case Hello():
                return [Welcome(version=1, server=ServerInfo(), time=int(time.time()) + self.clock_skew_s)]
            case Bye():
                self.byes.append(message)
                return []
            case _ if self.bye is not None:
                return [self.bye]
            case Register():
                self.registrations.append(message)
                return [Registered(tunnel=UID, hostname=HOSTNAME, key="k" * 64)]
            case Login():
                self.logins.append(message.mode)
                return [self._ready(message)]
            case Join():
                self.joined.append(link)
                return [Joined()]
            case Lead():
                self.led.append(link)
                return [Leading(), Config(config=self.config)]
            case Services() if self.services_wait:
                self.waiting.append((link, message))
                return [Delayed(error=self.delayed)] if self.delayed else []
            case Services():
                self.services.append(message)
                if self.count_rules and message.rules_rev != self.rules_rev:
                    return [
                        Config(config=self.config, rules_rev=self.rules_rev),
                        Accepted(stale=True, rules_rev=self.rules_rev),
                    ]
                self.rules_rev += 1
                self.config = msgspec.structs.replace(self.config, https=message.https, ports=message.ports)
                return [self._accepted(message)]
            case Health():
                self.healths.append(message)
                return []
            case Request():
                result = self.answers[message.op](message.args)
                return [result if isinstance(result, Answer) else Answer(id=message.id, result=result)]
        raise AssertionError(f"unexpected {message!r}")

    def allocate(self, port: int) -> dict[str, Any]:
        """The result of `tcp.allocate`; the port is the tunnel's from now on."""
        self.config = msgspec.structs.replace(self.config, ports=(*self.config.ports, Port(port=port)))
        return {"port": port}

    def change(self, config: TunConfig) -> None:
        """The operator's change; the client has not heard of it yet."""
        self.config = config
        self.rules_rev += 1

    def _ready(self, login: Login) -> Ready:
        return Ready(
            tunnel=UID,
            hostname=HOSTNAME,
            name="test",
            generation=len(self.logins),
            session="s" * 32 if login.mode == "serve" else "",
            config=self.config,
            link_count_max=self.link_count_max,
            rules_rev=self.rules_rev if self.count_rules else None,
            supports_failover=self.moves,
            urls=self.urls,
            url=self.url,
        )

    def _accepted(self, services: Services) -> Accepted:
        return Accepted(
            https=tuple(SiteResult(domain=s.domain, error=self.faults.get(s.domain)) for s in services.https),
            ports=tuple(PortResult(port=p.port, error=self.faults.get(p.port)) for p in services.ports),
            rules_rev=self.rules_rev if self.count_rules else None,
        )




class FakeEngine:
    def __init__(self, server: FakeServer | None = None) -> None:
        self.server = server or FakeServer()
        self.servers: dict[str, FakeServer] = {}  # by address: nodes that are not `server`
        self.peers: dict[int, FakeServer] = {}  # the other end of every link there has been
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.dialled: list[tuple[str, int]] = []
        self.pins: list[bytes] = []
        self.server_names: list[str] = []
        self.refused: dict[str, tuple[LinkDown, bytes]] = {}  # address -> how connecting there fails
        self.lost: set[int] = set()  # links on which nothing arrives
        self.bound: list[int] = []
        self.tunnels: list[int] = []
        self.closed_tunnels: list[int] = []
        self.drained: list[int] = []
        self.upstreams: dict[tuple[int, str | int], FakeUpstream] = {}
        self.directories: dict[str, Any] = {}
        self.pages: dict[tuple[int, str], str] = {}
        self.route_calls: list[tuple[str, int, str | int]] = []
        self.limits: dict[tuple[int, str | int], Limits] = {}
        self.publish_count = 0
        self.retired: list[FakeUpstream] = []
        self.ended: list[tuple[FakeUpstream, float]] = []
        self.streams_open = 0
        self.started = self.stopped = False
        self._ids = itertools.count(1)
        self._peers: dict[int, ServerHandshake] = {}
        self._events: list[Event] = []

    # what the client calls

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            os.close(self.event_fd)

    def connect_link(
        self, address: str, port: int, *, server_name: str, pin_sha256: bytes = b"", ca_file: str = ""
    ) -> int:
        link = next(self._ids)
        self.dialled.append((address, port))
        self.pins.append(pin_sha256)
        self.server_names.append(server_name)
        expected = self.servers.get(address, self.server).key_sha256
        if expected and pin_sha256 and pin_sha256 != expected:
            self._post(Event(EventKind.LINK_DOWN, link, LinkDown.PIN, b""))
        elif address in self.refused:
            code, words = self.refused[address]
            self._post(Event(EventKind.LINK_DOWN, link, code, words))
        else:
            self._peers[link] = ServerHandshake()
            self.peers[link] = self.servers.get(address, self.server)
            self._post(Event(EventKind.LINK_UP, link, 0, f"{address} {port}".encode()))
        return link

    def send_control(self, link: int, payload: bytes, flags: int = 0) -> None:
        server = self.peers.get(link, self.server)
        peer = self._peers.get(link) if not server.silent and link not in self.lost else None
        message = peer.receive(payload, flags) if peer is not None else None
        if message is not None:
            for answer in server.answer(link, message):
                self.push(link, answer)

    def ping_link(self, link: int) -> None:
        if link in self._peers and link not in self.lost:
            self._post(Event(EventKind.PONG, link, 0, b""))

    def close_link(self, link: int) -> None:
        self.cut(link, LinkDown.LOCAL)

    def abort_link(self, link: int) -> None:
        self.cut(link, LinkDown.LOCAL)

    def bind_link(self, link: int, tunnel: int) -> None:
        self.bound.append(link)

    def drain_link(self, link: int) -> None:
        self.drained.append(link)

    def open_tunnel(self) -> int:
        self.tunnels.append(7 + len(self.tunnels))
        return self.tunnels[-1]

    def close_tunnel(self, tunnel: int) -> None:
        self.closed_tunnels.append(tunnel)

    def tunnel_counters(self, tunnel: int) -> tuple[int, int, int, float]:
        return 0, 0, self.streams_open, 0.0

    def link_rtt_ms(self, link: int) -> float:
        return 1.5

    def stats(self) -> dict[str, int]:
        return {
            "requests_total": 3, "datagrams_in": 3, "datagrams_out": 5, "datagrams_dropped": 2, "streams_reclaimed": 0,
        }

    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None:
        pass

    def set_route(self, kind: int, key: str | int, site: Any) -> None:
        if site.directory is not None:
            self.route_calls.append(("directory", int(kind), key))
            self.directories[str(key)] = site.directory
        elif site.page:
            self.route_calls.append(("page", kind, key))
            self.pages[(int(kind), key)] = site.page
        else:
            self.route_calls.append(("upstream", kind, key))
            self.upstreams[(int(kind), key)] = site.upstream
            self.limits[(int(kind), key)] = site.policy.limits

    def drop_route(self, kind: int, key: str | int) -> None:
        self.route_calls.append(("drop", kind, key))
        self.upstreams.pop((int(kind), key), None)

    def publish(self) -> int:
        self.publish_count += 1
        return self.publish_count

    def retire_upstream(self, upstream: FakeUpstream) -> None:
        self.retired.append(upstream)

    def end_upstream(self, upstream: FakeUpstream, *, after_s: float = 0.0) -> None:
        self.ended.append((upstream, after_s))

    def fail(self, upstream: FakeUpstream) -> None:
        """A dial was refused."""
        self._post(Event(EventKind.UPSTREAM_FAULT, upstream.id, -111, b""))

    def drain_events(self, event_count_max: int = 256) -> list[Event]:
        events, self._events = self._events[:event_count_max], self._events[event_count_max:]
        if not self._events:
            os.eventfd_read(self.event_fd)
        return events

    # what a test does

    def links_to(self, server: FakeServer) -> list[int]:
        """Those that are up."""
        return [link for link in self._peers if self.peers[link] is server]

    @property
    def links(self) -> list[int]:
        return list(self._peers)

    def push(self, link: int, message: Message) -> None:
        """The server says something."""
        for payload, flags in self._peers[link].send(message):
            self._post(Event(EventKind.CONTROL, link, flags, payload))

    def push_config(self, link: int, config: TunConfig) -> None:
        self.push(link, Config(config=config))

    def cut(self, link: int, code: LinkDown = LinkDown.SYSTEM, words: bytes = b"") -> None:
        if self._peers.pop(link, None) is not None:
            self._post(Event(EventKind.LINK_DOWN, link, code, words))

    def want_link(self, link: int) -> None:
        self._post(Event(EventKind.LINK_WANTED, link, 0, b""))

    def _post(self, event: Event) -> None:
        self._events.append(event)
        os.eventfd_write(self.event_fd, 1)
