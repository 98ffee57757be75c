"""Parts: a control message as CONTROL frames and back: parts of one frame's size, all but the last with a flag.

Bound: one message holds at most MESSAGE_BYTES_MAX. Fails: ProtocolError. Source: docs/protocol.md, "Control messages".
"""

from __future__ import annotations

from typing import NamedTuple

from spokes.errors import ProtocolError

PART_BYTES_MAX = 65535
MESSAGE_BYTES_MAX = 1024 * 1024
FLAG_MORE = 1


class Part(NamedTuple):
    """Payload and flags of one CONTROL frame."""

    payload: bytes
    flags: int


def split_message(message: bytes) -> list[Part]:
    """The parts of an encoded message, in the order they are sent."""
    if not message:
        raise ProtocolError("an empty control message")
    if len(message) > MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a control message of {len(message)} bytes is longer than {MESSAGE_BYTES_MAX}")
    last = len(message) - 1
    return [
        Part(message[start : start + PART_BYTES_MAX], FLAG_MORE if start + PART_BYTES_MAX <= last else 0)
        for start in range(0, len(message), PART_BYTES_MAX)
    ]


class PartJoiner:
    """Collects the parts of one link until a message is whole."""

    __slots__ = ("_parts", "_size_bytes")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size_bytes = 0

    def feed(self, payload: bytes, flags: int) -> bytes | None:
        """The whole message when this part was its last, else None."""
        if not payload:
            raise ProtocolError("an empty control part")
        self._size_bytes += len(payload)
        if self._size_bytes > MESSAGE_BYTES_MAX:
            raise ProtocolError(f"a control message longer than {MESSAGE_BYTES_MAX} bytes")
        if flags & FLAG_MORE:
            self._parts.append(payload)
            return None
        if not self._parts:
            self._size_bytes = 0
            return payload
        self._parts.append(payload)
        message = b"".join(self._parts)
        self._parts.clear()
        self._size_bytes = 0
        return message
