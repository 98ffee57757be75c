"""The kernel's memory for TCP, which all sockets of the machine share: looked at, and told to the engine.

Its limit is `tcp_mem`'s first number: from there on the kernel lets no conn's buffers grow, and a little later drops
what arrives. Each visitor that stands still takes some of it, here and at the service, whatever our own buffers hold.
Bound: a look each LOOK_INTERVAL_S, four a second where a quarter is used; one line of log each LOG_INTERVAL_S.
Fails: never; where the kernel does not tell (another system, a container that hides its limit), nothing is known.
Source: tcp(7), tcp_mem; proc_net(5), sockstat.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import NamedTuple, Protocol

from spokes import clock

log = logging.getLogger(__name__)

PROC = Path("/proc")
LOOK_INTERVAL_S = 1.0
LOOK_INTERVAL_BUSY_S = 0.25
LOG_INTERVAL_S = 60.0


class TcpMemory(NamedTuple):
    """Of the whole machine."""

    used_bytes: int
    limit_bytes: int


def tcp_memory(proc: Path = PROC) -> TcpMemory | None:
    """None: the kernel does not tell."""
    try:
        limits = (proc / "sys/net/ipv4/tcp_mem").read_text(encoding="ascii").split()
        for line in (proc / "net/sockstat").read_text(encoding="ascii").splitlines():
            kind, _, rest = line.partition(":")
            if kind == "TCP":
                words = rest.split()
                page_bytes = os.sysconf("SC_PAGE_SIZE")
                return TcpMemory(int(words[words.index("mem") + 1]) * page_bytes, int(limits[0]) * page_bytes)
    except (OSError, ValueError, IndexError):
        pass
    return None


class Relieved(Protocol):
    """The part of an engine that this is about."""

    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None: ...
    def stats(self) -> dict[str, int]: ...


class TcpMemoryWatch:
    """Looks for as long as `run` does."""

    def __init__(self, engine: Relieved, proc: Path = PROC) -> None:
        self._engine = engine
        self._proc = proc
        self._counted = 0  # streams that were ended, up to the last look …
        self._untold = 0  # … and of those that were for want of this memory, the ones that no line has told of
        self._was_short = False
        self._told: clock.Since | None = None

    async def run(self) -> None:
        while True:
            wait_s = self.look()
            await asyncio.sleep(wait_s)

    def look(self) -> float:
        """How long until the next one."""
        memory = tcp_memory(self._proc)
        if memory is None:
            return LOOK_INTERVAL_S
        self._tell(memory)
        self._engine.note_kernel_memory(memory.used_bytes, memory.limit_bytes)
        return LOOK_INTERVAL_BUSY_S if memory.used_bytes > memory.limit_bytes // 4 else LOOK_INTERVAL_S

    def _tell(self, memory: TcpMemory) -> None:
        count = self._engine.stats()["streams_reclaimed"]
        if self._was_short:
            self._untold += count - self._counted
        self._counted = count
        self._was_short = memory.used_bytes > memory.limit_bytes // 4 * 3
        if self._untold == 0 or (self._told is not None and self._told.lasted_s() < LOG_INTERVAL_S):
            return
        log.warning(
            "streams that stood still were ended: the kernel's memory for TCP is short",
            extra={
                "streams": self._untold, "used_bytes": memory.used_bytes, "limit_bytes": memory.limit_bytes,
            },
        )
        self._told, self._untold = clock.Since(), 0
