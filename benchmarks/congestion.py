"""The kernel's default congestion control: what conns use whose program does not ask for another.

Links of this project ask (docs/engine.md, rule 6); most peers do not, so a run may give all of them the same.
Fails: BenchmarkError where the kernel lacks it or this process may not set it; what was in force before comes back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import BenchmarkError

DEFAULT_PATH = Path("/proc/sys/net/ipv4/tcp_congestion_control")


@contextlib.contextmanager
def congestion_default(name: str, path: Path = DEFAULT_PATH) -> Iterator[None]:
    """`name` for every conn made meanwhile on this machine (or in this network namespace); "" leaves it alone."""
    if not name:
        yield
        return
    try:
        before = path.read_text()
        path.write_text(f"{name}\n")
    except OSError as error:
        raise BenchmarkError(f"congestion control {name} cannot be made the default: {error.strerror}") from None
    try:
        yield
    finally:
        path.write_text(before)
