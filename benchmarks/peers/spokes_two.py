"""This project and two tunnels on one server: one that a crowd stands at, and its neighbour. Each has an upstream of
its own, as two tenants have: what the crowd costs the worker of its upstream is no matter between them. With a small
pool, or one of the programs' own choice."""

from __future__ import annotations

import dataclasses

from benchmarks.peers.running import RunningPeer
from benchmarks.peers.spokes import start_client, start_server
from benchmarks.processes import Room
from benchmarks.upstream import Upstream, start_upstream

MEMORY_LIMIT = "64M"
CROWDED_HOST = "crowded.localhost"


def start(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, "spokes-two", MEMORY_LIMIT)


def start_default(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, "spokes-two-default", "")


def _start(room: Room, upstream: Upstream, name: str, memory_limit: str) -> RunningPeer:
    server = start_server(room, options=("--memory-limit", memory_limit) if memory_limit else ())
    neighbour = start_client(room, server, upstream, client_room=room)
    crowded = start_client(
        room, server, start_upstream(room), client_room=room, name="crowded", host=CROWDED_HOST,
        options=("--memory-limit", memory_limit.rstrip("M")) if memory_limit else (),
    )
    endpoints = {**neighbour.endpoints, "crowded": crowded.endpoints["http"]}
    return dataclasses.replace(neighbour, name=name, endpoints=endpoints)
