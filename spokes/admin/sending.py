"""Sending of long answers: each holds a thread, threads are few, and some callers do not read what they asked for.

Owns: one thread for the process, which checks the answers under way. What fits into the socket's buffer goes at once;
a longer one needs a slot, shared by callers, and goes in chunks. A chunk must be taken within SEND_DEADLINE_S; where
others wait for a slot, within TAKE_BACK_S, and the answer of who has most under way is cut first.
Bound: SENDING_COUNT_MAX long answers under way, WAITING_COUNT_MAX wait. Fails: 503 in the envelope for who finds no
slot; an answer that is cut ends with its conn, before the length that was said.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from spokes import clock
from spokes.admin.deadline import Wsgi
from spokes.admin.routing import JSON
from spokes.admin.schema.envelope import failure
from spokes.admin.slots import SharedSlots
from spokes.errors import AdmissionRefusedError

log = logging.getLogger(__name__)

SOURCE = "spokes.source"                 # of the environ: whose share of the slots a call takes
SMALL_BYTES = 64 * 1024                  # less than half of what a Unix socket takes before it blocks
CHUNK_BYTES = 64 * 1024
SENDING_COUNT_MAX = 4
WAITING_COUNT_MAX = 2
PATIENCE_S = 3.0
SEND_DEADLINE_S = 10.0
TAKE_BACK_S = 1.0
CHECK_INTERVAL_S = 0.25
REFUSAL = "too many long answers at once; try again"

StartResponse = Callable[..., Any]


class Sending:
    """WSGI middleware over `app`; made after the fork, for it starts a thread."""

    def __init__(
        self, app: Wsgi, thread_count: int, *, deadline_s: float = SEND_DEADLINE_S, take_back_s: float = TAKE_BACK_S
    ) -> None:
        self._app = app
        self._deadline_s = deadline_s
        self._take_back_s = take_back_s
        count = max(1, min(SENDING_COUNT_MAX, thread_count // 2))
        self.slots = SharedSlots(count, REFUSAL, waiting_max=WAITING_COUNT_MAX, patience_s=PATIENCE_S)
        self._under_way: set[_Answer] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="sending-deadline", daemon=True).start()

    def __call__(self, env: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        said: list[tuple[str, list[tuple[str, str]]]] = []

        def hear(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            said[:] = [(status, headers)]

        body = self._app(env, hear)
        status, headers = said[0]
        length = next((value for name, value in headers if name.lower() == "content-length"), "")
        if length.isascii() and length.isdigit() and int(length) <= SMALL_BYTES:
            start_response(status, headers)
            return body
        source = str(env.get(SOURCE) or env.get("HTTP_X_REAL_IP") or env.get("REMOTE_ADDR") or "")
        try:
            self.slots.acquire(source)
        except AdmissionRefusedError as error:
            _close(body)
            return _refuse(start_response, error)
        try:
            start_response(status, headers)
        except BaseException:            # of a head that gunicorn does not send
            self.slots.release(source)
            _close(body)
            raise
        answer = _Answer(self, body, source, env.get("gunicorn.socket"))
        with self._changed:
            self._under_way.add(answer)
            self._changed.notify()
        return answer

    def ended(self, answer: _Answer) -> None:
        with self._changed:
            if answer not in self._under_way:
                return
            self._under_way.discard(answer)
        self.slots.release(answer.source)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._under_way:
                    self._changed.wait()
                answers = list(self._under_way)
            try:
                self._check(answers)
            except Exception:            # the next check may succeed; without any, who does not read stays for ever
                log.exception("answers under way could not be checked")
            with self._changed:
                self._changed.wait(CHECK_INTERVAL_S)

    def _check(self, answers: list[_Answer]) -> None:
        now = clock.monotonic_s()
        held = Counter(answer.source for answer in answers)
        stuck = [one for one in answers if now - one.since >= self._take_back_s]
        if self.slots.waiting_count and stuck:
            # One at a time: its slot is free before the next check.
            self._cut(max(stuck, key=lambda one: (held[one.source], now - one.since)), "others wait")
        for answer in stuck:
            if now - answer.since >= self._deadline_s:
                self._cut(answer, "not read")

    def _cut(self, answer: _Answer, why: str) -> None:
        """Unless it has ended meanwhile: its conn may carry somebody else's by now."""
        with self._changed:
            if answer in self._under_way:
                answer.cut(why)


class _Answer:
    """A long answer on its way, as what gunicorn iterates over."""

    def __init__(self, sending: Sending, body: Iterable[bytes], source: str, sock: socket.socket | None) -> None:
        self.source = source
        self.since = clock.monotonic_s()             # when the present chunk was handed over
        self._sending = sending
        self._body = body
        self._sock = sock
        self._is_cut = False
        self._chunks = _chunks(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = next(self._chunks)
        self.since = clock.monotonic_s()
        return chunk

    def close(self) -> None:
        try:
            _close(self._body)
        finally:
            self._sending.ended(self)

    def cut(self, why: str) -> None:
        if self._is_cut or self._sock is None:
            return
        self._is_cut = True
        log.warning("answer cut", extra={"why": why, "source": self.source})
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return                       # the other side was quicker


def _chunks(body: Iterable[bytes]) -> Iterator[bytes]:
    for part in body:
        for begin in range(0, len(part), CHUNK_BYTES):
            yield part[begin : begin + CHUNK_BYTES]


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _refuse(start_response: StartResponse, error: AdmissionRefusedError) -> Iterable[bytes]:
    body = msgspec.json.encode(failure(str(error), error.code))
    start_response("503 Service Unavailable", [
        ("Content-Type", JSON), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"), ("Retry-After", str(max(1, round(error.retry_after_s)))),
    ])
    return [body]
