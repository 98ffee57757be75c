"""This project with a small pool and two tunnels on one server: one that a crowd stands at, and its neighbour."""

from __future__ import annotations

import dataclasses

from benchmarks.peers.running import RunningPeer
from benchmarks.peers.spokes import start_client, start_server
from benchmarks.processes import Room
from benchmarks.upstream import Upstream

MEMORY_LIMIT = "64M"
CROWDED_HOST = "crowded.localhost"


def start(room: Room, upstream: Upstream) -> RunningPeer:
    server = start_server(room, options=("--memory-limit", MEMORY_LIMIT))
    neighbour = start_client(room, server, upstream, client_room=room)
    crowded = start_client(
        room, server, upstream, client_room=room, name="crowded", host=CROWDED_HOST,
        options=("--memory-limit", MEMORY_LIMIT.rstrip("M")),
    )
    endpoints = {**neighbour.endpoints, "crowded": crowded.endpoints["http"]}
    return dataclasses.replace(neighbour, name="spokes-two", endpoints=endpoints)
