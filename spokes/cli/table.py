"""Tables: drawn on a terminal, plain columns with `|` in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spokes.log import escape

LAST_WIDTH_MIN = 20                      # columns that the last one, often prose, may be folded to
_FRAME_WIDTH = 3                         # of each column, and one more


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Values are data: what is not printable is escaped, and no markup is looked for."""
    cells = [[escape(str(value)) for value in row] for row in rows]
    widths = [max(cell_len(row[column]) for row in [list(heads), *cells]) for column in range(len(heads))]
    if not sys.stdout.isatty():
        for row in [list(heads), *cells]:
            padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
            click.echo("| " + " | ".join(padded) + " |")
        return
    console = Console()
    needed = sum(widths[:-1]) + min(widths[-1], LAST_WIDTH_MIN) + _FRAME_WIDTH * len(widths) + 1
    if needed <= console.width:
        _draw(console, heads, cells)
    else:
        _draw_singly(console, heads, cells)


def _draw(console: Console, heads: Sequence[str], cells: list[list[str]]) -> None:
    table = Table()
    for column, head in enumerate(heads):
        table.add_column(head, overflow="fold", no_wrap=column < len(heads) - 1)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _draw_singly(console: Console, heads: Sequence[str], cells: list[list[str]]) -> None:
    """A block for each row, where the terminal is too narrow: ids and names stay whole, to be copied."""
    width = max(map(len, heads))
    for number, row in enumerate(cells):
        if number:
            console.print()
        for head, cell in zip(heads, row, strict=True):
            console.print(Text.assemble((head.ljust(width), "bold"), "  ", cell), soft_wrap=True)


def time_text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tasks_text(tasks: list[dict[str, Any]]) -> str:
    """How many of a program's supervised coroutines run, and what each failed with last."""
    failed = [one for one in tasks if one["failures_total"]]
    words = [f"{sum(one['state'] == 'running' for one in tasks)} of {len(tasks)} running"]
    for one in failed:
        state = "begins again soon" if one["state"] == "waiting" else "runs again"
        words.append(
            f"{one['name']} failed {one['failures_total']} times, last {time_text(one['failed_at'])}"
            f" ({one['last_error']}), {state}"
        )
    return "; ".join(words)
