"""Where a node stands in the cluster's history: an epoch, and the number of changes before that place.

Source: docs/store.md, "Positions".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from spokes.errors import ClusterMessageError

NUMBER_MAX = 2**63 - 1                   # both databases' largest integer

_TEXT = re.compile(r"(0|[1-9][0-9]{0,18}):([0-9a-f]{32}):(0|[1-9][0-9]{0,18})")


class Epoch(NamedTuple):
    """A term in which one node, and only that one, commits changes.

    Of two epochs the one with the higher number is newer. Two nodes that were promoted apart from each other may have
    taken one number; the owner then decides, the same way at every node, so that one of them is deposed.
    """

    number: int
    owner: str                           # UID of the node that may write


class Position(NamedTuple):
    """Ordered by epoch, then by `seq`."""

    epoch: Epoch
    seq: int

    def text(self) -> str:
        """`epoch:owner:seq`, for headers and queries."""
        return f"{self.epoch.number}:{self.epoch.owner}:{self.seq}"


def parse_position(text: str) -> Position:
    """Of what Position.text() made. Fails: ClusterMessageError."""
    found = _TEXT.fullmatch(text)
    if found is None or int(found[1]) > NUMBER_MAX or int(found[3]) > NUMBER_MAX:
        raise ClusterMessageError("not a position: epoch:owner:seq is expected")
    return Position(Epoch(int(found[1]), found[2]), int(found[3]))
