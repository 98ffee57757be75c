"""Errors as plain data: what a refusal is on its way to another node, and the same refusal there.

An error keeps its class, code, message, hint, whether it is worth another try and after how long. A code that this
program does not know becomes a RemoteError that keeps it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from spokes.errors import RemoteError, SpokesError


class ErrorValue(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """An error as JSON has it."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    retry_after_s: float = 0.0           # 0: nothing is said of it


def error_value(error: SpokesError) -> ErrorValue:
    """Returns what may be told of an error: nothing of where things stand at this node."""
    return ErrorValue(
        error.code, error.told, error.hint, error.retryable, float(getattr(error, "retry_after_s", 0.0))
    )


def made_error(value: ErrorValue) -> SpokesError:
    """Returns the error that a value describes."""
    given: dict[str, Any] = {"hint": value.hint, "retry_after_s": value.retry_after_s}
    kind = _classes().get(value.code)
    names = _parameters(kind) if kind is not None else {}
    if kind is None or any(is_needed and name not in given for name, is_needed in names.items()):
        return RemoteError(
            value.message, code=value.code, hint=value.hint, retryable=value.retryable,
            retry_after_s=value.retry_after_s,
        )
    error = kind(value.message, **{name: given[name] for name in names if name in given})
    error.hint, error.retryable = value.hint, value.retryable
    return error


@functools.cache
def _classes() -> Mapping[str, type[SpokesError]]:
    """The class of each code: the first that declares it, not one that narrows it further."""
    found: dict[str, type[SpokesError]] = {}
    kinds = SpokesError.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "code" in vars(kind):
            found.setdefault(kind.code, kind)
    return found


def _parameters(kind: type[SpokesError]) -> dict[str, bool]:
    """The parameters of its constructor but the message, and whether each has to be given."""
    own = list(inspect.signature(kind).parameters.values())
    if not own or own[0].name != "message":
        return {"": True}
    return {one.name: one.default is inspect.Parameter.empty for one in own[1:]}
