"""Which tunnels are on-line at which other nodes, as those nodes tell; no I/O and no clock.

Owns: for each node the set it has told, which it alone changes and which goes with it.
Bound: TUNNEL_COUNT_MAX tunnels of one node; what is more is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from spokes.wire.messages import OnlineTunnel, Presence

TUNNEL_COUNT_MAX = 1_000_000


@dataclass(slots=True)
class _NodeSet:
    incarnation: str
    online: dict[str, OnlineTunnel] = field(default_factory=dict)
    arriving: dict[str, OnlineTunnel] | None = None  # of a whole set, of which more is to come


class PresenceTable:
    """Each call that changes something answers the tunnels that it touched."""

    def __init__(self) -> None:
        self._nodes: dict[str, _NodeSet] = {}
        self._where: dict[str, dict[str, OnlineTunnel]] = {}  # tunnel: node: what it told

    def begin(self, node: str, incarnation: str) -> set[str]:
        """The node is there, in this run of it; what an earlier run told is over."""
        known = self._nodes.get(node)
        if known is not None and known.incarnation == incarnation:
            known.arriving = None
            return set()
        touched = self.drop(node)
        self._nodes[node] = _NodeSet(incarnation)
        return touched

    def take(self, node: str, told: Presence) -> set[str]:
        known = self._nodes.get(node)
        if known is None:
            return set()
        if not told.whole:
            return self._put(node, known, told.online) | self._remove(node, known, told.offline)
        if known.arriving is None:
            known.arriving = {}
        known.arriving |= {one.tunnel: one for one in told.online}
        if told.more and len(known.arriving) < TUNNEL_COUNT_MAX:
            return set()
        arrived, known.arriving = known.arriving, None
        gone = known.online.keys() - arrived.keys()
        return self._remove(node, known, gone) | self._put(node, known, arrived.values())

    def drop(self, node: str) -> set[str]:
        """The node is gone."""
        known = self._nodes.pop(node, None)
        return set() if known is None else self._remove(node, known, list(known.online))

    def where(self, tunnel: str) -> dict[str, OnlineTunnel]:
        """By node; empty: at none."""
        return self._where.get(tunnel, {})

    def count(self, node: str) -> int:
        known = self._nodes.get(node)
        return 0 if known is None else len(known.online)

    def tunnels(self) -> Iterable[str]:
        """All that are on-line at some node."""
        return self._where.keys()

    def _put(self, node: str, known: _NodeSet, online: Iterable[OnlineTunnel]) -> set[str]:
        touched = set()
        for one in online:
            before = known.online.get(one.tunnel)
            if before == one or (before is None and len(known.online) >= TUNNEL_COUNT_MAX):
                continue
            known.online[one.tunnel] = one
            self._where.setdefault(one.tunnel, {})[node] = one
            touched.add(one.tunnel)
        return touched

    def _remove(self, node: str, known: _NodeSet, gone: Iterable[str]) -> set[str]:
        touched = set()
        for tunnel in gone:
            if known.online.pop(tunnel, None) is None:
                continue
            touched.add(tunnel)
            where = self._where[tunnel]
            del where[node]
            if not where:
                del self._where[tunnel]
        return touched
