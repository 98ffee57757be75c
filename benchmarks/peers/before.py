"""Another tree of this project as a peer: an earlier version, built, beside the one at hand and in the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import spokes
from benchmarks.peers.running import RunningPeer
from benchmarks.processes import MissingError, Room
from benchmarks.upstream import Upstream

SUFFIX = "-before"

Start = Callable[[Room, Upstream], RunningPeer]


def of_tree(name: str, start: Start, tree: Path) -> Start:
    """`start` with the programs of `tree`, which `make build` was run in."""
    programs = tree.resolve() / ".venv" / "bin"

    def start_before(room: Room, upstream: Upstream) -> RunningPeer:
        if not programs.is_dir():
            raise MissingError(f"{programs} is not there: run `make build` in {tree}")
        own_room = room.inside(room.prefix, room.address)
        own_room.path = room.path / f"{name}{SUFFIX}"
        own_room.path.mkdir(mode=0o755)
        with spokes.programs_of(programs):
            return dataclasses.replace(start(own_room, upstream), name=f"{name}{SUFFIX}")

    return start_before
