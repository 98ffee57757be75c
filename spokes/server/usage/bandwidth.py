"""Bandwidth limits: a user's traffic in a calendar month (UTC), checked each interval, cut off when used up.

Owns: which users have used up theirs. What was used is asked of the store, so it survives restarts; a user is over at
most one interval's traffic late. A new month, a raised limit or none opens the tunnels again by itself.
Fails: a store that fails is logged; what it said last, and what was counted since, is held against the limits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from spokes import clock
from spokes.errors import BandwidthError, SpokesError
from spokes.server.base.storethread import StoreThread
from spokes.server.routing.routes import RouteTable
from spokes.server.routing.users import Users
from spokes.server.usage.traffic import TrafficMeter

log = logging.getLogger(__name__)


USED_UP_HINT = (
    "visitors are turned away until next month or a higher limit; the client may stay on, the operator can raise it"
)


class UserTraffic(NamedTuple):
    """A user with a limit, and where it stands."""

    user_uid: str
    used_bytes: int
    limit_bytes: int


class BandwidthLimits:
    """run() checks each interval; check() is for when a user or a tunnel's owner changed."""

    def __init__(
        self,
        *,
        store: StoreThread,
        meter: TrafficMeter,
        users: Users,
        routes: RouteTable,
        cut: Callable[[str, SpokesError], None],
        interval_s: float,
    ) -> None:
        """`cut`: ends a tunnel's session with a word; its client may come back."""
        self.interval_s = interval_s
        self._store = store
        self._meter = meter
        self._users = users
        self._routes = routes
        self._cut = cut
        self._stored: Mapping[str, int] = {}  # user: bytes of this month, as the store said last
        self._used_up: set[str] = set()
        self._closed: set[str] = set()  # tunnels

    async def load(self) -> None:
        """Before visitors are served: who was over before a restart is over after it."""
        await self._ask()
        self.check()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.interval_s)
            await self.step()

    async def step(self) -> None:
        await self._meter.flush()
        try:
            await self._ask()
        except SpokesError as error:
            log.warning("usage not read", extra={"code": error.code, "detail": str(error)})
        self.check()

    async def _ask(self) -> None:
        if any(self._users.limited()):
            self._stored = await self._store.run(self._store.store.traffic.month_of_users, clock.wall_s())

    def standings(self) -> list[UserTraffic]:
        """Every user with a limit."""
        pending: defaultdict[str, int] = defaultdict(int)
        for tunnel_uid, pending_bytes in self._meter.pending():
            pending[self._users.owner(tunnel_uid)] += pending_bytes
        stored = self._stored
        return [
            UserTraffic(uid, stored.get(uid, 0) + pending.get(uid, 0), limit) for uid, limit in self._users.limited()
        ]

    def is_used_up(self, user_uid: str) -> bool:
        return user_uid in self._used_up

    def check(self) -> None:
        """Holds what was used against the limits, and opens and closes tunnels accordingly."""
        used = {uid: used_bytes for uid, used_bytes, limit in self.standings() if used_bytes >= limit}
        used_up = set(used)
        for uid in used_up - self._used_up:
            log.warning("traffic of the month used up", extra={"user_uid": uid, "used_bytes": used[uid]})
        for uid in self._used_up - used_up:
            log.info("traffic within the limit again", extra={"user_uid": uid})
        self._used_up = used_up
        closed = {tunnel_uid for uid in used_up for tunnel_uid in self._users.tunnels_of(uid)}
        for tunnel_uid in self._closed - closed:
            self._routes.close_to_visitors(tunnel_uid, closed=False)
        for tunnel_uid in closed:  # also those that were closed: one may have been deleted and made again
            self._routes.close_to_visitors(tunnel_uid, closed=True)
        self._routes.publish()  # before the streams are cut: nobody comes back by the old way
        for tunnel_uid in closed - self._closed:
            self._cut(tunnel_uid, BandwidthError("the traffic of this month is used up", hint=USED_UP_HINT))
        self._closed = closed
