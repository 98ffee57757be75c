"""Runs rows: the peers of a row side by side, measured in turn, round by round.

A peer that cannot start is skipped, one that fails in a round has failed; either goes into the report by name with
its reason, and the run goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.loads import Metrics
from benchmarks.peers import PEERS, RunningPeer, before
from benchmarks.processes import BenchmarkError, MissingError, Room
from benchmarks.rows import Row
from benchmarks.scale import Scale
from benchmarks.upstream import start_upstream

Progress = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(slots=True)
class RowResult:
    row: Row
    rounds: dict[str, list[Metrics]] = field(default_factory=dict)     # by peer, in the order they were measured
    skipped: dict[str, str] = field(default_factory=dict)              # peer or "*" → reason
    failed: dict[str, str] = field(default_factory=dict)


def run_rows(
    rows: Sequence[Row], scale: Scale, *, peers: Sequence[str] = (), tree_before: Path | None = None,
    progress: Progress | None = None,
) -> list[RowResult]:
    """With `tree_before`, each row's own peer is measured beside the one of that tree."""
    say = progress or _say
    results = []
    for row in rows:
        result = RowResult(row)
        results.append(result)
        starts = {name: PEERS[name] for name in row.peers if not peers or name in peers}
        if tree_before is not None:
            starts[row.before] = before.of_tree(row.own, PEERS[row.own], tree_before)
        say(f"{row.name}: {', '.join(starts) or 'no peer'}")
        try:
            (_run_fresh if row.fresh else _run_side_by_side)(result, starts, scale, say)
        except MissingError as error:           # what every peer needs: upstream or load tool
            result.skipped["*"] = str(error)
            say(f"  skipped: {error}")
    return results


def _run_side_by_side(result: RowResult, starts: Mapping[str, before.Start], scale: Scale, say: Progress) -> None:
    with Room() as room:
        upstream = start_upstream(room)
        running: list[RunningPeer] = []
        for name, start in starts.items():
            with _noting(result, name, say):
                running.append(start(room, upstream))
        if not room.prefix:
            upstream.wait_until_idle()
        if scale.warmup_s:
            for peer in running:
                with _noting(result, peer.name, say):
                    result.row.load(peer, _shortened(scale))
        for index in range(_round_count(result.row, scale)):
            for peer in rotated(running, index):
                if peer.name not in result.failed:
                    _measure(result, peer, scale, say)


def _run_fresh(result: RowResult, starts: Mapping[str, before.Start], scale: Scale, say: Progress) -> None:
    for index in range(_round_count(result.row, scale)):
        for name in rotated(list(starts), index):
            if name in result.skipped or name in result.failed:
                continue
            with Room() as room:
                upstream = start_upstream(room)
                with _noting(result, name, say):
                    _measure(result, starts[name](room, upstream), scale, say)


def _measure(result: RowResult, peer: RunningPeer, scale: Scale, say: Progress) -> None:
    with _noting(result, peer.name, say):
        metrics = result.row.load(peer, scale)
        result.rounds.setdefault(peer.name, []).append(metrics)
        say(f"  {peer.name}: " + ", ".join(f"{metric} {value:,.4g}" for metric, value in metrics.items()))


@contextlib.contextmanager
def _noting(result: RowResult, name: str, say: Progress) -> Iterator[None]:
    try:
        yield
    except MissingError as error:
        result.skipped[name] = str(error)
        say(f"  {name} skipped: {error}")
    except BenchmarkError as error:
        result.failed[name] = str(error)
        say(f"  {name} failed: {error}")


def rotated(items: Sequence[Item], index: int) -> list[Item]:
    """Another one goes first each round, so that no peer always follows the same neighbour's heat."""
    first = index % len(items) if items else 0
    return [*items[first:], *items[:first]]


def _round_count(row: Row, scale: Scale) -> int:
    return min(scale.rounds, row.round_count_max)


def _shortened(scale: Scale) -> Scale:
    return dataclasses.replace(scale, duration_s=scale.warmup_s)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
