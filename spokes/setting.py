"""The declaration of a setting: one value says everything that files, options, checks and reloads need to know of it.

Source: `ServerConfig` in config.py declares each setting once, as a field; every other place derives from `Setting`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spokes.config_values import parse_switch

_DECLARATION = "setting"  # key of a field's metadata
_UNIT_WORDS = {"s": " seconds", "days": " days"}
_UNIT_METAVARS = {"s": "SECONDS", "days": "DAYS", "bytes": "SIZE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of the server. `name` is its key in the file, `field` the attribute of the configuration.

    `type` is what TOML may hold there (a type, or a union of types), `parse` reads such a value and raises ValueError,
    `allowed` says in words what it takes. `bounds` are those of a number, both included. `reloadable` settings take
    effect at a reload, all others at a start.
    """

    name: str
    field: str
    type: Any
    default: Any
    bounds: tuple[float, float] | None
    unit: str
    parse: Callable[[Any], Any]
    allowed: str
    help: str
    metavar: str
    reloadable: bool

    @property
    def option(self) -> str:
        """`--drain-timeout` of `drain_timeout_s`: a duration goes without its unit."""
        word = self.name.removesuffix("_s") if self.unit == "s" else self.name
        return "--" + word.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable: the option's word, as in SPOKES_DRAIN_TIMEOUT."""
        return "SPOKES_" + self.option.removeprefix("--").upper().replace("-", "_")

    @property
    def is_list(self) -> bool:
        """Whether the option may be given several times."""
        return "list" in str(self.type)

    @property
    def is_switch(self) -> bool:
        """Whether the option alone means true."""
        return bool(self.type == bool | str)

    def of_text(self, text: str) -> Any:
        """What an option or a variable says, in a type that the file could hold; text that is no number stays text,
        for the check to refuse it."""
        try:
            return self.type(text) if self.type in (int, float) else text
        except ValueError:
            return text


def setting(
    default: Any,
    parse: Callable[[Any], Any],
    *,
    help: str,
    allowed: str,
    metavar: str,
    type: Any = str,
    bounds: tuple[float, float] | None = None,
    unit: str = "",
    reloadable: bool = False,
) -> Any:
    """A field of a configuration that is a setting."""
    declaration = {
        "type": type,
        "bounds": bounds,
        "unit": unit,
        "parse": parse,
        "allowed": allowed,
        "help": help,
        "metavar": metavar,
        "reloadable": reloadable,
    }
    return dataclasses.field(default=default, metadata={_DECLARATION: declaration})


def number(
    default: float, low: float, high: float, *, help: str, unit: str = "", zero: str = "", reloadable: bool = False
) -> Any:
    """A number between `low` and `high`, of the type of `default`. `zero` says what 0 means where that is special."""

    def parse(value: float) -> float:
        if not low <= value <= high:
            raise ValueError("out of range")
        return value

    least = 1 if zero and default.__class__ is int else low
    allowed = f"{least} to {high}{_UNIT_WORDS.get(unit, '')}" + (f"; 0 = {zero}" if zero else "")
    metavar = _UNIT_METAVARS.get(unit, "N")
    return setting(
        default, parse, type=default.__class__, bounds=(low, high), unit=unit, allowed=allowed, metavar=metavar,
        help=help, reloadable=reloadable,
    )  # fmt: skip


def switch(default: bool, *, help: str, reloadable: bool = False) -> Any:
    """`true` or `false`."""
    return setting(
        default, parse_switch, type=bool | str, allowed="true or false", metavar="true|false", help=help,
        reloadable=reloadable,
    )  # fmt: skip


def one_of(default: str, words: tuple[str, ...], *, metavar: str, reloadable: bool = False) -> Any:
    """One of a few words."""

    def parse(value: str) -> str:
        if value not in words:
            raise ValueError("unknown word")
        return value

    allowed = f"{', '.join(words[:-1])} or {words[-1]}"
    return setting(default, parse, allowed=allowed, metavar=metavar, help=f"{allowed}.", reloadable=reloadable)


def settings_of(configuration: type) -> dict[str, Setting]:
    """Every setting that a configuration class declares, by name and in the order of the declarations. A size carries
    its own unit in a file: `memory_limit_bytes` is the key `memory_limit`."""
    settings = {}
    for field in dataclasses.fields(configuration):
        declaration = field.metadata[_DECLARATION]
        name = field.name.removesuffix("_bytes") if declaration["unit"] == "bytes" else field.name
        settings[name] = Setting(name=name, field=field.name, default=field.default, **declaration)
    return settings
