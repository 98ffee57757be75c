"""What h11 says about a message: the second opinion our own parser is held against."""

from __future__ import annotations

from dataclasses import dataclass

import h11


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message as h11 read it: what came out, and how many bytes it took."""

    data: bytes
    taken_bytes: int
    is_complete: bool


def _read_body(conn: h11.Connection, total_bytes: int, ends_at_close: bool) -> Message:
    data = b""
    if ends_at_close:
        conn.receive_data(b"")
    while True:
        event = conn.next_event()
        if isinstance(event, h11.Data):
            data += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return Message(data, total_bytes - len(conn.trailing_data[0]), True)
        else:
            return Message(data, total_bytes - len(conn.trailing_data[0]), False)


def read_request(raw: bytes) -> Message | None:
    """The request at the start of raw, or None where h11 refuses it."""
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        conn.receive_data(raw)
        if not isinstance(conn.next_event(), h11.Request):
            return None
        return _read_body(conn, len(raw), ends_at_close=False)
    except h11.RemoteProtocolError:
        return None


def refusal(raw: bytes) -> int:
    """The status with which h11 would refuse the request; 0 where it takes it."""
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    conn.receive_data(raw)
    try:
        conn.next_event()
    except h11.RemoteProtocolError as error:
        return error.error_status_hint
    return 0


def read_response(raw: bytes, request_method: bytes = b"GET", *, ends_at_close: bool = False) -> Message | None:
    """The response (behind interim ones) at the start of raw, or None where h11 refuses it."""
    conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    conn.send(h11.Request(method=request_method, target=b"/", headers=[(b"Host", b"a.example")]))
    conn.send(h11.EndOfMessage())
    try:
        conn.receive_data(raw)
        event = conn.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = conn.next_event()
        if not isinstance(event, h11.Response):
            return None
        return _read_body(conn, len(raw), ends_at_close)
    except h11.RemoteProtocolError:
        return None
