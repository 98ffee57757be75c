"""Tables as CSV (RFC 4180), written as they are read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

CSV = "text/csv"
CHUNK_LINES = 500                        # written together

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield _line(columns)
    for row in rows:
        yield _line(map(_cell, row))


def chunks(lines: Iterable[str]) -> Iterator[bytes]:
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) == CHUNK_LINES:
            yield "".join(waiting).encode()
            waiting.clear()
    yield "".join(waiting).encode()


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cell(text: str) -> str:
    """A name that somebody chose must not become a formula in the reader's spreadsheet."""
    return "'" + text if text.startswith(_FORMULA_SIGNS) else text
