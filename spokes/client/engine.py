"""The client's engine: what is used of it, its size, and the pages it answers with when a local service does not."""

from __future__ import annotations

import logging
import resource
from typing import NamedTuple, Protocol

from spokes._fastpath.engine import Engine, Site, Upstream
from spokes.client.link import LinkEngine
from spokes.machine import Limit, memory_limit, processor_limit, worker_count
from spokes.pages import hand_pages

log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES_MAX = 256 * 1024 * 1024  # the default's cap
MEMORY_LIMIT_BYTES_MIN = 16 * 1024 * 1024
MEMORY_SHARE = 4  # the default takes one part in four of the memory that it may use
CONTROL_MEMORY_LIMIT_BYTES = 16 * 1024 * 1024
WORKER_COUNT_DEFAULT_MAX = 4  # a session has few links, and a link lives on one worker


class ClientEngine(LinkEngine, Protocol):
    """The part of the engine that a client uses."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def open_tunnel(self) -> int: ...
    def close_tunnel(self, tunnel: int) -> None: ...
    def tunnel_counters(self, tunnel: int) -> tuple[int, int, int, float]: ...
    def bind_link(self, link: int, tunnel: int) -> None: ...
    def drain_link(self, link: int) -> None: ...
    def link_rtt_ms(self, link: int) -> float: ...
    def stats(self) -> dict[str, int]: ...
    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None: ...
    def set_route(self, kind: int, key: str | int, site: Site) -> None: ...
    def drop_route(self, kind: int, key: str | int) -> None: ...
    def publish(self) -> int: ...
    def retire_upstream(self, upstream: Upstream) -> None: ...
    def end_upstream(self, upstream: Upstream, *, after_s: float = 0.0) -> None: ...


class EngineSize(NamedTuple):
    """How large the engine is, and which limits of the machine that comes from."""

    workers: int
    processors: Limit
    memory_limit_bytes: int
    memory: Limit


def engine_size(*, workers: int = 0, memory_limit_bytes: int = 0) -> EngineSize:
    """`workers` 0 = one for each CPU, `memory_limit_bytes` 0 = from the machine, within reason."""
    processors, memory = processor_limit(), memory_limit()
    share_bytes = min(int(memory.value) // MEMORY_SHARE, MEMORY_LIMIT_BYTES_MAX)
    return EngineSize(
        workers or min(worker_count(processors), WORKER_COUNT_DEFAULT_MAX),
        processors,
        memory_limit_bytes or max(MEMORY_LIMIT_BYTES_MIN, share_bytes),
        memory,
    )


def serving_engine(*, workers: int = 0, memory_limit_bytes: int = 0) -> Engine:
    """An engine for `App`, of engine_size()."""
    _raise_open_files_limit()
    size = engine_size(workers=workers, memory_limit_bytes=memory_limit_bytes)
    log.info(
        "engine sized",
        extra={
            "workers": size.workers, "processors": size.processors.source,
            "memory_limit_bytes": size.memory_limit_bytes, "memory": size.memory.source,
        },
    )
    engine = Engine(workers=size.workers, memory_limit_bytes=size.memory_limit_bytes, accepting=False)
    hand_pages(engine)
    return engine


def control_engine() -> Engine:
    """An engine for one short conversation."""
    return Engine(workers=1, memory_limit_bytes=CONTROL_MEMORY_LIMIT_BYTES, accepting=False)


def _raise_open_files_limit() -> None:
    """Each visitor may hold one connection to a local service open: take as many as this host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        log.warning("open files stay limited", extra={"limit": soft})
