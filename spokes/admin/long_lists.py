"""Whole lists of many tunnels: one is made at a time, because as rows and objects it takes several times its text.

Making them is all computing, so that several at once would be done no sooner; what is sent afterwards is text.
Bound: the rows and objects of one list, for a process.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from spokes.store import Store

LONG_COUNT = 1_000                       # tunnels; fewer are made beside each other

_slot = threading.Lock()


def long_list_slot(store: Store) -> AbstractContextManager[object]:
    """Holds the slot while a whole list is made, up to its text."""
    count, _ = store.tunnels.count_active()
    return _slot if count > LONG_COUNT else nullcontext()
