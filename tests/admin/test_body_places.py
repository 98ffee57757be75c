"""Who may read a body while others come slowly."""

from __future__ import annotations

import contextlib

import pytest

from spokes.admin.body_places import BodyPlaces
from spokes.errors import AdmissionRefusedError


def held(stack: contextlib.ExitStack, places: BodyPlaces, source: str, *, signed_in: bool = False) -> bool:
    try:
        stack.enter_context(places.place(source, signed_in=signed_in))
    except AdmissionRefusedError:
        return False
    return True


def test_one_source_leaves_places_for_others():
    places = BodyPlaces(8)
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
    places = BodyPlaces(thread_count)
    taken = places.signed_in.count_max + places.strangers.count_max
    assert taken < thread_count or thread_count <= 2
    assert places.strangers.count_per_source_max >= 1


def test_place_is_given_back_when_reading_fails():
    places = BodyPlaces(1)
    for _ in range(3):
        with pytest.raises(OSError, match="cut"), places.place("a", signed_in=False):
            raise OSError("cut")


def test_large_bodies_of_many_are_held_within_one_bound(monkeypatch):
    monkeypatch.setattr("spokes.admin.body_places.LARGE_PATIENCE_S", 0.01)
    places = BodyPlaces(8)
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
