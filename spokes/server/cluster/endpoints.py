"""What a node answers to the other nodes of its cluster: a batch, a part of its log, a snapshot.

Plain functions of a request: whoever mounts them (under PATH_PREFIX) reads the body, at most BATCH_BYTES_MAX, and runs
them where the store may be asked. Every request is signed (cluster/signing.py), and what the signature covers is held
against the batch, so that an authentic head is of no use with another body.
Fails: never; what is refused is an answer with the code of the error and where this node stands.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from spokes import clock
from spokes.cluster.batch import decode_batch, encode
from spokes.cluster.signing import Envelope, Verifier, read_headers
from spokes.cluster.standing import Verdict
from spokes.errors import ClusterMessageError, GapError, NotFoundError, ReplicaError, SignatureError, SpokesError
from spokes.store import Store

PATH_PREFIX = "/api/admin/v1.0/replication/"
SEQ_DIGITS_MAX = 19
JSON = "application/json"
GZIP = "application/gzip"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    content_type: str
    body: Iterable[bytes]                # of a snapshot: to be read to its end, or closed, by one thread


class Refusal(msgspec.Struct, frozen=True, rename="camel"):
    """Why not, and where this node stands; `epoch` and `owner` are of the highest epoch that it has seen."""

    code: str
    message: str
    hint: str
    epoch: int
    owner: str
    applied_seq: int
    digest: str


class Endpoints:
    """Of one node."""

    def __init__(self, store: Store, hmac_key: bytes) -> None:
        self._store = store
        self._verifier = Verifier(hmac_key, store.cluster.node_uid)
        self._handlers: dict[tuple[str, str], Callable[[Envelope, str, bytes], Response]] = {
            ("POST", "batch"): self._take_batch,
            ("GET", "log"): self._give_log,
            ("GET", "snapshot"): self._give_snapshot,
        }

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """`target`: path and query as they came."""
        try:
            envelope, signature = read_headers(method, target, headers)
            self._verifier.check(envelope, signature, body, clock.wall_s())
            path, _, query = target.partition("?")
            handler = self._handlers.get((method, path.removeprefix(PATH_PREFIX)))
            if handler is None or not path.startswith(PATH_PREFIX):
                raise NotFoundError("nodes are answered nothing here")
            return handler(envelope, query, body)
        except SpokesError as error:
            return self._refused(error)

    def _take_batch(self, envelope: Envelope, _query: str, body: bytes) -> Response:
        batch = decode_batch(body)
        signed = (envelope.sender, envelope.epoch, envelope.from_seq, envelope.to_seq)
        if signed != (batch.sender, batch.epoch.number, batch.from_seq, batch.to_seq):
            raise SignatureError("the head of a batch is signed for another one")
        applied = self._store.changes.apply(batch)
        if applied.verdict in (Verdict.PULL, Verdict.SYNCHRONIZE):
            raise GapError(f"this node stands at {applied.answer.applied_seq} and asks for what it lacks")
        return Response(200, JSON, [encode(applied.answer)])

    def _give_log(self, _envelope: Envelope, query: str, _body: bytes) -> Response:
        after = urllib.parse.parse_qs(query).get("after", [""])
        if len(after) != 1 or not (after[0].isascii() and after[0].isdigit() and len(after[0]) <= SEQ_DIGITS_MAX):
            raise ClusterMessageError("say behind which change: ?after=N")
        self._check_master()
        return Response(200, JSON, [encode(self._store.changes.batch(int(after[0])))])

    def _give_snapshot(self, _envelope: Envelope, _query: str, _body: bytes) -> Response:
        self._check_master()
        return Response(200, GZIP, self._store.cluster.export())

    def _check_master(self) -> None:
        """Only what the epoch's owner says is taken by the others."""
        if not self._store.cluster.may_write():
            raise ReplicaError("this node is no master", hint="ask the master")

    def _refused(self, error: SpokesError) -> Response:
        standing = self._store.cluster.standing()
        refusal = Refusal(
            code=error.code, message=str(error), hint=error.hint, epoch=standing.highest.number,
            owner=standing.highest.owner, applied_seq=standing.position.seq, digest=standing.digest,
        )
        return Response(error.http_status, JSON, [msgspec.json.encode(refusal)])


def read_refusal(body: bytes) -> Refusal:
    """Fails: ClusterMessageError."""
    try:
        return msgspec.json.decode(body, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ClusterMessageError("a node's refusal cannot be read") from None
