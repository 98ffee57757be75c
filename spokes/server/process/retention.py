"""Retention: rows that are older than they are kept for, or more than are kept, are removed once an hour."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from spokes import clock
from spokes.errors import SpokesError
from spokes.server.base.storethread import StoreThread
from spokes.server.usage.access_records import AccessRecordWriter
from spokes.store.tombstones import TOMBSTONE_KEPT_S

log = logging.getLogger(__name__)

INTERVAL_S = 3600.0
DAY_S = 86_400.0
ALERTS_KEPT_S = 90 * DAY_S
DELIVERIES_KEPT_S = 30 * DAY_S
DELIVERY_COUNT_MAX = 100_000
CHANGES_KEPT_S = 900.0                   # and CHANGE_COUNT_MIN of them: what a follower may have missed
CHANGE_COUNT_MIN = 100_000
EVENTS_KEPT_S = 400 * DAY_S
EVENT_COUNT_MAX = 1_000_000  # refused logins leave events too, so age alone is no bound


async def apply_retention(store: StoreThread, records: AccessRecordWriter) -> None:
    """For as long as the server runs."""
    while True:
        await clean(store, records)
        await asyncio.sleep(INTERVAL_S)


async def clean(store: StoreThread, records: AccessRecordWriter) -> None:
    """Each by itself, and slice by slice: whoever needs the store's thread, or wants to write, comes in between."""
    one, now = store.store, clock.wall_s()
    purges: dict[str, Callable[[], int]] = {
        "traffic": lambda: one.traffic.purge(now),
        "alerts": lambda: one.alerts.purge(now - ALERTS_KEPT_S),
        "deliveries": lambda: one.deliveries.purge(now - DELIVERIES_KEPT_S, DELIVERY_COUNT_MAX),
        "changes": lambda: one.changes.purge(now - CHANGES_KEPT_S, CHANGE_COUNT_MIN),
        "tombstones": lambda: one.changes.purge_tombstones(now - TOMBSTONE_KEPT_S),
        "events": lambda: one.audit.purge(now - EVENTS_KEPT_S, EVENT_COUNT_MAX),
        "logins": one.logins.purge,
        "visits": lambda: one.access_records.purge(now - records.kept_s, records.row_count_max),
    }
    for what, purge in purges.items():
        try:
            await store.run_in_slices(purge)
        except SpokesError as error:
            log.warning("old rows not removed", extra={"what": what, "code": error.code, "detail": str(error)})
        except Exception:
            log.exception("old rows not removed", extra={"what": what})
