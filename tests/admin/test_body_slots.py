"""Who may read a body while others come slowly."""

from __future__ import annotations

import contextlib
import threading

import pytest

from spokes.admin.body_slots import BodySlots
from spokes.errors import AdmissionRefusedError
from tests.support.eventually import eventually
from tests.support.threads import join_thread


def held(stack: contextlib.ExitStack, slots: BodySlots, source: str, *, signed_in: bool = False) -> bool:
    try:
        stack.enter_context(slots.slot(source, signed_in=signed_in))
    except AdmissionRefusedError:
        return False
    return True


def test_one_source_leaves_slots_for_others():
    slots = BodySlots(8)
    with contextlib.ExitStack() as stack:
        assert [held(stack, slots, "a") for _ in range(3)] == [True, True, False]
        assert held(stack, slots, "b")
        assert not held(stack, slots, "c")
        assert [held(stack, slots, "k", signed_in=True) for _ in range(3)] == [True, True, False]
        assert [held(stack, slots, "l", signed_in=True) for _ in range(3)] == [True, True, False]
        assert not held(stack, slots, "m", signed_in=True)
    with contextlib.ExitStack() as stack:
        assert held(stack, slots, "a")


@pytest.mark.parametrize("thread_count", range(1, 65))
def test_a_thread_is_always_free(thread_count):
    slots = BodySlots(thread_count)
    taken = slots.signed_in.count_max + slots.unauthenticated.count_max
    assert taken < thread_count or thread_count <= 2
    assert slots.unauthenticated.count_per_source_max >= 1


def test_place_is_given_back_when_reading_fails():
    slots = BodySlots(1)
    for _ in range(3):
        with pytest.raises(OSError, match="cut"), slots.slot("a", signed_in=False):
            raise OSError("cut")


async def test_one_waits_for_a_place_and_the_next_is_refused_at_once(monkeypatch):
    """Each that waits holds a thread."""
    monkeypatch.setattr("spokes.admin.slots.PATIENCE_S", 3600.0)
    slots = BodySlots(2)
    left = threading.Event()

    def wait() -> None:
        with slots.slot("a", signed_in=True):
            left.set()

    with slots.slot("a", signed_in=True):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        await eventually(lambda: slots.signed_in.is_waiting)
        with pytest.raises(AdmissionRefusedError), slots.slot("a", signed_in=True):
            pass
    join_thread(waiting)
    assert left.is_set()


def test_large_bodies_of_many_are_held_within_one_bound(monkeypatch):
    monkeypatch.setattr("spokes.admin.body_slots.LARGE_PATIENCE_S", 0.01)
    slots = BodySlots(8)
    body = 4 * 1024 * 1024
    with contextlib.ExitStack() as stack:
        stack.enter_context(slots.room("a", body))
        with pytest.raises(AdmissionRefusedError):
            stack.enter_context(slots.room("a", body))
        stack.enter_context(slots.room("b", body // 2))
        with pytest.raises(AdmissionRefusedError):
            stack.enter_context(slots.room("c", body))
        stack.enter_context(slots.room("c", body // 8))
        for _ in range(100):             # what is small needs none
            stack.enter_context(slots.room("a", 1000))
    with slots.room("a", body):
        pass
