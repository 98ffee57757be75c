"""Options for the limits that a rule may set: seconds and bytes within the bounds that both ends hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from spokes.cli.client_options import option
from spokes.config_values import parse_size
from spokes.wire.rules import LIMITS

Command = TypeVar("Command", bound=Callable[..., Any])


class LimitType(click.ParamType[int]):
    """A number of seconds, or a size such as 10M, in the bounds of one member of a rule."""

    def __init__(self, member: str) -> None:
        self.bounds = LIMITS[member]
        self.is_size = self.bounds.unit == "bytes"
        self.name = "size" if self.is_size else "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        try:
            number = parse_size(text) if self.is_size else int(text)
        except ValueError:
            words = "size, such as 10M" if self.is_size else "number of seconds"
            self.fail(f"{text!r} is no {words}", param, ctx)
        if not self.bounds.allows(number):
            self.fail(f"{text} is not {self.bounds}; 0 means the default", param, ctx)
        return number


def site_limits(command: Command) -> Command:
    """Parameters named as the members of a site."""
    for add in (
        option("--response-timeout", type=LimitType("responseTimeout"), default=0, metavar="S",
               help="How long the service may be silent before and within its response. [default: 300]"),
        option("--max-body", type=LimitType("maxBody"), default=0, metavar="SIZE",
               help="Largest body of a request, e.g. 10M. [default: any]"),
        option("--max-header-line", type=LimitType("maxHeaderLine"), default=0, metavar="SIZE",
               help="Longest line of a request's header, address included. [default: 8K]"),
    ):  # fmt: skip
        command = add(command)
    return command


udp_timeout_option = option(
    "--udp-timeout", type=LimitType("udpTimeout"), default=0, metavar="S",
    help="How long a peer of a UDP service may be silent in both directions. [default: 60]",
)  # fmt: skip


def limit_members(**values: int) -> dict[str, int]:
    """Those that say something, as members of the rule's JSON; for `response_timeout` and the like."""
    return {_member(name): value for name, value in values.items() if value}


def _member(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(word.capitalize() for word in more)
