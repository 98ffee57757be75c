"""The event loop of both programs, uvloop's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")

_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` to its end. Ctrl-C cancels it and is raised as KeyboardInterrupt, unless it takes SIGINT itself."""
    import uvloop  # loaded only where something is waited for

    with _handlers_restored():
        return uvloop.run(main)


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """A uvloop that has closed leaves its own handlers behind, which do nothing: signals would be lost from then on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
