"""The event loop of `spoke`, the same as the server's. Loaded only by verbs that wait for something."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs `main` to its end. Ctrl-C cancels it and is raised as KeyboardInterrupt, unless it takes SIGINT itself."""
    import uvloop

    return uvloop.run(main)
