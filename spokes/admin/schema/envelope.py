"""The envelope of every answer: one JSON object with `status`, and `error` where that is false."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

ERROR_CHARS_MAX = 500


class Request(msgspec.Struct, kw_only=True):
    """Base of request bodies. Keys match whatever their case; unknown ones are ignored; null is as if left out."""


class Part(msgspec.Struct, kw_only=True):
    """Base of the objects inside requests and answers."""


class Answer(msgspec.Struct, kw_only=True):
    """Done. `message` is an optional remark."""

    status: Literal[True] = True
    error: Literal[""] = ""
    message: str = ""


class Failure(msgspec.Struct, kw_only=True):
    """Not done, and why; `code` is explained in docs/errors.md."""

    error: Annotated[str, Meta(min_length=1)]
    status: Literal[False] = False
    code: str = ""


def failure(text: str, code: str = "") -> Failure:
    """Callers pass the text through a formatter, so it holds no percent sign; and it is never empty."""
    text = text.replace("%", " percent ").strip()[:ERROR_CHARS_MAX]
    return Failure(error=text or "the request failed", code=code)
