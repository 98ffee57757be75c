"""The programs that are measured, each started by a function `(room, upstream) -> RunningPeer` of its file."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers import haproxy, nginx, rathole, spokes, spokes_1gb, spokes_two, spokes_wan
from benchmarks.peers.running import Endpoint, RunningPeer
from benchmarks.processes import Room
from benchmarks.upstream import Upstream

PEERS: dict[str, Callable[[Room, Upstream], RunningPeer]] = {
    "spokes": spokes.start,
    "spokes-https": spokes.start_https,
    "spokes-admin": spokes.start_with_admin,
    "spokes-1gb": spokes_1gb.start,
    "spokes-two": spokes_two.start,
    "spokes-two-default": spokes_two.start_default,
    "spokes-wan": spokes_wan.start,
    "spokes-slow": spokes_wan.start_slow,
    "haproxy": haproxy.start,
    "haproxy-https": haproxy.start_https,
    "nginx-default": nginx.start_default,
    "nginx-tuned": nginx.start_tuned,
    "rathole": rathole.start_plain,
    "rathole-tls": rathole.start_tls,
}

__all__ = ["PEERS", "Endpoint", "RunningPeer"]
