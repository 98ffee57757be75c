"""From rounds to a report: medians, ratios, targets; as JSON for programs and as Markdown for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness import RowResult
from benchmarks.loads import Metrics
from benchmarks.rows import Target
from benchmarks.scale import Scale

METHOD = (
    "Every peer of a row runs at the same time and is measured in turn, round by round, another one first each round "
    "(rows about memory: one fresh peer at a time). One nginx worker (for bulk: one iperf3) answers for all. "
    "Numbers are medians over the rounds; a ratio divides two medians of the same run."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target; `value` is None where a side of it was not measured."""

    target: Target
    value: float | None

    @property
    def words(self) -> str:
        if self.value is None:
            return "not measured"
        return "reached" if self.target.is_reached(self.value) else "not reached"


def medians(rounds: Sequence[Metrics]) -> Metrics:
    return {metric: statistics.median(one[metric] for one in rounds) for metric in rounds[0]} if rounds else {}


def outcomes(result: RowResult) -> list[Outcome]:
    return [Outcome(target, _value(result, target)) for target in result.row.targets]


def _value(result: RowResult, target: Target) -> float | None:
    own = medians(result.rounds.get(result.row.own, []))
    if target.metric not in own:
        return None
    if not target.peer and not target.own_metric:
        return own[target.metric]
    compared = medians(result.rounds.get(target.peer, [])) if target.peer else own
    other = compared.get(target.metric if target.peer else target.own_metric)
    return own[target.metric] / other if other else None


def before_and_after(result: RowResult) -> dict[str, float]:
    """Each metric divided by the earlier tree's; empty where none was measured."""
    own, earlier = (medians(result.rounds.get(peer, [])) for peer in (result.row.own, result.row.before))
    return {metric: value / earlier[metric] for metric, value in own.items() if earlier.get(metric)}


def to_json(
    results: Sequence[RowResult], *, label: str, when: str, scale: Scale, machine: dict[str, str],
    versions: dict[str, str],
) -> dict[str, Any]:
    return {
        "label": label, "when": when, "method": METHOD, "scale": asdict(scale), "machine": machine,
        "versions": versions,
        "rows": [
            {
                "name": result.row.name, "title": result.row.title,
                "medians": {peer: medians(rounds) for peer, rounds in result.rounds.items()},
                "rounds": result.rounds,
                "targets": [
                    {"target": outcome.target.words(), "value": outcome.value, "outcome": outcome.words}
                    for outcome in outcomes(result)
                ],
                "before_and_after": before_and_after(result),
                "skipped": result.skipped, "failed": result.failed,
            }
            for result in results
        ],
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The same facts as a page; `report` as to_json made it."""
    lines = [f"# Benchmark {report['label']}, {report['when']}", "", report["method"], "", "## To reach", ""]
    targets = [(row["name"], target) for row in report["rows"] for target in row["targets"]]
    lines += _table(
        ("row", "target", "measured", "outcome"),
        [(name, target["target"], _number(target["value"]), target["outcome"]) for name, target in targets],
    )
    ratios = [
        (row["name"], metric, _number(ratio))
        for row in report["rows"] for metric, ratio in row["before_and_after"].items()
    ]
    if ratios:
        lines += ["", "## Divided by the earlier tree's", "", *_table(("row", "metric", "ratio"), ratios)]
    lines += ["", "## Medians", ""]
    for row in report["rows"]:
        lines += _row_section(row)
    lines += ["## Machine and versions", ""]
    lines += _table(("fact", "value"), [*report["machine"].items(), *report["versions"].items()])
    lines += ["", "Scale: " + ", ".join(f"{name} {value:g}" for name, value in report["scale"].items()) + ".", ""]
    return "\n".join(lines)


def _row_section(row: dict[str, Any]) -> list[str]:
    lines = [f"### {row['title']} (`{row['name']}`)", ""]
    metrics = list(dict.fromkeys(metric for values in row["medians"].values() for metric in values))
    if row["medians"]:
        lines += _table(
            ("peer", *metrics, "rounds"),
            [
                (peer, *(_number(values.get(metric)) for metric in metrics), str(len(row["rounds"][peer])))
                for peer, values in row["medians"].items()
            ],
        )
        lines.append("")
    for word in ("skipped", "failed"):
        lines += [f"- {peer if peer != '*' else 'whole row'} {word}: {reason}" for peer, reason in row[word].items()]
    return [*lines, ""] if row["skipped"] or row["failed"] else lines


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *map(line, rows)]
