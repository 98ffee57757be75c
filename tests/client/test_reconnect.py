import pytest

from spokes.client.reconnect import CAP_S, NOBODY_CEILING_S, RETRY_AFTER_MAX_S, Backoff, in_turn


def test_backoff_ceilings_double_up_to_the_cap():
    ceilings = []
    backoff = Backoff(uniform=lambda low, high: ceilings.append((low, high)) or high)
    for _ in range(40):
        backoff.next_wait_s()
    assert ceilings[:4] == [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (0.0, 8.0)]
    assert ceilings[-1] == (0.0, CAP_S)
    backoff.reset()
    backoff.next_wait_s()
    assert ceilings[-1] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("away_s", "ceiling_s"), [(0, NOBODY_CEILING_S), (600, NOBODY_CEILING_S), (4000, 10), (1e6, CAP_S)]
)
def test_backoff_nobody_there_ceiling_is_a_share_of_the_outage(away_s, ceiling_s):
    backoff = Backoff(uniform=lambda _low, high: high)
    for _ in range(20):
        assert backoff.next_wait_s(nobody_since_s=away_s) == ceiling_s
    assert backoff.next_wait_s() == 1.0  # they are no failures of a server


def test_backoff_real_jitter_fills_the_interval():
    waits = [Backoff(base_s=8.0).next_wait_s() for _ in range(500)]
    assert min(waits) < 1.0 < 7.0 < max(waits) <= 8.0


@pytest.mark.parametrize(("asked_s", "least_s"), [(30.0, 30.0), (-5.0, 0.0), (1e9, RETRY_AFTER_MAX_S)])
def test_backoff_asked_wait_is_kept_within_reason(asked_s, least_s):
    wait_s = Backoff().next_wait_s(asked_s)
    assert least_s <= wait_s <= least_s + 1.0


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ([], []),
        (["::1", "::2", "1.1.1.1"], ["::1", "1.1.1.1", "::2"]),
        (["1.1.1.1", "::1", "::2"], ["1.1.1.1", "::1", "::2"]),
        (["1.1.1.1", "2.2.2.2"], ["1.1.1.1", "2.2.2.2"]),
    ],
)
def test_in_turn_families_alternate(found, tried):
    assert in_turn(found) == tried
