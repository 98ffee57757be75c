"""Who may read a body while others come slowly."""

from __future__ import annotations

import contextlib
import threading

import pytest

from spokes.admin.body_slots import BodySlots
from spokes.errors import AdmissionRefusedError
from tests.support.eventually import eventually
from tests.support.threads import join_thread


def held(stack: contextlib.ExitStack, places: BodySlots, source: str, *, signed_in: bool = False) -> bool:
    try:
        stack.enter_context(places.place(source, signed_in=signed_in))
    except AdmissionRefusedError:
        return False
    return True


def test_one_source_leaves_places_for_others():
    places = BodySlots(8)
    with contextlib.ExitStack() as stack:
        assert [held(stack, places, "a") for _ in range(3)] == [True, True, False]
        assert held(stack, places, "b")
        assert not held(stack, places, "c")
        assert [held(stack, places, "k", signed_in=True) for _ in range(3)] == [True, True, False]
        assert [held(stack, places, "l", signed_in=True) for _ in range(3)] == [True, True, False]
        assert not held(stack, places, "m", signed_in=True)
    with contextlib.ExitStack() as stack:
        assert held(stack, places, "a")


@pytest.mark.parametrize("thread_count", range(1, 65))
def test_a_thread_is_always_free(thread_count):
    places = BodySlots(thread_count)
    taken = places.signed_in.count_max + places.strangers.count_max
    assert taken < thread_count or thread_count <= 2
    assert places.strangers.count_per_source_max >= 1


def test_place_is_given_back_when_reading_fails():
    places = BodySlots(1)
    for _ in range(3):
        with pytest.raises(OSError, match="cut"), places.place("a", signed_in=False):
            raise OSError("cut")


async def test_one_waits_for_a_place_and_the_next_is_refused_at_once(monkeypatch):
    """Each that waits holds a thread."""
    monkeypatch.setattr("spokes.admin.slots.PATIENCE_S", 3600.0)
    places = BodySlots(2)
    left = threading.Event()

    def wait() -> None:
        with places.place("a", signed_in=True):
            left.set()

    with places.place("a", signed_in=True):
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        await eventually(lambda: places.signed_in.is_waiting)
        with pytest.raises(AdmissionRefusedError), places.place("a", signed_in=True):
            pass
    join_thread(waiting)
    assert left.is_set()


def test_large_bodies_of_many_are_held_within_one_bound(monkeypatch):
    monkeypatch.setattr("spokes.admin.body_slots.LARGE_PATIENCE_S", 0.01)
    places = BodySlots(8)
    body = 4 * 1024 * 1024
    with contextlib.ExitStack() as stack:
        stack.enter_context(places.room("a", body))
        with pytest.raises(AdmissionRefusedError):
            stack.enter_context(places.room("a", body))
        stack.enter_context(places.room("b", body // 2))
        with pytest.raises(AdmissionRefusedError):
            stack.enter_context(places.room("c", body))
        stack.enter_context(places.room("c", body // 8))
        for _ in range(100):             # what is small needs none
            stack.enter_context(places.room("a", 1000))
    with places.room("a", body):
        pass
