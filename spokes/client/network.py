"""Detects changes of this host's network: an address, a route or a cable, or the end of a suspend.

Linux reports the first three over netlink; where that is not permitted, only the end of a suspend is detected. It shows
in the clock that goes on in suspend (CLOCK_BOOTTIME) running ahead of the one that does not, a virtual machine that was
paused or a process that was stopped in this coroutine coming far too late.
Bound: netlink messages are read and thrown away; many at once are one change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
SUSPENDED_S = 2.0  # the clocks are further apart than before, or a check is later, by this much
SETTLE_S = 0.1  # of changes that come together

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


class NetworkWatch:
    """Calls `on_change` each time; run() for as long as it is of interest."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._settling: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            told = self._open()
            if told is not None:
                stack.callback(told.close)
                loop.add_reader(told, self._drain, told)
                stack.callback(loop.remove_reader, told)
            stack.callback(self._forget)
            await self._check_clocks()

    def _open(self) -> socket.socket | None:
        try:
            told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
            told.bind((0, _GROUPS))
            return told
        except (OSError, AttributeError) as error:
            log.info("changes of the network are not told here", extra={"reason": str(error)})
            return None

    def _drain(self, told: socket.socket) -> None:
        try:
            while told.recv(65536):
                pass
        except OSError:  # empty; or more came than it holds (ENOBUFS), which is a change all the same
            pass
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._on_change()

    def _forget(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    async def _check_clocks(self) -> None:
        suspended_s, looked_at = _suspended_s(), time.monotonic()
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            now_suspended_s, now = _suspended_s(), time.monotonic()
            if now_suspended_s - suspended_s > SUSPENDED_S or now - looked_at > CHECK_INTERVAL_S + SUSPENDED_S:
                log.info("this host or program stood still")
                self._on_change()
            suspended_s, looked_at = now_suspended_s, now


def _suspended_s() -> float:
    """For how long this host has been suspended since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() if hasattr(time, "CLOCK_BOOTTIME") else 0.0
