"""One delivery of a webhook: a POST to a checked address, and what came of it.

Bound: DEADLINE_S from resolving to the answer's head, ANSWER_BYTES_MAX of it; the answer's body is not read. Redirects
are not followed. Fails: never; an Outcome says what was wrong.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import h11

import spokes
from spokes.errors import WebhookAddressError
from spokes.server.webhook_address import Lookup, Target, parse_target, resolve

DEADLINE_S = 5.0
ANSWER_BYTES_MAX = 64 * 1024
_READ_BYTES = 16 * 1024


class Outcome(NamedTuple):
    """`http_status` 0: no answer. Delivered: 2xx and no `error`. Not `retryable`: it would fail the same way again."""

    http_status: int
    error: str
    retryable: bool = True

    @property
    def delivered(self) -> bool:
        return 200 <= self.http_status < 300 and not self.error


async def post(
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    allow_private: bool,
    context: ssl.SSLContext,
    lookup: Lookup,
    deadline_s: float = DEADLINE_S,
) -> Outcome:
    """Sends the body once."""
    try:
        async with asyncio.timeout(deadline_s):
            target = parse_target(url)
            addresses = await resolve(target, allow_private=allow_private, lookup=lookup)
            return await _exchange(target, addresses, headers, body, context)
    except TimeoutError:
        return Outcome(0, f"no answer within {deadline_s:g} s")
    except WebhookAddressError as error:
        return Outcome(0, str(error), error.retryable)
    except ssl.SSLCertVerificationError as error:
        return Outcome(0, f"certificate refused: {error.verify_message}")
    except (OSError, ssl.SSLError) as error:
        return Outcome(0, f"connection failed: {error.strerror or error}")
    except h11.RemoteProtocolError as error:
        return Outcome(0, f"the answer is not HTTP: {error}")


async def _exchange(
    target: Target, addresses: Sequence[str], headers: Sequence[tuple[str, str]], body: bytes, context: ssl.SSLContext
) -> Outcome:
    reader, writer = await _connect(target, addresses, context)
    try:
        conn = h11.Connection(h11.CLIENT)
        fields = [
            ("Host", target.authority),
            ("User-Agent", f"Spokes/{spokes.__version__}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers,
        ]
        writer.write(conn.send(h11.Request(method="POST", target=target.path, headers=fields)) or b"")
        writer.write(conn.send(h11.Data(data=body)) or b"")
        conn.send(h11.EndOfMessage())
        # Not waited for: a target may answer, and close, before it has read everything.
        status = await _read_status(conn, reader)
    finally:
        writer.transport.abort()
    if 300 <= status < 400:
        return Outcome(status, "redirects are not followed")
    return Outcome(status, "" if 200 <= status < 300 else f"answered {status}")


async def _connect(
    target: Target, addresses: Sequence[str], context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError | None = None
    for address in addresses:
        try:
            if target.secure:
                return await asyncio.open_connection(
                    address, target.port, ssl=context, server_hostname=target.host, limit=_READ_BYTES
                )
            return await asyncio.open_connection(address, target.port, limit=_READ_BYTES)
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
    raise failure or OSError("no address")


async def _read_status(conn: h11.Connection, reader: asyncio.StreamReader) -> int:
    received = 0
    while True:
        event = conn.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            data = await reader.read(_READ_BYTES)
            received += len(data)
            if received > ANSWER_BYTES_MAX:
                raise h11.RemoteProtocolError(f"its head is longer than {ANSWER_BYTES_MAX} bytes")
            conn.receive_data(data)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError("the connection ended before an answer")
