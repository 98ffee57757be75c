"""The timer wheel: never early, at most a tick late, whatever the distance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spokes._fastpath.hooks.base_hooks import run_wheel

TICK_MS = 64
WHEEL_MS = 512 * TICK_MS
START_MS = 1_000_003


@pytest.mark.parametrize("after_ms", [0, 1, 63, 64, 65, 10_000, WHEEL_MS - 1, WHEEL_MS, WHEEL_MS * 3 + 7])
def test_timer_looked_at_every_tick_fires_once_and_in_time(after_ms):
    due_ms = START_MS + after_ms
    looks = list(range(START_MS, due_ms + 3 * TICK_MS, 16))
    answers = run_wheel(START_MS, [due_ms], looks)
    fired_at = [look_ms for look_ms, ([count], _) in zip(looks, answers, strict=True) if count]
    assert due_ms <= fired_at[0] <= due_ms + 2 * TICK_MS
    assert answers[-1][0] == [1]


@given(
    after_ms=st.lists(st.integers(0, 4 * WHEEL_MS), min_size=1, max_size=20),
    steps_ms=st.lists(st.integers(1, 2 * WHEEL_MS), min_size=1, max_size=20),
)
def test_timers_looked_at_seldom_are_never_early_and_never_lost(after_ms, steps_ms):
    due_ms = [START_MS + one for one in after_ms]
    looks, now_ms = [], START_MS
    for step_ms in steps_ms:
        now_ms += step_ms
        looks.append(now_ms)
    looks += [now_ms + number * WHEEL_MS for number in range(1, 7)]
    for look_ms, (counts, _) in zip(looks, run_wheel(START_MS, due_ms, looks), strict=True):
        for due, count in zip(due_ms, counts, strict=True):
            assert count == 0 or due <= look_ms
            assert count == 1 or due > look_ms - 2 * TICK_MS
    assert counts == [1] * len(due_ms)


def test_timer_cleared_does_not_fire():
    counts, wait_ms = run_wheel(START_MS, [START_MS + 100, START_MS + 100], [START_MS + 1000], cleared=[0])[0]
    assert counts == [0, 1]
    assert wait_ms == -1


def test_timer_set_to_now_while_it_fires_waits_for_the_next_look():
    look_ms = START_MS + 1000
    answers = run_wheel(START_MS, [START_MS], [look_ms, look_ms, look_ms + 2 * TICK_MS], again_ms=look_ms)
    assert [counts[0] for counts, _ in answers[:2]] == [1, 1]
    assert answers[2][0][0] > 1


def test_wheel_wait_reaches_to_the_next_timer_and_no_further():
    (_, wait_ms), = run_wheel(START_MS, [START_MS + 5000, START_MS + 900], [START_MS])
    assert 900 <= wait_ms <= 900 + TICK_MS


def test_wheel_without_timers_waits_for_ever():
    assert run_wheel(START_MS, [], [START_MS]) == [([], -1)]
