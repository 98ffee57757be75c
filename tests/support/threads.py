"""Threads of tests: none keeps the interpreter from ending, and none is waited for without a limit."""

from __future__ import annotations

import threading

JOIN_WITHIN_S = 30.0


def join_thread(thread: threading.Thread, within_s: float = JOIN_WITHIN_S) -> None:
    """Waits for its end; fails, and names it, when that does not come."""
    thread.join(within_s)
    assert not thread.is_alive(), f"{thread.name} still runs after {within_s:g} s"
