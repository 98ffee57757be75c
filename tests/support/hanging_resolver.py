"""A resolver some of whose names hang: `slow…` until they are released; `nowhere` and `broken` fail."""

from __future__ import annotations

import asyncio
import socket
import threading

from spokes.resolver import Answer

ADDRESSES = ("192.0.2.1",)
RELEASED_WITHIN_S = 30.0


class HangingResolver:
    """Asked in threads (`resolver(host)`, as the system's resolver) or on the loop (`await resolver.resolve(host)`)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._released = threading.Event()
        self._released_on_loop = asyncio.Event()

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host.startswith("slow"):
            self._released.wait(RELEASED_WITHIN_S)
        return list(self._addresses(host))

    async def resolve(self, host: str) -> Answer:
        self.asked.append(host)
        if host.startswith("slow"):
            await self._released_on_loop.wait()
        return Answer(self._addresses(host))

    def release(self) -> None:
        """Names that hang are answered, and names asked from now on do not hang. Called on the loop."""
        self._released.set()
        self._released_on_loop.set()

    @staticmethod
    def _addresses(host: str) -> tuple[str, ...]:
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "broken":
            raise RuntimeError("of our own making")
        return ADDRESSES
