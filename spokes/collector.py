"""Python's cyclic garbage collector in a process that runs for long.

What a program has made by the time it serves stays: modules, tables, routes. Each full collection would walk all of it
again, for tens of milliseconds on one of a small host's cores, beside the workers of the engine. And a mutation, or a
long list, makes thousands of objects that are gone at once: by the defaults (700, 10, 10) a third of the main thread's
time went into looking at them.
"""

from __future__ import annotations

import gc

GC_THRESHOLDS = (20_000, 20, 20)         # objects made since, before the young, the middle, all are looked at


def settle() -> None:
    """Call once, when everything that stays has been made."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
