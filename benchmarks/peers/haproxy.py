"""HAProxy with one hop: what a tunnel with two hops is held against."""

from __future__ import annotations

from benchmarks.certificate_pairs import HTTPS_NAMES, Authority
from benchmarks.peers.running import Endpoint, RunningPeer
from benchmarks.processes import Room, find_program, free_port
from benchmarks.upstream import Upstream

# Its best: all cores (its default), idle upstream conns shared among visitors, no logging.
_CONFIG = """
global
    maxconn 8000
defaults
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    retries 3
frontend http_in
    mode http
    bind {address}:{http} backlog 4096
    default_backend http_out
backend http_out
    mode http
    http-reuse always
    server upstream 127.0.0.1:{http_upstream}
frontend tcp_in
    mode tcp
    bind {address}:{tcp} backlog 4096
    default_backend tcp_out
backend tcp_out
    mode tcp
    server upstream 127.0.0.1:{http_upstream}
"""
_BULK = """
frontend bulk_in
    mode tcp
    bind {address}:{bulk}
    default_backend bulk_out
backend bulk_out
    mode tcp
    server iperf3 127.0.0.1:{bulk_upstream}
"""

# One frontend, so that what an idle visitor costs is its own; suites and groups as ours, or other work would be done.
_HTTPS = """
global
    maxconn 9900
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
    ssl-default-bind-curves X25519:P-256:P-384
defaults
    mode http
    maxconn 9900
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    retries 3
frontend https_in
    bind {address}:{https} backlog 4096 ssl crt {pair} alpn http/1.1
    default_backend http_out
backend http_out
    http-reuse always
    server upstream 127.0.0.1:{http_upstream}
"""


def start_https(room: Room, upstream: Upstream) -> RunningPeer:
    """TLS ends here: a certificate as the one of our own peer."""
    program, port = find_program("haproxy"), free_port()
    pair, config = room.path / "haproxy.pem", room.path / "haproxy-https.cfg"
    pair.write_bytes(b"".join(Authority().issue(*HTTPS_NAMES)))
    config.write_text(_HTTPS.format(address=room.address, https=port, pair=pair, http_upstream=upstream.http_port))
    server = room.start("haproxy-https", [program, "-db", "-f", str(config)])
    server.wait_for_port(room.address, port)
    return RunningPeer(
        name="haproxy-https",
        endpoints={"https": Endpoint(room.address, port, HTTPS_NAMES[0], is_secure=True)},
        processes={"server": server}, fds_per_conn=2,      # it keeps one in reserve for the upstream's side
    )


def start(room: Room, upstream: Upstream) -> RunningPeer:
    program = find_program("haproxy")
    ports = {"http": free_port(), "tcp": free_port()}
    text = _CONFIG
    if upstream.bulk_port:
        ports["bulk"] = free_port()
        text += _BULK
    config = room.path / "haproxy.cfg"
    config.write_text(text.format(
        address=room.address, http_upstream=upstream.http_port, bulk_upstream=upstream.bulk_port, **ports,
    ))
    server = room.start("haproxy", [program, "-db", "-f", str(config)])
    server.wait_for_port(room.address, ports["http"])
    return RunningPeer(
        name="haproxy",
        endpoints={service: Endpoint(room.address, port) for service, port in ports.items()},
        processes={"server": server},
    )
