"""Results of operations of other nodes: found by name, bounded in number, bytes and age."""

import pytest

from spokes import clock
from spokes.store import operation_results
from spokes.store.operation_results import RESULT_LIFETIME_S, StoredResult


def put(store, name, result=b"\x00\xff", seq=7):
    with store.changes.transaction() as tx:
        store.operation_results.put(tx, name, StoredResult("d", 1, seq, result))


def find(store, name):
    with store.changes.transaction() as tx:
        return store.operation_results.find(tx, name)


def test_result_is_found_as_it_was_put(store):
    put(store, "a")
    assert find(store, "a") == StoredResult("d", 1, 7, b"\x00\xff")
    assert find(store, "b") is None
    assert store.changes.position() == (1, 0)    # it is in no change log


def test_result_is_gone_with_a_transaction_that_fails(store):
    with pytest.raises(LookupError), store.changes.transaction() as tx:
        store.operation_results.put(tx, "a", StoredResult("d", 1, 7, b"x"))
        raise LookupError
    assert find(store, "a") is None


def test_old_results_go(store, monkeypatch):
    now = clock.wall_s()
    monkeypatch.setattr(clock, "wall_s", lambda: now)
    put(store, "a")
    monkeypatch.setattr(clock, "wall_s", lambda: now + RESULT_LIFETIME_S + 1)
    put(store, "b")
    assert find(store, "a") is None and find(store, "b") is not None


@pytest.mark.parametrize(("bound", "value"), [("RESULT_COUNT_MAX", 2), ("RESULTS_BYTES_MAX", 20)])
def test_oldest_results_make_room_but_never_the_new_one(store, monkeypatch, bound, value):
    monkeypatch.setattr(operation_results, bound, value)
    now = clock.wall_s()
    for number, name in enumerate("cba"):
        monkeypatch.setattr(clock, "wall_s", lambda number=number: now + number)
        put(store, name, b"12345")       # eight bytes as text
    assert [find(store, name) is not None for name in "cba"] == [False, True, True]
    put(store, "d", b"x" * 100)
    assert find(store, "d") is not None
