"""The client's engine: its size, and the pages it answers with when a local service does not."""

from __future__ import annotations

import logging
import os
import resource

from spokes._fastpath.engine import Engine
from spokes.pages import hand_pages

log = logging.getLogger(__name__)

DEFAULT_MEMORY_LIMIT_BYTES = 256 * 1024 * 1024
CONTROL_MEMORY_LIMIT_BYTES = 16 * 1024 * 1024
WORKER_COUNT_DEFAULT_MAX = 4  # a session has few links, and a link lives on one worker


def serving_engine(*, workers: int = 0, memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES) -> Engine:
    """An engine for `App`; `workers` 0 = one for each CPU, within reason."""
    _raise_open_files_limit()
    count = workers or min(len(os.sched_getaffinity(0)), WORKER_COUNT_DEFAULT_MAX)
    engine = Engine(workers=count, memory_limit_bytes=memory_limit_bytes, accepting=False)
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
