"""This project with its administration on a host of 1 GB: a memory cgroup around the server, its child included.

Owns: the cgroup while it runs. Needs root and the memory controller of cgroup v1 or v2. Who uses more is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import spokes
from benchmarks.peers.running import RunningPeer
from benchmarks.processes import MissingError, Room
from benchmarks.upstream import Upstream

LIMIT_BYTES = 1_000_000_000
MEMORY_LIMIT = "250M"       # of buffers: what it would choose on such a host, which it cannot see
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


def start(room: Room, upstream: Upstream) -> RunningPeer:
    group = _make_group()
    room.on_exit(lambda: _remove_group(group))
    inside = room.inside(("sh", "-c", _ENTER, str(group)), room.address)
    server = spokes.start_server(inside, admin=True, options=("--memory-limit", MEMORY_LIMIT))
    control = dataclasses.replace(server.control, room=room, memory_group=group)
    server = dataclasses.replace(server, control=control)
    running = spokes.start_client(room, server, upstream, client_room=room)
    return dataclasses.replace(running, name="spokes-1gb", control=control)


def peak_bytes(group: Path) -> int:
    """The most it ever held; its page cache is in it, which the kernel takes back when it wants to."""
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        with contextlib.suppress(OSError, ValueError):
            return int((group / name).read_text())
    return 0


def _make_group() -> Path:
    if os.geteuid() != 0:
        raise MissingError("a memory cgroup needs root")
    for parent, limit_name in _controllers():
        group = parent / f"spokes-bench-{os.getpid()}"
        try:
            group.mkdir(exist_ok=True)
            (group / limit_name).write_text(str(LIMIT_BYTES))
        except OSError:
            continue
        return group
    raise MissingError("no memory controller of cgroups can be used here")


def _controllers() -> Iterator[tuple[Path, str]]:
    root = Path("/sys/fs/cgroup")
    if (root / "memory").is_dir():
        yield root / "memory", "memory.limit_in_bytes"
    yield root, "memory.max"


def _remove_group(group: Path) -> None:
    with contextlib.suppress(OSError):      # a process may take a moment to be gone; an empty group harms nobody
        group.rmdir()
