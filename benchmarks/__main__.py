"""`python -m benchmarks`: run all rows or some, write a report."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path

from benchmarks.congestion import congestion_default
from benchmarks.harness import run_rows
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.peers import PEERS
from benchmarks.peers.rathole import INSTALLED_PATH
from benchmarks.processes import BenchmarkError, raise_fd_limit
from benchmarks.report import to_json, to_markdown
from benchmarks.rows import ROWS
from benchmarks.scale import FULL, TINY, Scale

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    arguments = _parser().parse_args()
    rows = [row for row in ROWS if not arguments.only or row.name in arguments.only]
    scale = _scale(arguments)
    raise_fd_limit()
    try:
        with congestion_default(arguments.congestion):
            machine = describe_machine()
            results = run_rows(rows, scale, peers=arguments.peers or (), tree_before=arguments.before)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    now = datetime.datetime.now(datetime.UTC)
    report = to_json(
        results, label=arguments.label, when=f"{now:%Y-%m-%d %H:%M} UTC", scale=scale, machine=machine,
        versions=describe_versions({"rathole": INSTALLED_PATH}),
    )
    page = to_markdown(report)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        base = RESULTS / f"{now:%Y-%m-%d}-{arguments.label}"
        base.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        base.with_suffix(".md").write_text(page)
        print(f"written: {base}.json, {base}.md", file=sys.stderr)
    print(page)
    return 1 if any(result.failed for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure this project and its peers in one run.",
        epilog="Example: python -m benchmarks --only http-keepalive --rounds 3 --duration 3",
    )
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="ROW",
                        help="rows to run: " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), metavar="PEER",
                        help="peers to run: " + ", ".join(PEERS))
    parser.add_argument("--before", type=Path, metavar="TREE",
                        help="an earlier tree, built, whose programs are measured beside these in each row")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}")
    parser.add_argument("--duration", type=float, metavar="S",
                        help=f"of each timed load, default {FULL.duration_s:g} s")
    parser.add_argument("--soak", type=float, metavar="S",
                        help=f"how long the small host is watched, default {FULL.soak_s:g} s")
    parser.add_argument("--congestion", default="", metavar="NAME",
                        help="the machine's default during the run, for all peers alike: cubic, bbr (needs root)")
    parser.add_argument("--tiny", action="store_true", help="a crumb of everything, to see that the tools work")
    parser.add_argument("--label", default="run", help="names the result files")
    parser.add_argument("--write", action="store_true", help="write results/<date>-<label>.json and .md")
    return parser


def _scale(arguments: argparse.Namespace) -> Scale:
    scale = TINY if arguments.tiny else FULL
    given = {"rounds": arguments.rounds, "duration_s": arguments.duration, "soak_s": arguments.soak}
    return dataclasses.replace(scale, **{name: value for name, value in given.items() if value is not None})


if __name__ == "__main__":
    sys.exit(main())
