"""Waiting for a condition, never for a time."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Returns once the condition holds; fails when it does not within the deadline."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)
