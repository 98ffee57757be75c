"""Limits that follow from the machine: open files and memory, with the terms that an operator can check."""

from __future__ import annotations

import resource
from typing import NamedTuple

from spokes.config import ServerConfig
from spokes.config_values import MEMORY_LIMIT_BYTES_MIN
from spokes.machine import Limit, memory_limit, processor_limit

MEMORY_LIMIT_BYTES_MAX = 512 * 1024 * 1024  # the default's cap: a tunnel server is rarely alone on its host
MEMORY_SHARE = 4  # the default takes one part in four of the memory that it may use: Python and its child take theirs
VISITOR_SHARE_PERCENT = 75  # of the open files
ADDRESS_SHARE_PERCENT = 75  # of the visitors; high, because a proxy in front may bring everyone from one address
TUNNEL_SHARE_PERCENT = 50  # of the visitors; a loop through one tunnel, or a crowd at it, leaves the rest to the others
OPEN_FILES_LOW = 8192  # below it, a few thousand visitors use up the process


class MemoryBudget(NamedTuple):
    """All buffers together, and how the number came about."""

    limit_bytes: int
    machine: Limit  # all that this process may use
    configured: bool

    def terms(self) -> str:
        whole = f"{self.machine.source}, {int(self.machine.value) >> 20} MiB"
        if self.configured:
            return f"as configured (memory_limit), of {whole}"
        return f"a quarter of {whole}, and at most {MEMORY_LIMIT_BYTES_MAX >> 20} MiB"

    def too_large(self) -> bool:
        """Whether the kernel would end this process before the buffers are full."""
        return self.limit_bytes > self.machine.value


def memory_budget(config: ServerConfig) -> MemoryBudget:
    machine = memory_limit()
    if config.memory_limit_bytes:
        return MemoryBudget(config.memory_limit_bytes, machine, True)
    share_bytes = int(machine.value) // MEMORY_SHARE
    return MemoryBudget(max(MEMORY_LIMIT_BYTES_MIN, min(share_bytes, MEMORY_LIMIT_BYTES_MAX)), machine, False)


def worker_terms(config: ServerConfig) -> str:
    """How the number of workers came about."""
    if config.workers:
        return "as configured (workers)"
    processors = processor_limit()
    return f"one for each of {processors.value:g} processors: {processors.source}"


def raise_open_files_limit() -> int:
    """Raises the soft limit to the hard one; what is in force then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def visitor_count_max(open_files: int) -> int:
    """Conns of visitors, and of links that are not up yet: the rest of the descriptors is for links, listeners and the
    store, so that no flood of visitors shuts out the clients or the operator."""
    return max(1, open_files * VISITOR_SHARE_PERCENT // 100)


def visitor_count_per_address_max(config: ServerConfig, open_files: int) -> int:
    """Of those, how many may come from one address (IPv6: one /64)."""
    count_max = visitor_count_max(open_files)
    return min(config.visitors_per_address or count_max * ADDRESS_SHARE_PERCENT // 100 or 1, count_max)


def visitor_count_per_tunnel_max(config: ServerConfig, open_files: int) -> int:
    """Of those, how many one tunnel may carry at once, over all its links. One address cannot fill it, though it may
    have more in all tunnels together: the engine keeps the last quarter for others."""
    count_max = visitor_count_max(open_files)
    return min(config.visitors_per_tunnel or count_max * TUNNEL_SHARE_PERCENT // 100 or 1, count_max)


def open_files_of_ports(config: ServerConfig) -> int:
    """Sockets that listen when every port of the range is allocated: TCP on each worker, UDP on one, per family."""
    families = 1 if config.tcp_address else 2
    return len(config.tcp_ports) * families * (config.worker_count + 1)
