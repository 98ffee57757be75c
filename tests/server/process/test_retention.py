"""What is too old goes; what is not stays; a table that fails leaves the others to their turn."""

import logging

import pytest

from spokes import clock
from spokes.errors import StoreError
from spokes.server.process import retention
from spokes.store import Principal, Store
from tests.support.stores import due_deliveries, fill, rows_of

CLEANED = {"alert", "delivery", "admin_event", "login", "login_failure", "visit"}
FAR_AHEAD_S = 10_000 * 86_400.0


@pytest.fixture
def later():
    """Today, far ahead: everything is too old."""
    manual = clock.ManualClock()
    manual.advance(clock.wall_s() + FAR_AHEAD_S - manual.wall_s())
    return manual


def counts(server) -> dict[str, int]:
    return {table: len(rows) for table, rows in rows_of(server.config.store_url).items() if table in CLEANED}


async def fill_all(server, store: Store) -> None:
    await server._store.run(fill, store)
    await server._store.run(store.alerts.resolve, "disk", "/")


async def test_clean_leaves_what_is_young(server, store):
    await fill_all(server, store)
    before = counts(server)
    assert min(before.values()) > 0
    await retention.clean(server._store, server.access_records)
    # The visit of fill() is from 1970.
    assert counts(server) == before | {"visit": 0}


async def test_clean_removes_what_is_old(server, store, later):
    await fill_all(server, store)
    pending = len([row for row in await server._store.run(due_deliveries, store, 4e9)])
    with clock.replaced(later):
        await retention.clean(server._store, server.access_records)
    assert counts(server) == dict.fromkeys(CLEANED, 0) | {"delivery": pending}


async def test_clean_holds_events_to_their_number(server, store, monkeypatch):
    monkeypatch.setattr(retention, "EVENT_COUNT_MAX", 3)
    with store.audit.acting(Principal(kind="shell", name="mara")):
        for _ in range(5):
            store.audit.note("login")
    await retention.clean(server._store, server.access_records)
    assert [event.seq for event in store.audit.select()] == [5, 4, 3]
    assert store.audit.verify() is None


async def test_table_that_fails_leaves_the_others_to_their_turn(server, store, later, monkeypatch, caplog):
    await fill_all(server, store)

    def fail(older_than):
        raise StoreError("the disk is full")

    monkeypatch.setattr(store.alerts, "purge", fail)
    with clock.replaced(later), caplog.at_level(logging.WARNING):
        await retention.clean(server._store, server.access_records)
    assert counts(server)["admin_event"] == 0 and counts(server)["alert"] == 1
    record, = [record for record in caplog.records if record.message == "old rows not removed"]
    assert record.what == "alerts"
