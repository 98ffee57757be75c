"""When to try again, and where: full jitter between a floor and a cap, fresh DNS, IPv6 and IPv4 in turn.

Full jitter, because after a server's restart every client comes back: spread over the whole interval they arrive at an
even rate. A wait the server asked for (`retry_after_s`) is kept, with jitter on top.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import zip_longest

BASE_S = 1.0
CAP_S = 60.0
STEADY_S = 60.0  # a session that lived this long starts the next wait from the base again
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
        self._failures = 0

    def next_wait_s(self, retry_after_s: float = 0.0) -> float:
        ceiling_s = min(self._cap_s, self._base_s * 2 ** min(self._failures, 16))
        self._failures += 1
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
