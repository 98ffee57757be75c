"""The periodic checks that raise alerts: certificate, memory, disk, limits, tunnels that are off-line, clocks.

Bound: each check once in CHECK_INTERVAL_S; the clocks of the last SKEW_COUNT_MAX sources of clients.
Fails: a check that fails is logged, and is an alert until it succeeds; the others are made all the same.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from spokes.errors import SpokesError
from spokes.server.notify.alerts import AlertBoard
from spokes.server.usage.bandwidth import UserTraffic
from spokes.store import Severity

log = logging.getLogger(__name__)

TASK_ALERT = "task"  # of a task of the server, or a check, that fails
CHECK_INTERVAL_S = 15.0
CERTIFICATE_WARNING_S = 14 * 86_400.0
CERTIFICATE_CRITICAL_S = 3 * 86_400.0
MEMORY_HIGH, MEMORY_CRITICAL, MEMORY_CALM = 0.85, 0.95, 0.70  # of the limit of all buffers
DISK_LOW, DISK_CRITICAL, DISK_CALM = 0.10, 0.03, 0.12  # of the file system of the data, free
DISK_ROOMY_BYTES = 10 << 30  # so much free is enough, whatever the share
BANDWIDTH_WARNING, BANDWIDTH_CRITICAL = 0.80, 0.95
SKEW_S_MAX = 300.0
SKEW_COUNT_MAX = 16
SKEW_COUNT_MIN = 3  # fewer may be wrong themselves
OFFLINE_COUNT_MAX = 100  # alerts of silent tunnels at once: beyond that the cause is not theirs


class Clocks:
    """How far the clocks of the latest clients are from ours, one for each source."""

    def __init__(self) -> None:
        self._skews: OrderedDict[str, float] = OrderedDict()

    def note(self, source: str, skew_s: float) -> None:
        self._skews[source] = skew_s
        self._skews.move_to_end(source)
        while len(self._skews) > SKEW_COUNT_MAX:
            self._skews.popitem(last=False)

    def ours_skew_s(self) -> float:
        """How far most clients think we are off, one way; 0.0: they do not."""
        ahead = sorted(skew for skew in self._skews.values() if skew > SKEW_S_MAX)
        behind = sorted(skew for skew in self._skews.values() if skew < -SKEW_S_MAX)
        for one_way in (ahead, behind):
            if len(one_way) >= SKEW_COUNT_MIN and 2 * len(one_way) > len(self._skews):
                return one_way[len(one_way) // 2]
        return 0.0


class Offline:
    """Since when which tunnel is off-line, as far as this process has seen."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def check(self, tunnels: Iterable[str], is_online: Callable[[str], bool], now: float) -> Mapping[str, float]:
        """{tunnel: seconds}. Tunnels that are gone are forgotten."""
        self._since = {uid: self._since.get(uid, now) for uid in tunnels if not is_online(uid)}
        return {uid: now - since for uid, since in self._since.items()}


class Watch:
    """Makes the checks one after the other."""

    def __init__(self, alerts: AlertBoard) -> None:
        self._alerts = alerts
        self._checks: list[Callable[[], Awaitable[None]]] = []

    def add(self, check: Callable[[], Awaitable[None]]) -> None:
        self._checks.append(check)

    async def run(self) -> None:
        while True:
            await self.check()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def check(self) -> None:
        for check in self._checks:
            what = check.__qualname__
            try:
                await check()
            except (SpokesError, OSError) as error:
                log.warning("check failed", extra={"what": what, "detail": str(error)})
            except Exception as error:
                log.exception("check failed", extra={"what": what})
                words = f"{what} fails: {type(error).__name__}; the log has the details"
                self._alerts.raise_(TASK_ALERT, what, Severity.WARNING, words)
            else:
                self._alerts.settle(TASK_ALERT, what)

    # what a check found

    def certificate(self, names: tuple[str, ...], expires_at: float, now: float) -> None:
        left_s, subject = expires_at - now, names[0] if names else ""
        if left_s > CERTIFICATE_WARNING_S:
            self._alerts.settle("certificate", subject)
            return
        severity = Severity.CRITICAL if left_s <= CERTIFICATE_CRITICAL_S else Severity.WARNING
        words = f"ends in {left_s / 86_400:.1f} days" if left_s > 0 else "has ended"
        self._alerts.raise_("certificate", subject, severity, f"the certificate of {subject} {words}")

    def certificate_files(self, subject: str, error: SpokesError | None, *, is_used: bool = True) -> None:
        """What is wrong with the files of the pair; None: nothing."""
        if error is None:
            self._alerts.settle("certificate", subject)
            return
        words = f"{error}; {error.hint}" if error.hint else str(error)
        if is_used:
            words += ". The last good pair stays in use"
        self._alerts.raise_("certificate", subject, Severity.WARNING, words)

    def memory(self, used_bytes: int, limit_bytes: int) -> None:
        share = used_bytes / limit_bytes if limit_bytes else 0.0
        if share >= MEMORY_HIGH:
            severity = Severity.CRITICAL if share >= MEMORY_CRITICAL else Severity.WARNING
            self._alerts.raise_("memory", "buffers", severity, f"{share:.0%} of memory_limit are in use")
        elif share < MEMORY_CALM:
            self._alerts.settle("memory", "buffers")

    def disk(self, directory: Path, free_bytes: int, total_bytes: int) -> None:
        share, subject = free_bytes / total_bytes if total_bytes else 1.0, str(directory)
        if share < DISK_LOW and free_bytes < DISK_ROOMY_BYTES:
            severity = Severity.CRITICAL if share < DISK_CRITICAL else Severity.WARNING
            self._alerts.raise_("disk", subject, severity, f"{share:.0%} of the disk of {directory} are free")
        elif share >= DISK_CALM or free_bytes >= DISK_ROOMY_BYTES:
            self._alerts.settle("disk", subject)

    def bandwidth(self, standings: Iterable[UserTraffic]) -> None:
        fine = set(self._alerts.subjects("bandwidth"))
        for uid, used, limit in standings:
            if used < BANDWIDTH_WARNING * limit:
                continue
            fine.discard(uid)
            severity = Severity.CRITICAL if used >= BANDWIDTH_CRITICAL * limit else Severity.WARNING
            words = f"user {uid} has used {used / limit:.0%} of this month's traffic"
            if used >= limit:
                words += "; visitors of their tunnels are turned away"
            self._alerts.raise_("bandwidth", uid, severity, words)
        for uid in fine:
            self._alerts.settle("bandwidth", uid)

    def clocks(self, skew_s: float) -> None:
        if skew_s:
            words = f"most clients' clocks are {skew_s:+.0f} s from this server's"
            self._alerts.raise_("clock", "server", Severity.WARNING, words)
        else:
            self._alerts.settle("clock", "server")

    def offline(self, names: Mapping[str, str]) -> None:
        """`names` of the tunnels that are off-line for longer than they may."""
        for uid in self._alerts.subjects("offline"):
            if uid not in names:
                self._alerts.settle("offline", uid)
        room = OFFLINE_COUNT_MAX - len(self._alerts.subjects("offline"))
        for uid, name in list(names.items())[: max(0, room)]:
            if not self._alerts.is_open("offline", uid):
                self._alerts.raise_("offline", uid, Severity.WARNING, f"tunnel {name} is off-line")


async def disk_figures(directory: Path) -> tuple[int, int]:
    """(free, total) bytes; a network file system may take its time."""
    usage = await asyncio.to_thread(shutil.disk_usage, directory)
    return usage.free, usage.total
