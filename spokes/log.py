"""Logs: one line an event, fixed text with data beside it, as text or as JSON.

Bound: a value is cut at VALUE_CHARS_MAX. Control characters are escaped, so data cannot forge lines or drive terminals.
Nobody waits for the stream: lines that it does not take are dropped, counted, and the count is a line (outlet.py).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from spokes.outlet import outlet_of

VALUE_CHARS_MAX = 4096
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def escape(text: str) -> str:
    """Control and other unprintable characters as \\x, \\u or \\U escapes; cut at the limit."""
    if len(text) > VALUE_CHARS_MAX:
        text = text[:VALUE_CHARS_MAX] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape_one(c) for c in text)


def _escape_one(char: str) -> str:
    code = ord(char)
    if char == "\n":
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _data_of(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _time_of(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`2026-11-22T10:00:00.000Z INFO tunnel online tunnel_uid=… peer="…"`"""

    def format(self, record: logging.LogRecord) -> str:
        words = [_time_of(record), record.levelname, escape(record.getMessage())]
        words += [f"{key}={_quote(value)}" for key, value in _data_of(record).items()]
        if record.exc_info:
            words.append(f"exception={_quote(self.formatException(record.exc_info))}")
        return " ".join(words)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `time`, `level`, `logger`, `event`, then the data."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": escape(record.getMessage()),
        }
        line |= {key: _plain(value) for key, value in _data_of(record).items() if key not in line}
        if record.exc_info:
            line["exception"] = escape(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return escape(str(value))


def _quote(value: Any) -> str:
    text = escape(str(value))
    if text and not any(c in text for c in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class OutletHandler(logging.Handler):
    """Gives each line to `write`, which returns at once."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def setup_logging(
    log_format: str, level: str, stream: TextIO | None = None, *, write: Callable[[str], object] | None = None
) -> None:
    """Sets the root logger; called again, it replaces what it set before. Lines go to the stream, standard error where
    none is given; or to `write`, which must not block."""
    outlet = outlet_of(stream or sys.stderr)
    formatter = JsonFormatter() if log_format == "json" else TextFormatter()
    outlet.say_dropped = lambda count: formatter.format(_dropped_record(count)) + "\n"
    handler = OutletHandler(write or outlet.write)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a full disk stops logs, not traffic


def _dropped_record(count: int) -> logging.LogRecord:
    data = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "dropped": count}
    return logging.makeLogRecord({"msg": "lines dropped: nobody read the output", **data})
