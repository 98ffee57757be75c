"""Statements that peewee writes once and that are run often: from the second time on only their values travel.

Writing a query takes peewee several times as long as it takes SQLite to answer it, so what runs with every call of the
Admin API, every login or every change is kept as text. Bound: a Statement keeps one text for each engine.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import peewee


class Placeholder(NamedTuple):
    """Where a value goes: the number of the parameter."""

    number: int


class Text(NamedTuple):
    """SQL as one engine takes it. `params`: a Placeholder, or a value that is always the same."""

    sql: str
    params: tuple[Any, ...]
    is_plain: bool                       # the values as they are given, each once


class Statement:
    """`FIND = Statement(lambda uid: Model.select(…).where(Model.uid == uid))`, then `FIND("…").execute(db)`.

    Values are handed to the driver as they are: who gives JSON gives its text.
    """

    def __init__(self, build: Callable[..., Any], value_count: int | None = None) -> None:
        """`build` makes the query from peewee nodes, one for each value; `value_count` for one that takes `*nodes`."""
        self._build = build
        self._value_count = len(inspect.signature(build).parameters) if value_count is None else value_count
        self._texts: dict[type[peewee.Database], Text] = {}

    def __call__(self, *values: Any) -> Prepared:
        if len(values) != self._value_count:
            raise TypeError(f"{len(values)} values for a statement of {self._value_count}")
        return Prepared(self, values)

    def text(self, db: peewee.Database) -> Text:
        text = self._texts.get(type(db))
        if text is None:
            placeholders = [
                peewee.Value(Placeholder(number), converter=False, unpack=False) for number in range(self._value_count)
            ]
            sql, params = db.get_sql_context().sql(self._build(*placeholders)).query()  # type: ignore[no-untyped-call]
            text = self._texts[type(db)] = Text(
                sql, tuple(params), list(params) == [Placeholder(number) for number in range(self._value_count)]
            )
        return text


class Prepared(NamedTuple):
    """A Statement with its values."""

    statement: Statement
    values: Sequence[Any]

    def execute(self, db: Any) -> Any:
        """All rows as the driver gives them, or how many rows were written."""
        sql, params, is_plain = self.statement.text(db)
        values = self.values
        if not is_plain:
            values = [values[one.number] if isinstance(one, Placeholder) else one for one in params]
        cursor = db.execute_sql(sql, values)
        return list(cursor.fetchall()) if cursor.description else cursor.rowcount


class EachOf(peewee.Node):
    """What `field.in_()` takes for any number of texts: one parameter, however many they are."""

    def __init__(self, texts: Iterable[str] | peewee.Node) -> None:
        """`texts`, or the node of a Statement's value that will hold them as JSON."""
        self._texts = texts if isinstance(texts, peewee.Node) else peewee.Value(json.dumps(list(texts)))

    def __sql__(self, ctx: Any) -> Any:
        is_sqlite = ctx.state.param == "?"
        before, after = (
            ("(SELECT value FROM json_each(", "))") if is_sqlite
            else ("(SELECT jsonb_array_elements_text(CAST(", " AS jsonb)))")
        )
        with ctx(converter=None):
            return ctx.literal(before).sql(self._texts).literal(after)
