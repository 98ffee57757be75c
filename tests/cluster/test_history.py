import random

import pytest

from spokes.cluster.history import EPOCH_COUNT_MAX, EpochStart, common_seq, continued, is_in_order
from spokes.cluster.position import NUMBER_MAX

A, B, C = "a" * 32, "b" * 32, "c" * 32
FIRST = EpochStart(1, A, 0)


@pytest.mark.parametrize(("one", "other", "expected"), [
    ([FIRST], [FIRST], NUMBER_MAX),
    ([FIRST], [FIRST, EpochStart(2, B, 100)], 100),
    ([FIRST, EpochStart(2, A, 90)], [FIRST, EpochStart(2, B, 100)], 90),
    ([FIRST, EpochStart(2, B, 80)], [FIRST, EpochStart(3, C, 105)], 80),
    ([FIRST], [EpochStart(1, B, 0)], 0),
    ([], [FIRST], 0),
    ([EpochStart(5, A, 70), EpochStart(6, B, 80)], [EpochStart(6, B, 80)], NUMBER_MAX),      # one was cut
    ([FIRST, EpochStart(2, B, 100)], [EpochStart(2, B, 100), EpochStart(3, A, 120)], 120),
])
def test_common_seq(one, other, expected):
    assert common_seq(one, other) == expected
    assert common_seq(other, one) == expected


@pytest.mark.parametrize("seed", range(50))
def test_common_seq_is_where_logs_of_random_promotions_part(seed):
    """Logs are grown as nodes do: one goes on from a copy of another's first part."""
    rng = random.Random(seed)
    logs = [([("1", seq) for seq in range(1, 11)], [FIRST])]
    for number in range(2, 7):
        log, history = rng.choice(logs)
        start = rng.randint(0, len(log))
        if start < history[-1].start:
            continue
        owner = rng.choice([A, B, C])
        if any(one == EpochStart(number, owner, start) for _, known in logs for one in known):
            continue
        grown = log[:start] + [(f"{number}{owner}{start}", seq) for seq in range(start + 1, start + 11)]
        logs.append((grown, [*history, EpochStart(number, owner, start)]))
    for log, history in logs:
        for other_log, other_history in logs:
            last = common_seq(history, other_history)
            shared = min(last, len(log), len(other_log))
            assert log[:shared] == other_log[:shared]
            if last < min(len(log), len(other_log)):
                assert log[last] != other_log[last]


def test_history_keeps_the_newest_epochs_only():
    history = (FIRST,)
    for number in range(2, EPOCH_COUNT_MAX + 10):
        history = continued(history, EpochStart(number, B, number))
    assert len(history) == EPOCH_COUNT_MAX
    assert history[-1].number == EPOCH_COUNT_MAX + 9
    assert is_in_order(history)
    assert not is_in_order(history[::-1])
    assert not is_in_order([EpochStart(1, A, 5), EpochStart(2, A, 4)])
