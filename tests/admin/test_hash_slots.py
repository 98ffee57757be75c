"""Turns at hashing: who is better known first, sources in turn, and nobody waits in more threads than are for it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spokes.admin.hash_slots import HashSlots, Rank
from spokes.errors import AdmissionRefusedError
from tests.support.processes import wait_until


class Crowd:
    """Threads that wait for a turn, in the order they came; `served` is the order in which they got it."""

    def __init__(self, slots: HashSlots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.refused: list[str] = []
        self._pool = ThreadPoolExecutor(16)
        self._gate = threading.Event()
        self._holding = self._pool.submit(self._hold)
        wait_until(lambda: slots._busy, what="somebody to have the turn")

    def _hold(self) -> None:
        with self.slots.slot("holder"):
            self._gate.wait(20)

    def come(self, source: str, rank: Rank = Rank.UNKNOWN) -> None:
        before = self.slots.waiting + len(self.refused)
        self._pool.submit(self._wait, source, rank)
        wait_until(lambda: self.slots.waiting + len(self.refused) > before, what="it to wait or be refused")

    def _wait(self, source: str, rank: Rank) -> None:
        try:
            with self.slots.slot(source, rank):
                self.served.append(source)
        except AdmissionRefusedError:
            self.refused.append(source)

    def let_go(self) -> None:
        self._gate.set()
        self._pool.shutdown()


@pytest.fixture
def crowd():
    crowd = Crowd(HashSlots(3))
    yield crowd
    crowd.let_go()


def test_more_than_may_wait_are_refused_at_once(crowd):
    for source in "abcd":
        crowd.come(source)
    assert crowd.refused == ["d"]
    crowd.let_go()
    assert crowd.served == ["a", "b", "c"]


def test_who_is_better_known_makes_others_leave_and_comes_first(crowd):
    for source in "abc":
        crowd.come(source, Rank.FAILED)
    crowd.come("clean")
    crowd.come("device", Rank.DEVICE)
    assert crowd.refused == ["c", "b"]
    crowd.let_go()
    assert crowd.served == ["device", "clean", "a"]


def test_source_with_many_waiting_makes_room_for_one_with_none(crowd):
    for _ in range(3):
        crowd.come("crowd")
    crowd.come("single")
    assert crowd.refused == ["crowd"]
    crowd.come("crowd")
    assert crowd.refused == ["crowd", "crowd"]


def test_source_that_knocks_once_comes_before_those_that_hammer(crowd):
    for _ in range(2):                   # the second time around the places are taken
        for source in "abc":
            crowd.come(source)
    refused = len(crowd.refused)
    crowd.come("once")
    assert crowd.refused[refused:] == ["c"]


def test_sources_take_turns():
    crowd = Crowd(HashSlots(9))
    for _ in range(3):
        crowd.come("many")
    crowd.come("single")
    crowd.let_go()
    assert crowd.served.index("single") <= 1


def test_who_waits_too_long_is_refused_and_takes_no_turn(monkeypatch):
    monkeypatch.setattr("spokes.admin.hash_slots.QUEUE_TIMEOUT_S", 0.01)
    slots = HashSlots(3)
    with slots.slot("a"), pytest.raises(AdmissionRefusedError), slots.slot("b"):
        pass
    assert slots.waiting == 0
    with slots.slot("c"):
        pass
