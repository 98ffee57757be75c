"""Traffic of this month by user, for lists of users.

Bound: one figure a user. Read anew when it is LIFETIME_S old: a sum over all tunnels costs more than all else of such a
list, and by default the server adds to the figures no more often.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from spokes import clock
from spokes.store import Store

LIFETIME_S = 5.0


class UserMonths:
    """One for a process; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Mapping[str, int] = {}
        self._fresh_until = 0.0

    def read(self, store: Store) -> Mapping[str, int]:
        """{user id: bytes, both ways}, LIFETIME_S old at most. Who comes while it is read waits, and reads nothing."""
        with self._lock:
            if clock.monotonic_s() >= self._fresh_until:
                self._bytes = store.traffic.month_of_users(clock.wall_s())
                self._fresh_until = clock.monotonic_s() + LIFETIME_S
            return self._bytes
