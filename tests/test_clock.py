import time

import pytest

from spokes import clock


def test_wall_unreplaced_is_unix_time():
    before = time.time()
    assert before <= clock.wall_s() <= time.time()


def test_replaced_block_over_returns_to_the_machine_s_clock():
    with clock.replaced(clock.ManualClock(wall_s=5.0, monotonic_s=7.0)):
        assert (clock.wall_s(), clock.monotonic_s()) == (5.0, 7.0)
    assert clock.wall_s() > 1_700_000_000


def test_manual_clock_advance_moves_both():
    manual = clock.ManualClock(wall_s=5.0, monotonic_s=7.0)
    manual.advance(2.5)
    assert (manual.wall_s(), manual.monotonic_s()) == (7.5, 9.5)


def test_manual_clock_wall_set_back_leaves_monotonic():
    manual = clock.ManualClock(wall_s=100.0, monotonic_s=7.0)
    manual.set_wall(1.0)
    assert (manual.wall_s(), manual.monotonic_s()) == (1.0, 7.0)


def test_manual_clock_advance_backwards_refused():
    with pytest.raises(ValueError, match="backwards"):
        clock.ManualClock().advance(-1)
