"""Which epochs a node's changes belong to, and up to where two nodes' changes are the same.

In an epoch one node alone commits, so two logs that share an epoch are the same in it as far as both go. Where the next
epoch began differently, they part.
Bound: EPOCH_COUNT_MAX epochs, the newest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from spokes.cluster.position import NUMBER_MAX, Epoch

EPOCH_COUNT_MAX = 100


class EpochStart(NamedTuple):
    """An epoch, and the `seq` behind which its changes begin."""

    number: int
    owner: str
    start: int

    @property
    def epoch(self) -> Epoch:
        return Epoch(self.number, self.owner)


History = tuple[EpochStart, ...]         # oldest first; the last is the present epoch


def common_seq(one: Sequence[EpochStart], other: Sequence[EpochStart]) -> int:
    """Up to which `seq` both have the same changes, as far as they have them; NUMBER_MAX where one goes on from the
    other, 0 where they have no epoch in common."""
    known = {start: place for place, start in enumerate(one)}
    shared = [place for place, start in enumerate(other) if start in known]
    if not shared:
        return 0
    last = shared[-1]
    behind = [*other[last + 1:last + 2], *one[known[other[last]] + 1:known[other[last]] + 2]]
    return min((start.start for start in behind), default=NUMBER_MAX)


def is_in_order(history: Sequence[EpochStart]) -> bool:
    """Epochs grow, and none begins before the one that it follows."""
    pairs = itertools.pairwise(history)
    return all(one.epoch < next_.epoch and one.start <= next_.start for one, next_ in pairs)


def continued(history: Sequence[EpochStart], start: EpochStart) -> History:
    """With a further epoch."""
    return (*history, start)[-EPOCH_COUNT_MAX:]
