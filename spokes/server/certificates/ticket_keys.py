"""Keys of TLS session tickets: they rotate, and outlive a restart, so that whoever comes back resumes its session.

Owns: `tickets.json` in the data directory, readable by its owner alone. Bound: TICKET_KEY_COUNT keys; the newest seals,
the others open what they have sealed, for as long as a session lives (a day).
Fails: never; a file that cannot be read is made anew, and one that cannot be written costs resumption over a restart.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from spokes import clock
from spokes._fastpath.engine import Engine
from spokes.file_edit import write_file

FILE_NAME = "tickets.json"
TICKET_KEY_COUNT = 3
TICKET_KEY_BYTES = 80
ROTATION_S = 12 * 3600.0
FILE_BYTES_MAX = 4096

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TicketKey:
    """Random bytes, and when they were made (Unix seconds)."""

    made_at: float
    value: bytes


def rotated(keys: list[TicketKey], now: float) -> list[TicketKey]:
    """Newest first; one more where the newest is due, or from a clock that was ahead."""
    if keys and 0 <= now - keys[0].made_at < ROTATION_S:
        return keys
    return [TicketKey(now, os.urandom(TICKET_KEY_BYTES)), *keys][:TICKET_KEY_COUNT]


def read_keys(path: Path) -> list[TicketKey]:
    """[]: there are none, or none that can be used."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        keys = [TicketKey(float(one["made_at"]), base64.b64decode(one["value"])) for one in json.loads(text)["keys"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("ticket keys not read", extra={"path": str(path), "detail": type(error).__name__})
        return []
    if any(len(key.value) != TICKET_KEY_BYTES for key in keys):
        log.warning("ticket keys not read", extra={"path": str(path), "detail": "a key of another length"})
        return []
    return keys[:TICKET_KEY_COUNT]


class TicketKeys:
    """check() is called periodically."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._path = directory / FILE_NAME
        self._keys: list[TicketKey] = []

    async def check(self) -> None:
        if not self._keys:
            self._keys = await asyncio.to_thread(read_keys, self._path)
            self._hand()
        keys = rotated(self._keys, clock.wall_s())
        if keys is not self._keys:
            self._keys = keys
            self._hand()
            await asyncio.to_thread(self._write)

    def _hand(self) -> None:
        if self._keys:
            self._engine.set_ticket_keys([key.value for key in self._keys])

    def _write(self) -> None:
        told = [{"made_at": key.made_at, "value": base64.b64encode(key.value).decode()} for key in self._keys]
        try:
            write_file(self._path, json.dumps({"keys": told}).encode())
        except OSError as error:
            log.warning("ticket keys not kept", extra={"path": str(self._path), "detail": error.strerror})
