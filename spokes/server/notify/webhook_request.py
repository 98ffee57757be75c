"""One delivery of a webhook: a POST to a checked address, and what came of it.

Bound: DEADLINE_S from resolving to the answer's head, ANSWER_BYTES_MAX of it; the answer's body is not read. Redirects
are not followed. Fails: never; an Outcome says what was wrong.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import spokes
from spokes.errors import WebhookAddressError
from spokes.http_client import NotHttpError, Peer, Request, exchange
from spokes.server.notify.webhook_address import Lookup, Target, parse_target, resolve

DEADLINE_S = 5.0
ANSWER_BYTES_MAX = 64 * 1024


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
    except NotHttpError as error:
        return Outcome(0, f"the answer is not HTTP: {error}")


async def _exchange(
    target: Target, addresses: Sequence[str], headers: Sequence[tuple[str, str]], body: bytes, context: ssl.SSLContext
) -> Outcome:
    peer = Peer(
        addresses=addresses, port=target.port, tls=context if target.secure else None, server_name=target.host
    )
    fields = [("User-Agent", f"Spokes/{spokes.__version__}"), ("Content-Type", "application/json"), *headers]
    request = Request(method="POST", target=target.path, host=target.authority, headers=fields, body=body)
    async with exchange(peer, request, head_bytes_max=ANSWER_BYTES_MAX) as answer:
        status = answer.status
    if 300 <= status < 400:
        return Outcome(status, "redirects are not followed")
    return Outcome(status, "" if 200 <= status < 300 else f"answered {status}")
