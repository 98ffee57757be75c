"""When to try again, and where: full jitter below a ceiling, fresh DNS, IPv6 and IPv4 in turn.

Full jitter, because after a server's restart every client comes back: spread over the whole interval they arrive at an
even rate. A wait the server asked for (`retry_after_s`) is kept, with jitter on top.

Two kinds of failure. Where nobody answers (no TCP connection, no address) a try costs the server nothing, and the next
one comes soon: the ceiling is a small share of the time that the client has been away. Where a server answers and the
session fails all the same, tries are a load: the ceiling doubles from one to the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import zip_longest

BASE_S = 1.0
CAP_S = 60.0
NOBODY_CEILING_S = 1.5  # a client is back within 2 s after its server is
NOBODY_AWAY_SHARE = 1 / 400  # of a long outage that a wait may add to it: ten minutes of it do not move the ceiling yet
RETRY_AFTER_MAX_S = 3600.0  # no server may silence a client for longer


class Backoff:
    """The waits between attempts: the n-th is uniform in (0, min(cap, base * 2**n))."""

    def __init__(
        self, *, base_s: float = BASE_S, cap_s: float = CAP_S, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._uniform = uniform
        self._failures = 0

    def reset(self) -> None:
        """The last session worked, or what kept this one away has changed."""
        self._failures = 0

    def next_wait_s(self, retry_after_s: float = 0.0, *, nobody_since_s: float | None = None) -> float:
        """`nobody_since_s`: nobody answered this time, and the client has been away for so long."""
        if nobody_since_s is None:
            ceiling_s = min(self._cap_s, self._base_s * 2 ** min(self._failures, 16))
            self._failures += 1
        else:
            ceiling_s = min(self._cap_s, max(NOBODY_CEILING_S, nobody_since_s * NOBODY_AWAY_SHARE))
        asked_s = min(max(retry_after_s, 0.0), RETRY_AFTER_MAX_S)
        return asked_s + self._uniform(0.0, ceiling_s)


def in_turn(addresses: list[str]) -> list[str]:
    """IPv6 and IPv4 alternating, the system's favourite first: one broken family costs one attempt, not all."""
    if not addresses:
        return []
    first_is_v6 = ":" in addresses[0]
    first = [address for address in addresses if (":" in address) == first_is_v6]
    second = [address for address in addresses if (":" in address) != first_is_v6]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]
