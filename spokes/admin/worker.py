"""gunicorn's worker, which puts refusals that come before the app into the API's envelope.

Fails: it cannot; an answer that the peer does not take is dropped, as gunicorn does with its own.
"""

from __future__ import annotations

import contextlib
import http
import logging
import socket
from typing import Any

import msgspec
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from spokes.admin.routing import JSON
from spokes.admin.schema.envelope import failure

log = logging.getLogger(__name__)

# What gunicorn's parser finds wrong, by the most special kind first; whatever else it raises on purpose is 400.
REFUSALS: tuple[tuple[str, http.HTTPStatus, str, str], ...] = (
    ("InvalidResponseHeader", http.HTTPStatus.INTERNAL_SERVER_ERROR, "SPK-INTERNAL", "the administration failed"),
    ("InvalidResponseHeaderName", http.HTTPStatus.INTERNAL_SERVER_ERROR, "SPK-INTERNAL", "the administration failed"),
    ("ConfigurationProblem", http.HTTPStatus.INTERNAL_SERVER_ERROR, "SPK-INTERNAL", "the administration failed"),
    ("LimitRequestLine", http.HTTPStatus.REQUEST_URI_TOO_LONG, "SPK-TARGET-TOO-LONG", "the address is too long"),
    (
        "LimitRequestHeaders",
        http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "SPK-HEAD-TOO-LARGE",
        "the request's header is too large",
    ),
    ("ExpectationFailed", http.HTTPStatus.EXPECTATION_FAILED, "SPK-UNSUPPORTED", "Expect may say 100-continue alone"),
    (
        "UnsupportedTransferCoding",
        http.HTTPStatus.NOT_IMPLEMENTED,
        "SPK-UNSUPPORTED",
        "a transfer coding other than chunked is not supported",
    ),
    ("ParseException", http.HTTPStatus.BAD_REQUEST, "SPK-BAD-REQUEST", "the request does not follow HTTP"),
)


def refusal_of(error: BaseException) -> tuple[http.HTTPStatus, str, str]:
    """Status, code and words; an exception that nobody raised on purpose is an error of the server."""
    for kind, status, code, words in REFUSALS:
        if isinstance(error, getattr(errors, kind, ())):  # by name: the stubs do not know all of them
            return status, code, words
    return http.HTTPStatus.INTERNAL_SERVER_ERROR, "SPK-INTERNAL", "the administration failed"


def refusal_answer(error: BaseException) -> bytes:
    status, code, words = refusal_of(error)
    body = msgspec.json.encode(failure(words, code))
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: {JSON}\r\n"
        f"Cache-Control: no-store\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


class AdminWorker(ThreadWorker):
    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        if refusal_of(exc)[0] is http.HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", exc_info=exc)
        else:
            log.info("request refused", extra={"why": str(exc)})
        with contextlib.suppress(OSError):
            write_nonblock(client, refusal_answer(exc))
