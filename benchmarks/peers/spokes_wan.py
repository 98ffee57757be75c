"""This project over a path with a shape: server and visitors in one network namespace, client and upstream in another.

Owns: the namespaces wan-a and wan-b while it runs, made by wan.c. Needs root, /dev/net/tun and a compiler.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import spokes
from benchmarks.peers.running import RunningPeer
from benchmarks.processes import MissingError, Room, find_program
from benchmarks.programs import built
from benchmarks.upstream import Upstream, start_upstream

LIFETIME_S = 3600       # the namespaces go at last, even when this program was killed
SERVER_ADDRESS = "10.201.0.1"

SOURCE = Path(__file__).parent / "wan.c"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathShape:
    delay_ms: float         # each way
    loss_percent: float
    rate_mbit: float
    queue_packets: int


LONG = PathShape(delay_ms=20, loss_percent=0.5, rate_mbit=300, queue_packets=4000)
SLOW = PathShape(delay_ms=2, loss_percent=0, rate_mbit=1, queue_packets=100)


def start(room: Room, upstream: Upstream) -> RunningPeer:
    return _start_over(LONG, "spokes-wan", room)


def start_slow(room: Room, upstream: Upstream) -> RunningPeer:
    return _start_over(SLOW, "spokes-slow", room)


def _start_over(shape: PathShape, name: str, room: Room) -> RunningPeer:
    """With an upstream of its own, beyond the path."""
    program = _build(room)
    path = room.start("wan", [
        str(program), "--delay", str(shape.delay_ms), "--loss", str(shape.loss_percent),
        "--rate", str(shape.rate_mbit), "--queue", str(shape.queue_packets), "--seconds", str(LIFETIME_S),
    ])
    path.wait_for(lambda: b"ready" in path.log_path.read_bytes(), "both ends are up")
    near = room.inside(("ip", "netns", "exec", "wan-a"), SERVER_ADDRESS)
    far = room.inside(("ip", "netns", "exec", "wan-b"), "127.0.0.1")
    server = spokes.start_server(near)
    far_upstream = start_upstream(far)
    running = spokes.start_client(near, server, far_upstream, client_room=far)
    return RunningPeer(
        name=name, endpoints=running.endpoints, processes=running.processes, control=running.control,
        visitor_prefix=near.prefix,
    )


def _build(room: Room) -> Path:
    if os.geteuid() != 0:
        raise MissingError("network namespaces need root")
    if not Path("/dev/net/tun").exists():
        raise MissingError("/dev/net/tun is missing")
    find_program("ip")
    return built(room, SOURCE)
