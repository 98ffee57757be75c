"""Signatures of requests between nodes: HMAC-SHA256 over everything that decides what a request does.

Owns: the nonces of authentic requests, so that none is taken twice while its time is within the window.
Bound: NONCE_COUNT_MAX nonces. When more arrive within the window, the oldest is forgotten and whatever is as old as
that is refused from then on: memory is bounded and a replay is still never taken.
Fails: SignatureError (not authentic), ClockError (outside the window), ReplayError.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from spokes.errors import ClockError, ClusterMessageError, ReplayError, SignatureError

WINDOW_S = 300.0
NONCE_COUNT_MAX = 100_000
HEADER_PREFIX = "X-Spokes-Cluster-"
FIELD_CHARS_MAX = 200
SIGNATURE_HEADER = HEADER_PREFIX + "Signature"

_NAMES = ("sender", "receiver", "epoch", "from", "to", "time", "nonce")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What is signed beside the body. Times are Unix seconds, whole."""

    method: str
    path: str                            # with its query
    sender: str                          # UIDs of nodes
    receiver: str
    epoch: int
    from_seq: int
    to_seq: int
    time: int
    nonce: str

    def headers(self, key: bytes, body: bytes) -> dict[str, str]:
        """The headers that carry the envelope, its signature included; method and path are the request's own."""
        values = (self.sender, self.receiver, self.epoch, self.from_seq, self.to_seq, self.time, self.nonce)
        headers = {HEADER_PREFIX + name.title(): str(value) for name, value in zip(_NAMES, values, strict=True)}
        headers[SIGNATURE_HEADER] = signature(key, self, body)
        return headers


def new_nonce() -> str:
    return secrets.token_hex(16)


def signature(key: bytes, envelope: Envelope, body: bytes) -> str:
    """64 hex digits."""
    fields = (
        envelope.method, envelope.path, envelope.sender, envelope.receiver, envelope.epoch, envelope.from_seq,
        envelope.to_seq, envelope.time, envelope.nonce, hashlib.sha256(body).hexdigest(),
    )
    # Each with its length, so that no two envelopes are written alike.
    parts = [str(field).encode() for field in fields]
    text = b"spokes-cluster-1\n" + b"".join(b"%d:%s\n" % (len(part), part) for part in parts)
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def read_headers(method: str, path: str, headers: Mapping[str, str]) -> tuple[Envelope, str]:
    """(envelope, signature) of a request; names of `headers` in any case. Fails: ClusterMessageError."""
    lower = {name.lower(): value for name, value in headers.items()}
    values: dict[str, str] = {}
    for name in (*_NAMES, "signature"):
        value = lower.get((HEADER_PREFIX + name).lower())
        if value is None or len(value) > FIELD_CHARS_MAX:
            raise ClusterMessageError(f"a request between nodes has no usable {HEADER_PREFIX}{name.title()}")
        values[name] = value
    numbers = {name: values[name] for name in ("epoch", "from", "to", "time")}
    if not all(text.isascii() and text.isdigit() and len(text) <= 19 for text in numbers.values()):
        raise ClusterMessageError("a request between nodes has a number that is none")
    envelope = Envelope(
        method=method, path=path, sender=values["sender"], receiver=values["receiver"], epoch=int(values["epoch"]),
        from_seq=int(values["from"]), to_seq=int(values["to"]), time=int(values["time"]), nonce=values["nonce"],
    )
    return envelope, values["signature"]


class Verifier:
    """Checks what comes to one node."""

    def __init__(self, key: bytes, receiver: str, *, nonce_count_max: int = NONCE_COUNT_MAX) -> None:
        self._key = key
        self._receiver = receiver
        self._nonce_count_max = nonce_count_max
        self._nonces: set[tuple[int, str]] = set()
        self._oldest: list[tuple[int, str]] = []             # the same, as a heap
        self._floor = -1                                     # requests of this second and before are refused

    def check(self, envelope: Envelope, given: str, body: bytes, now: float) -> None:
        """Raises unless the request is authentic, meant for this node, of this time, and new."""
        expected = signature(self._key, envelope, body)
        if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
            raise SignatureError("a request between nodes is signed with another key, or was changed on its way",
                                 hint="compare the HMAC keys of the nodes")
        if envelope.receiver != self._receiver:
            raise SignatureError("a request between nodes is meant for another node",
                                 hint="check the host name of the replica entry")
        if abs(envelope.time - now) > WINDOW_S:
            raise ClockError(f"a request between nodes is {envelope.time - now:+.0f} s off this node's clock",
                             hint="set the clocks of the nodes (NTP)")
        self._forget_before(now - WINDOW_S)
        one = (envelope.time, envelope.nonce)
        if envelope.time <= self._floor or one in self._nonces:
            raise ReplayError("a request between nodes came twice")
        self._nonces.add(one)
        heapq.heappush(self._oldest, one)
        while len(self._oldest) > self._nonce_count_max:
            self._floor = max(self._floor, self._oldest[0][0])
            self._nonces.discard(heapq.heappop(self._oldest))

    @property
    def nonce_count(self) -> int:
        return len(self._nonces)

    def _forget_before(self, time: float) -> None:
        while self._oldest and self._oldest[0][0] < time:
            self._floor = max(self._floor, self._oldest[0][0])  # a clock that is set back opens no window again
            self._nonces.discard(heapq.heappop(self._oldest))
