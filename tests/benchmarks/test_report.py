"""Medians, ratios and their page, from rounds whose answer is known."""

from __future__ import annotations

import pytest

from benchmarks.harness import RowResult, rotated
from benchmarks.report import medians, outcomes, to_json, to_markdown
from benchmarks.rows import Row, Target
from benchmarks.scale import TINY


def make_result(*targets: Target, **rounds: list[float]) -> RowResult:
    row = Row(name="row", title="Title", load=lambda peer, scale: {}, peers=tuple(rounds), targets=targets)
    measured = {
        peer: [{"rate_per_s": value, "p99_ms": value / 2} for value in values] for peer, values in rounds.items()
    }
    return RowResult(row, rounds=measured)


def test_medians_odd_rounds_ignore_the_outlier():
    assert medians([{"rate_per_s": 10.0}, {"rate_per_s": 900.0}, {"rate_per_s": 20.0}]) == {"rate_per_s": 20.0}


def test_medians_no_round_is_empty():
    assert medians([]) == {}


@pytest.mark.parametrize(("own", "words"), [(85.0, "reached"), (84.9, "not reached")])
def test_outcome_ratio_at_the_bound_is_reached(own, words):
    target = Target(metric="rate_per_s", at_least=0.85, peer="haproxy")
    [outcome] = outcomes(make_result(target, spokes=[own], haproxy=[90.0, 100.0, 110.0]))
    assert outcome.value == pytest.approx(own / 100)
    assert outcome.words == words


def test_outcome_own_metric_compares_with_itself():
    [outcome] = outcomes(make_result(Target(metric="p99_ms", at_most=0.5, own_metric="rate_per_s"), spokes=[8.0]))
    assert (outcome.value, outcome.words) == (0.5, "reached")


def test_outcome_peer_missing_is_not_measured():
    [outcome] = outcomes(make_result(Target(metric="rate_per_s", at_least=1.0, peer="nginx"), spokes=[8.0]))
    assert (outcome.value, outcome.words) == (None, "not measured")


def test_markdown_skipped_and_failed_peers_are_named_with_their_reason():
    result = make_result(Target(metric="rate_per_s", at_least=2.0, peer="nginx"), spokes=[12345.0], nginx=[5000.0])
    result.skipped["rathole"] = "rathole is not installed"
    result.failed["haproxy"] = "3 of 4 answers were errors"
    page = to_markdown(to_json(
        [result], label="test", when="now", scale=TINY, machine={"cores": "2"}, versions={"wrk": "4.1.0"},
    ))
    assert "| row | rate_per_s ≥ 2 x nginx | 2.47 | reached |" in page
    assert "| spokes | 12,345 | 6,172 | 1 |" in page
    assert "- rathole skipped: rathole is not installed" in page
    assert "- haproxy failed: 3 of 4 answers were errors" in page
    assert "| wrk | 4.1.0 |" in page


@pytest.mark.parametrize(("index", "order"), [(0, "abc"), (1, "bca"), (3, "abc")])
def test_rotated_each_round_another_goes_first(index, order):
    assert rotated("abc", index) == list(order)


def test_rotated_nothing_is_nothing():
    assert rotated([], 4) == []


def test_markdown_tells_each_metric_divided_by_the_earlier_trees():
    result = make_result(**{"spokes": [96.0, 97.0, 98.0], "spokes-before": [99.0, 100.0, 101.0]})
    document = to_json([result], label="test", when="now", scale=TINY, machine={}, versions={})
    assert document["rows"][0]["before_and_after"] == {"rate_per_s": 0.97, "p99_ms": 0.97}
    assert "| row | rate_per_s | 0.97 |" in to_markdown(document)
    alone = to_json([make_result(spokes=[1.0])], label="test", when="now", scale=TINY, machine={}, versions={})
    assert "earlier tree" not in to_markdown(alone)
