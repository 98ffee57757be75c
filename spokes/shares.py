"""Shares of a pool that several owners use: lent while they are unused, taken back as what was lent comes back.

One owner alone gets all but a reserve. Of what is left each who comes takes at most half, so that the next one finds
something at once. What the first give back goes to those who have less, until each holds as much as is free.
Bound: one figure for each owner that holds something. Not for several threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def fair_share(held: Iterable[int], total: int) -> int:
    """The most that one may hold so that all together hold `total` at most: what some leave goes to those who want
    more. At least what is held most, where all of it fits."""
    left, counts = total, sorted(held)
    for index, count in enumerate(counts):
        share = left // (len(counts) - index)
        if count > share:
            return share
        left -= count
    return max(total, 0)


class Shares:
    def __init__(self, total: int, *, reserve: int | None = None) -> None:
        """`reserve` is not lent; a quarter unless it is said."""
        self.total = total
        self._reserve = max(1, total // 4) if reserve is None else reserve
        self._held: Counter[str] = Counter()

    @property
    def used(self) -> int:
        return self._held.total()

    def held(self, owner: str) -> int:
        return self._held[owner]

    def owners(self) -> list[str]:
        return list(self._held)

    def room(self, owner: str) -> int:
        """How much the owner may take now."""
        free, own = self.total - self.used, self._held[owner]
        half = (free + own + 1) // 2
        return max(0, min(free, max(half - own, free - self._reserve)))

    def may(self, owner: str, amount: int = 1) -> bool:
        """Whether the owner may take so much now; of what is larger than a share, one at a time."""
        return amount <= self.room(owner) or (not self._held[owner] and amount <= self.total - self.used)

    def take(self, owner: str, amount: int = 1) -> None:
        self._held[owner] += amount

    def give_back(self, owner: str, amount: int = 1) -> None:
        self._held[owner] -= amount
        if self._held[owner] <= 0:
            del self._held[owner]
