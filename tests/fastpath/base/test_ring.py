"""The ring between threads: bounded, in order, nothing lost, and a sleeper is woken."""

from __future__ import annotations

import select
import threading

from spokes._fastpath.hooks.base_hooks import RingHook

from tests.support.threads import join_thread


def is_awake(ring: RingHook) -> bool:
    return bool(select.select([ring.wake_fd], [], [], 0)[0])


def test_ring_full_refuses_and_keeps_what_it_has():
    ring = RingHook(8)
    assert [ring.push(number) for number in range(9)] == [True] * 8 + [False]
    assert [ring.pop() for _ in range(9)] == [*range(8), None]


def test_ring_gone_round_many_times_keeps_the_order():
    ring = RingHook(4)
    for number in range(0, 999, 3):
        assert all(ring.push(number + more) for more in range(3))
        assert [ring.pop() for _ in range(3)] == [number, number + 1, number + 2]
    assert ring.is_empty


def test_ring_is_tight_before_it_is_full():
    ring = RingHook(64)
    while not ring.is_tight:
        assert ring.push(1)
    assert ring.push(1), "who saw room may still push"
    ring.pop()
    ring.pop()
    assert not ring.is_tight


def test_ring_wakes_a_consumer_that_sleeps_and_only_once():
    ring = RingHook(8)
    ring.sleep()
    assert not is_awake(ring)
    ring.push(1)
    assert is_awake(ring)
    ring.clear_wake()
    ring.push(2)
    assert not is_awake(ring), "awake already: a push costs no system call"
    ring.sleep()
    ring.push(3)
    assert is_awake(ring)


def test_ring_of_many_producers_loses_nothing_and_keeps_the_order_of_each():
    ring = RingHook(64)
    producers, numbers = 4, 5000

    def produce(producer: int) -> None:
        for number in range(numbers):
            while not ring.push(producer << 32 | number):
                pass

    threads = [threading.Thread(target=produce, args=(producer,), daemon=True) for producer in range(producers)]
    for thread in threads:
        thread.start()
    seen: list[list[int]] = [[] for _ in range(producers)]
    count = 0
    while count < producers * numbers:
        one = ring.pop()
        if one is not None:
            seen[one >> 32].append(one & 0xFFFFFFFF)
            count += 1
    for thread in threads:
        join_thread(thread)
    assert seen == [list(range(numbers))] * producers
