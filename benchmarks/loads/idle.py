"""Idle visitors: how much memory a conn costs that does nothing, in the server and in the client."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl

from benchmarks.loads import Metrics
from benchmarks.loads.https import tls_context
from benchmarks.loads.memory import rest_rss_bytes
from benchmarks.peers import Endpoint, RunningPeer
from benchmarks.processes import BenchmarkError
from benchmarks.scale import Scale

# Several loopback addresses, so that neither the 28,000 ephemeral ports of one nor a cap per visitor address counts.
_SOURCE_COUNT = 16
_IP_BIND_ADDRESS_NO_PORT = 24           # <linux/in.h>: choose the source port at connect, per destination
_WARMUP_CONN_COUNT = 100                # opened before the first reading: pools and tables that come once
_CONNECT_TIMEOUT_S = 10.0
_SPARE_FDS = 400


def idle_tcp(peer: RunningPeer, scale: Scale) -> Metrics:
    """Conns to a TCP port on which nothing was ever sent."""
    return _measure(peer, peer.endpoint("tcp"), scale, request=b"")


def idle_http(peer: RunningPeer, scale: Scale) -> Metrics:
    """Conns that carried one request and are kept."""
    endpoint = peer.endpoint("http")
    request = f"GET / HTTP/1.1\r\nHost: {endpoint.host or endpoint.address}\r\n\r\n".encode()
    return _measure(peer, endpoint, scale, request=request)


def idle_https(peer: RunningPeer, scale: Scale) -> Metrics:
    """The same under TLS."""
    endpoint = peer.endpoint("https")
    return _measure(peer, endpoint, scale, request=f"GET / HTTP/1.1\r\nHost: {endpoint.host}\r\n\r\n".encode())


def _measure(peer: RunningPeer, endpoint: Endpoint, scale: Scale, *, request: bytes) -> Metrics:
    with contextlib.ExitStack() as stack:
        def open_conns(count: int) -> list[socket.socket]:
            return [stack.enter_context(_open(endpoint, index, request)) for index in range(count)]

        open_conns(_WARMUP_CONN_COUNT)
        before = rest_rss_bytes(peer)
        conns = open_conns(_conn_count(peer, scale))
        after = rest_rss_bytes(peer)
        lost = len(conns) - sum(map(_is_open, conns))
    per_conn = {f"{side}_bytes_per_conn": (after[side] - before[side]) / len(conns) for side in after}
    return {**per_conn, "conns": len(conns), "conns_lost": lost}


def _conn_count(peer: RunningPeer, scale: Scale) -> int:
    """As many as wanted, or as the limit of open files leaves a peer that needs several for each."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(scale.idle_conn_count, (limit - _SPARE_FDS) // peer.fds_per_conn - _WARMUP_CONN_COUNT))


def _open(endpoint: Endpoint, index: int, request: bytes) -> socket.socket:
    conn = socket.socket()
    try:
        conn.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if endpoint.address.startswith("127."):
            conn.bind((f"127.0.0.{2 + index % _SOURCE_COUNT}", 0))
        conn.settimeout(_CONNECT_TIMEOUT_S)
        conn.connect((endpoint.address, endpoint.port))
        if endpoint.is_secure:
            conn = tls_context().wrap_socket(conn, server_hostname=endpoint.host)
        if request:
            conn.sendall(request)
            _read_answer(conn)
        conn.setblocking(False)
    except OSError as error:
        conn.close()
        raise BenchmarkError(f"idle conn {index}: {error}") from None
    return conn


def _read_answer(conn: socket.socket) -> None:
    """One whole answer with a length, so that nothing of it is on its way any more."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = conn.recv(4096)
        if not chunk:
            raise BenchmarkError("idle conn: closed before its answer")
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise BenchmarkError("idle conn: " + head.splitlines()[0].decode(errors="replace"))
    lengths = [line.split(b":", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body)
    while missing > 0:
        missing -= len(conn.recv(4096)) or missing


def _is_open(conn: socket.socket) -> bool:
    try:        # under TLS nothing comes but the end: an answer was read to its end, and the tickets with it
        return (conn.recv(1) if isinstance(conn, ssl.SSLSocket) else conn.recv(1, socket.MSG_PEEK)) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
