"""How many admin events one source may leave: beyond its budget they are counted, and one event a minute says how many.

A flood of wrong keys, or of a tenant's own calls, would otherwise push out what others left. Mutations of
administrators are never counted together: whoever may change everything is to be seen doing it.
Bound: SOURCE_COUNT_MAX sources, COUNTED_MAX that are counted now, and as many that could not be written; beyond that
those that are new are counted as one. What was counted and not yet written goes with its process.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from spokes.ids import ZERO_UID
from spokes.store.rows import Json
from spokes.store.rows_admin import Principal, PrincipalKind

SOURCE_COUNT_MAX = 10_000
COUNTED_MAX = 100
COUNT_INTERVAL_S = 60.0
MANY = Principal(kind="nobody", name="many sources")


class Budget(NamedTuple):
    """So many at once, and so many a minute in the long run."""

    burst: float
    per_minute: float


SIGNING_IN = Budget(60, 10)              # of one person or key from one address
SIGNING_IN_ALL = Budget(300, 30)        # of one person or key
REFUSED = Budget(1, 1)                   # of one address
REFUSED_IN_ALL = Budget(60, 30)
OF_TENANT = Budget(200, 10)              # of one user and action


class _Key(NamedTuple):
    source: str
    action: str


@dataclass(slots=True)
class Counted:
    """An event that stands for many."""

    key: _Key
    principal: Principal
    action: str
    count: int
    first: float

    def detail(self) -> Json:
        return {"count": self.count, "since": int(self.first)}


class EventBudget:
    """For any number of threads; one for each open store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: OrderedDict[_Key, tuple[float, float]] = OrderedDict()     # what is left, and when it was looked at
        self._counted: dict[_Key, Counted] = {}

    def admits(self, principal: Principal, action: str, now: float) -> bool:
        """Whether it is an event of its own; else it is counted."""
        found = _budgets(principal, action)
        if not found:
            return True
        with self._lock:
            if all(self._take(_Key(source, action), budget, now) for source, budget in found):
                return True
            key = _Key(found[0][0], action)
            if key not in self._counted and len(self._counted) >= COUNTED_MAX:
                key, principal = _Key("", action), MANY
            counted = self._counted.setdefault(key, Counted(key, principal, action, 0, now))
            counted.count += 1
            return False

    def has_due(self, now: float) -> bool:
        with self._lock:
            return any(not 0 <= now - one.first < COUNT_INTERVAL_S for one in self._counted.values())

    def due(self, now: float) -> list[Counted]:
        """What was counted for a minute, to be written now; it is forgotten here, unless it is put back."""
        if not self._counted:
            return []
        with self._lock:
            # A clock that was set back makes nothing wait longer.
            keys = [key for key, one in self._counted.items() if not 0 <= now - one.first < COUNT_INTERVAL_S]
            return [self._counted.pop(key) for key in keys]

    def put_back(self, counted: Iterable[Counted]) -> None:
        """They could not be written: the next transaction does it."""
        with self._lock:
            for one in counted:
                newer = self._counted.get(one.key)
                one.count += newer.count if newer is not None else 0
                self._counted[one.key] = one

    def _take(self, key: _Key, budget: Budget, now: float) -> bool:
        left, seen = self._left.pop(key, (budget.burst, now))
        left = min(budget.burst, left + max(0.0, now - seen) * budget.per_minute / 60.0)
        has_some = left >= 1.0
        self._left[key] = (left - 1.0 if has_some else left, now)
        if len(self._left) > SOURCE_COUNT_MAX:
            self._left.popitem(last=False)
        return has_some


def _budgets(principal: Principal, action: str) -> list[tuple[str, Budget]]:
    """The sources that it is taken from, the one that it is counted for first; none: it is not limited."""
    if action == "login.refused":
        return [(f"{principal.uid} {principal.address}", REFUSED), ("", REFUSED_IN_ALL)]
    if action in ("login", "logout"):
        return [(f"{principal.uid} {principal.address}", SIGNING_IN), (principal.uid, SIGNING_IN_ALL)]
    if principal.kind == PrincipalKind.CLIENT:
        return [(principal.uid, OF_TENANT)]
    return [] if principal.tenant_uid == ZERO_UID else [(principal.tenant_uid, OF_TENANT)]
