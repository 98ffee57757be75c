"""Ports for servers that tests start: no two test processes on this machine are given the same one.

A process takes a region of REGION_PORTS by a lock that ends with it, and goes round in it, so that a port is not given
again while the last server's conns there are still in TIME_WAIT.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from spokes.config_values import PortRange

FIRST, LAST = 23_000, 29_000             # below what the kernel gives by itself
REGION_PORTS = 100

_region: tuple[int, TextIO] | None = None
_offsets: Iterator[int] = iter(())


def free_port_range(count: int) -> PortRange:
    """Ports next to each other, for TCP and UDP, that nobody has and no other test process will take."""
    begin = _claimed_region()
    for _ in range(REGION_PORTS):
        first = begin + _next_offset(count)
        if all(_is_free(port) for port in range(first, first + count)):
            return PortRange(first, first + count - 1)
    raise AssertionError("no free ports")


def free_port() -> int:
    return free_port_range(1).begin


def _claimed_region() -> int:
    global _region
    if _region is not None:
        return _region[0]
    directory = Path(tempfile.gettempdir()) / f"spokes-test-ports-{os.geteuid()}"
    directory.mkdir(exist_ok=True)
    for begin in range(FIRST, LAST, REGION_PORTS):
        lock = (directory / str(begin)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _region = begin, lock
        return begin
    raise AssertionError("every region of ports is taken by another test process")


def _next_offset(count: int) -> int:
    global _offsets
    for offset in _offsets:
        if offset + count <= REGION_PORTS:
            for _ in range(count - 1):
                next(_offsets, None)
            return offset
    _offsets = iter(range(REGION_PORTS))
    return _next_offset(count)


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
