"""A server engine and a client engine joined by one link in this process, without a control plane."""

from __future__ import annotations

import datetime
import hashlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spokes._fastpath.engine import Certificate, Engine, Event, EventKind, ListenerKind, RouteKind, Site, Upstream

DOMAIN = "tun.test"


def make_certificate(*names: str) -> tuple[bytes, bytes, bytes]:
    """(chain PEM, key PEM, SHA-256 of the public key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        hashlib.sha256(spki).digest(),
    )


CHAIN_PEM, KEY_PEM, PIN = make_certificate(DOMAIN, f"*.{DOMAIN}")


def listening(kind: int = socket.SOCK_STREAM, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.listen(4096)
    return sock


def wait_events(engine: Engine, until: Callable[[Event], bool], within_s: float = 20.0,
                seen: list[Event] | None = None) -> Event:
    """The first event that fits; others are kept in `seen`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for event in engine.drain_events():
            if seen is not None:
                seen.append(event)
            if until(event):
                return event
        select.select([engine.event_fd], [], [], 0.05)
    raise AssertionError(f"no such event within {within_s} s; seen: {seen}")


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {condition}")
        time.sleep(0.005)


def publish(engine: Engine) -> None:
    version = engine.publish()
    eventually(lambda: engine.version_in_force() >= version)


@dataclass
class Pair:
    """Two engines and the link between them; ports of the server by name."""

    server: Engine
    client: Engine
    ports: dict[str, int] = field(default_factory=dict)
    server_tunnel: int = 0
    client_tunnel: int = 0
    server_link: int = 0
    client_link: int = 0

    def listen(self, name: str, kind: ListenerKind, port: int = 0) -> int:
        socks = self.bind(kind, port)
        port = socks[0].getsockname()[1]
        for worker, sock in enumerate(socks):
            self.server.add_listener(kind, sock.detach(), worker=worker, port=port)
        self.ports[name] = port
        return port

    def bind(self, kind: ListenerKind, port: int = 0) -> list[socket.socket]:
        """One socket for each worker; UDP has one alone."""
        if kind is ListenerKind.UDP:
            return [listening(socket.SOCK_DGRAM, port)]
        socks = [listening(port=port)]
        for _ in range(1, self.server.worker_count):
            socks.append(listening(port=socks[0].getsockname()[1]))
        return socks

    def connect(self) -> None:
        self.client_link = self.client.connect_link("127.0.0.1", self.ports["tls"], server_name=DOMAIN, pin_sha256=PIN)
        wait_events(self.client, lambda event: event.kind == EventKind.LINK_UP)
        self.server_link = wait_events(self.server, lambda event: event.kind == EventKind.LINK_UP).link
        self.server.bind_link(self.server_link, self.server_tunnel)
        self.client.bind_link(self.client_link, self.client_tunnel)
        # Until a worker has bound the link, the others do not know where to hand a visitor.
        eventually(lambda: self.server.tunnel_counters(self.server_tunnel)[3] > 0)

    def serve_http(self, host: str, upstream: Upstream) -> None:
        self.server.set_route(RouteKind.HTTP, host, Site(tunnels=(self.server_tunnel,)))
        self.client.set_route(RouteKind.HTTP, host, Site(upstream=upstream))
        self.publish()

    def serve_tcp(self, name: str, upstream: Upstream, kind: ListenerKind = ListenerKind.TCP) -> int:
        route = RouteKind.UDP if kind is ListenerKind.UDP else RouteKind.TCP
        socks = self.bind(kind)
        port = socks[0].getsockname()[1]
        self.server.set_route(route, port, Site(tunnels=(self.server_tunnel,)))
        self.client.set_route(route, port, Site(upstream=upstream))
        self.publish()
        for worker, sock in enumerate(socks):       # a worker knows the route before it can accept a visitor
            self.server.add_listener(kind, sock.detach(), worker=worker, port=port)
        self.ports[name] = port
        return port

    def publish(self) -> None:
        """Returns when every worker has the routes."""
        for engine in (self.server, self.client):
            publish(engine)

    def assert_idle(self) -> None:
        """No stream, no visitor, no buffer is left."""
        for engine in (self.server, self.client):
            eventually(lambda engine=engine: engine.stats()["streams_open"] == 0)
            eventually(lambda engine=engine: engine.stats()["visitors_open"] == 0)
            eventually(lambda engine=engine: engine.stats()["buffer_bytes"] == 0)
            eventually(lambda engine=engine: engine.stats()["window_promised_bytes"] == 0)
            eventually(lambda engine=engine: engine.stats()["upstreams_open"] == engine.stats()["upstreams_idle"])


def terminate(server: Engine, names: list[str], chain_pem: bytes, key_pem: bytes) -> Certificate:
    """TLS to these names ends at the server, once it publishes."""
    certificate = Certificate(names, chain_pem, key_pem)
    for name in names:
        server.set_certificate(name, certificate)
    return certificate


@contextmanager
def engine_pair(
    *, workers: int = 1, memory_limit_bytes: int = 64 << 20, via: bytes = b"", udp_idle_s: float = 60.0, **limits: int
) -> Iterator[Pair]:
    server = Engine(
        workers=workers, memory_limit_bytes=memory_limit_bytes, accepting=True, via=via, udp_idle_s=udp_idle_s, **limits
    )
    client = Engine(workers=1, memory_limit_bytes=memory_limit_bytes, accepting=False, udp_idle_s=udp_idle_s)
    pair = Pair(server, client)
    try:
        certificate = terminate(server, [DOMAIN, f"*.{DOMAIN}"], CHAIN_PEM, KEY_PEM)
        server.set_link_certificate(certificate)
        server.start()
        client.start()
        pair.server_tunnel = server.open_tunnel()
        pair.client_tunnel = client.open_tunnel()
        pair.listen("http", ListenerKind.HTTP)
        pair.listen("tls", ListenerKind.TLS)
        pair.connect()
        yield pair
    finally:
        client.stop()
        server.stop()
