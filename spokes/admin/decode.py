"""Request bodies: from bytes to a struct, as tolerant as the contract asks and no more.

Keys match whatever their case; null is as if left out; null lists are empty, null elements are skipped; UIDs may be in
upper case, or empty for zero. Everything else is strict: no floats or texts for numbers, no numbers for booleans.
Fails: RequestError, naming the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from spokes.errors import RequestError
from spokes.ids import ZERO_UID
from spokes.wire.api_types import UID_FORMAT

S = TypeVar("S", bound=msgspec.Struct)
Fold = Callable[[Any], Any]

VALUE_COUNT_MAX = 100_000

_WHERE = re.compile(r" - at `\$?\.?(.*)`$")
_OBJECT_NEEDED = "the body must be a JSON object"


def decode_body(data: bytes, struct: type[S]) -> S:
    """The struct that one JSON value describes; `null` is an empty object."""
    # Each is an object of up to two hundred bytes once it is decoded, `{},` among them; in texts commas are rare.
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUE_COUNT_MAX:
        raise RequestError(f"the body holds more than {VALUE_COUNT_MAX} values", http_status=413)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("the body is not one JSON value") from None
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise RequestError(_OBJECT_NEEDED)
    return _convert(value, struct)


def decode_query(values: dict[str, str], struct: type[S]) -> S:
    """Query parameters; numbers and booleans are read from their text. Unknown ones are ignored."""
    try:
        return msgspec.convert(_fold_of(struct)(values), struct, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(_words(error)) from None


def decode_uid(text: str) -> str:
    """A UID as it stands in a path."""
    uid = text.lower()
    if re.fullmatch("[0-9a-f]{32}", uid) is None:
        raise RequestError("malformed id: 32 hex digits are needed")
    return uid


def _convert(value: dict[str, Any], struct: type[S]) -> S:
    try:
        return msgspec.convert(_fold_of(struct)(value), struct)
    except msgspec.ValidationError as error:
        raise RequestError(_words(error)) from None


def _words(error: msgspec.ValidationError) -> str:
    """`sites[0].port: expected int, got float`; the text names types and our own limits, never the caller's values."""
    text = str(error)
    where = _WHERE.search(text)
    text = _WHERE.sub("", text).replace("`", "")
    if text.startswith("Invalid enum value"):
        text = "unknown word"
    text = text[:1].lower() + text[1:]
    return f"{where[1]}: {text}" if where and where[1] else text


@cache
def _fold_of(struct: type[msgspec.Struct]) -> Fold:
    return _fold(inspect.type_info(struct))


def _fold(info: inspect.Type) -> Fold:
    """A function that brings a decoded value into the form that msgspec.convert checks."""
    if isinstance(info, inspect.Metadata):
        is_uid = bool(info.extra_json_schema and info.extra_json_schema.get("format") == UID_FORMAT)
        return _fold_uid if is_uid else _fold(info.type)
    if isinstance(info, inspect.StructType):
        return _fold_struct(info)
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        fold_item = _fold(info.item_type)
        return lambda value: (
            [fold_item(item) for item in value if item is not None] if isinstance(value, list) else value
        )
    if isinstance(info, inspect.UnionType):
        folds = [fold for fold in map(_fold, info.types) if fold is not _same]
        return folds[0] if folds else _same
    return _same


def _fold_struct(info: inspect.StructType) -> Fold:
    fields = {
        field.encode_name.lower(): (
            field.encode_name, _fold(field.type), isinstance(field.type, inspect.ListType | inspect.VarTupleType)
        )
        for field in info.fields
    }

    def fold(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        folded = {}
        for key, item in value.items():
            name, fold_item, is_list = fields.get(key.lower(), ("", _same, False))
            if name and item is not None:
                folded[name] = fold_item(item)
            elif name and is_list:
                folded[name] = []
        return folded

    return fold


def _fold_uid(value: Any) -> Any:
    return (value.lower() or ZERO_UID) if isinstance(value, str) else value


def _same(value: Any) -> Any:
    return value
