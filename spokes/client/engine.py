"""The client's engine: its size, and the pages it answers with when a local service does not."""

from __future__ import annotations

import logging
import resource

from spokes._fastpath.engine import Engine
from spokes.machine import memory_limit, processor_limit, worker_count
from spokes.pages import hand_pages

log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES_MAX = 256 * 1024 * 1024  # the default's cap
MEMORY_LIMIT_BYTES_MIN = 16 * 1024 * 1024
MEMORY_SHARE = 4  # the default takes one part in four of the memory that it may use
CONTROL_MEMORY_LIMIT_BYTES = 16 * 1024 * 1024
WORKER_COUNT_DEFAULT_MAX = 4  # a session has few links, and a link lives on one worker


def serving_engine(*, workers: int = 0, memory_limit_bytes: int = 0) -> Engine:
    """An engine for `App`; `workers` 0 = one for each CPU, `memory_limit_bytes` 0 = from the machine, within reason."""
    _raise_open_files_limit()
    processors, memory = processor_limit(), memory_limit()
    count = workers or min(worker_count(processors), WORKER_COUNT_DEFAULT_MAX)
    share_bytes = min(int(memory.value) // MEMORY_SHARE, MEMORY_LIMIT_BYTES_MAX)
    limit_bytes = memory_limit_bytes or max(MEMORY_LIMIT_BYTES_MIN, share_bytes)
    log.info(
        "engine sized",
        extra={
            "workers": count, "processors": processors.source,
            "memory_limit_bytes": limit_bytes, "memory": memory.source,
        },
    )
    engine = Engine(workers=count, memory_limit_bytes=limit_bytes, accepting=False)
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
