"""Shares: lent while unused, and something left for who comes new, whatever the others hold."""

import pytest

from spokes.shares import Shares, fair_share


def take_all(shares, owner):
    taken = 0
    while shares.may(owner):
        shares.take(owner)
        taken += 1
    return taken


def test_one_owner_gets_all_but_the_reserve():
    assert take_all(Shares(32), "greedy") == 24


@pytest.mark.parametrize("greedy_count", [1, 2, 3, 4])
def test_who_comes_new_finds_something(greedy_count):
    shares = Shares(32)
    for number in range(greedy_count):
        take_all(shares, f"greedy {number}")
    assert shares.used <= 32
    assert shares.may("new")


def test_what_was_lent_is_taken_back_as_it_ends():
    shares = Shares(32)
    take_all(shares, "greedy")
    take_all(shares, "late")
    for _ in range(100):                 # both ask at once for what comes back
        shares.give_back(max(shares.owners(), key=shares.held))
        take_all(shares, "late")
        take_all(shares, "greedy")
    assert min(shares.held("late"), shares.held("greedy")) >= 32 // 3


@pytest.mark.parametrize(
    ("held", "share"),
    [([], 100), ([100], 100), ([101], 100), ([10, 200], 90), ([10, 60, 60], 45), ([10, 30, 60], 100), ([9, 9, 9], 3)],
)
def test_fair_share_small_ones_keep_all_and_large_ones_the_rest(held, share):
    assert fair_share(held, 9 if held == [9, 9, 9] else 100) == share


def test_amount_larger_than_a_share_passes_alone():
    shares = Shares(100)
    assert shares.may("one", 90)
    shares.take("one", 90)
    assert not shares.may("one", 1)
    assert shares.may("other", 10)
    assert not shares.may("other", 11)
    shares.give_back("one", 90)
    assert (shares.used, shares.owners()) == (0, [])
