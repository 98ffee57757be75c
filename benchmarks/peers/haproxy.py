"""HAProxy with one hop: what a tunnel with two hops is held against."""

from __future__ import annotations

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
