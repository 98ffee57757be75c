"""The budget of admin events: floods are counted, what others do stays visible, nothing is lost without a number."""

import pytest

from spokes import clock
from spokes.clock import ManualClock
from spokes.errors import StoreError
from spokes.model.tokens import CreateToken, EditToken
from spokes.store import Principal, audit_chain
from spokes.store.audit_budget import COUNTED_MAX, OF_TENANT, REFUSED_IN_ALL, EventBudget
from tests.support.operations import do

TENANT = "7e" * 16
UNAUTHENTICATED = Principal(kind="nobody", address="192.0.2.1")


@pytest.fixture
def manual():
    with clock.replaced(ManualClock()):
        yield clock._current


def refuse(store, principal=UNAUTHENTICATED):
    with store.audit.acting(principal):
        store.audit.note("login.refused", detail={"agent": "curl"})


def told(store):
    return [(event.action, event.address, (event.after or {}).get("count", 1)) for event in store.audit.select()]


def test_refusals_of_one_address_are_one_event_a_minute(store, manual):
    for _ in range(500):
        refuse(store)
    assert told(store) == [("login.refused", "192.0.2.1", 1)]
    manual.advance(60)
    store.audit.write_counted()
    assert told(store) == [("login.refused", "192.0.2.1", 499), ("login.refused", "192.0.2.1", 1)]
    store.audit.write_counted()
    assert len(store.audit.select()) == 2
    assert store.audit.verify() is None


def test_refusals_that_could_not_be_written_are_still_told(store, manual, monkeypatch):
    """As on a full disk."""
    for _ in range(500):
        refuse(store)
    manual.advance(60)
    append = audit_chain.append

    def full(*_args):
        raise StoreError("disk full")

    monkeypatch.setattr(audit_chain, "append", full)
    with pytest.raises(StoreError):
        store.audit.write_counted()
    monkeypatch.setattr(audit_chain, "append", append)
    store.audit.write_counted()
    assert told(store) == [("login.refused", "192.0.2.1", 499), ("login.refused", "192.0.2.1", 1)]


def test_refusals_that_are_only_counted_write_nothing(store, manual):
    refuse(store)
    before = store.statement_count
    for _ in range(50):
        refuse(store)
    assert store.statement_count == before


def test_refusals_of_many_addresses_are_bounded_together_and_all_counted(store, manual):
    for number in range(1_000):
        refuse(store, Principal(kind="nobody", address=f"2001:db8:{number:x}::1"))
    assert len(store.audit.select(limit=1_000)) == REFUSED_IN_ALL.burst
    manual.advance(60)
    do(store, CreateToken("any write tells them"))
    events = store.audit.select(limit=1_000)
    assert len(events) <= REFUSED_IN_ALL.burst + COUNTED_MAX + 1
    assert sum((event.after or {}).get("count", 1) for event in events) == 1_000


def test_mutations_of_a_tenant_are_bounded_and_those_of_others_are_all_told(store, manual):
    tenant = Principal(kind="person", uid=TENANT, name="tenant", user_uid=TENANT, role="basic")
    other_key = Principal(kind="key", uid="8e" * 16, name="the tenant's key", user_uid=TENANT, role="basic")
    admin = Principal(kind="person", uid="9e" * 16, name="admin")
    count = int(OF_TENANT.burst)
    token = do(store, CreateToken("t"))
    for number in range(count + 20):
        with store.audit.acting(tenant if number % 2 else other_key):
            do(store, EditToken(token.uid, description=f"a {number}", active=True))
        with store.audit.acting(admin):
            do(store, EditToken(token.uid, description=f"b {number}", active=True))
    assert len(store.audit.select(principal_uid=admin.uid, limit=1_000)) == count + 20
    by_tenant = [store.audit.select(principal_uid=uid, limit=1_000) for uid in (TENANT, other_key.uid)]
    assert sum(map(len, by_tenant)) == count
    manual.advance(60)
    store.audit.write_counted()
    assert told(store)[0] == ("token.edit", "", 20)
    assert store.audit.verify() is None


def test_budget_fills_up_again(manual):
    budget = EventBudget()
    assert [budget.admits(UNAUTHENTICATED, "login.refused", now) for now in (0.0, 1.0, 60.0, 61.0)] == [
        True, False, True, False
    ]


def test_counted_sources_are_bounded_and_none_is_lost():
    budget = EventBudget()
    for number in range(3 * COUNTED_MAX):
        for _ in range(2):
            budget.admits(Principal(kind="nobody", address=str(number)), "login.refused", 0.0)
    counted = budget.due(60.0)
    assert len(counted) <= COUNTED_MAX + 1
    assert sum(one.count for one in counted) + REFUSED_IN_ALL.burst == 6 * COUNTED_MAX
