"""What travels between nodes: batches of changes and the answer to one.

Owns: their form (JSON, checked as it is read) and their bounds.
Bound: BATCH_BYTES_MAX, EVENT_COUNT_MAX.
Fails: ClusterMessageError for what is malformed, too large, or does not fit together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from spokes.cluster.history import EPOCH_COUNT_MAX, EpochStart, is_in_order
from spokes.cluster.position import NUMBER_MAX, Epoch, Position
from spokes.errors import ClusterMessageError
from spokes.ids import is_uid

BATCH_BYTES_MAX = 16 * 1024 * 1024
EVENT_COUNT_MAX = 1_000

Uid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
DigestText = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
OldDigestText = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Epochs = Annotated[tuple[EpochStart, ...], msgspec.Meta(min_length=1, max_length=EPOCH_COUNT_MAX)]
KindName = Annotated[str, msgspec.Meta(pattern="^[a-z_]{1,40}$")]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change. `body` (None of a deletion) is the whole object as JSON, its secrets sealed while it travels; a text,
    because rules hold whatever JSON can escape, lone surrogates too."""

    seq: Number
    epoch: Number
    kind: KindName                       # kept as text: one that is not known must be read to be refused
    op: Literal["put", "del"]
    uid: Uid
    rev: Number
    body: str | None
    time: float

    def object(self) -> Any:
        """The body, read. Fails: ClusterMessageError."""
        try:
            return None if self.body is None else json.loads(self.body)
        except (ValueError, RecursionError):
            raise ClusterMessageError(f"the body of event {self.seq} cannot be read") from None


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The changes behind `from_seq` up to `to_seq`; none, and both alike, to say where the sender stands."""

    cluster: Uid
    sender: Uid
    history: Epochs                      # of the sender; the last is the epoch
    from_seq: Number
    to_seq: Number
    previous_digest: OldDigestText       # at from_seq; "": the sender does not know it any more
    digest: DigestText                   # at to_seq
    schema: Number                       # schema version of the sender's store
    events: Annotated[list[Event], msgspec.Meta(max_length=EVENT_COUNT_MAX)]

    @property
    def epoch(self) -> Epoch:
        return self.history[-1].epoch

    @property
    def position(self) -> Position:
        """Where whoever applied it stands."""
        return Position(self.epoch, self.to_seq)


class BatchAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Where the receiver stands afterwards; of a refusal for its epoch, the highest epoch that was ever seen."""

    epoch: Number
    owner: Uid
    applied_seq: Number
    digest: DigestText


_BATCH = msgspec.json.Decoder(Batch)
_ANSWER = msgspec.json.Decoder(BatchAnswer)


def encode(message: Batch | BatchAnswer) -> bytes:
    return msgspec.json.encode(message)


def decode_batch(data: bytes) -> Batch:
    if len(data) > BATCH_BYTES_MAX:
        raise ClusterMessageError(f"a batch is longer than {BATCH_BYTES_MAX} bytes")
    try:
        batch = _BATCH.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ClusterMessageError(f"a batch cannot be read: {error}") from None
    check_batch(batch)
    return batch


def check_batch(batch: Batch) -> None:
    """Its events are those that it says, in order and without a gap."""
    check_history(batch.history)
    if len(batch.events) != batch.to_seq - batch.from_seq:
        raise ClusterMessageError("a batch has not the events that it names")
    for seq, event in enumerate(batch.events, batch.from_seq + 1):
        if event.seq != seq or event.epoch > batch.epoch.number or (event.body is None) != (event.op == "del"):
            raise ClusterMessageError(f"event {seq} of a batch is out of place")


def check_history(history: Sequence[EpochStart]) -> None:
    """That nobody else wrote it; JSON's types alone say little of a tuple's members."""
    for one in history:
        if not (0 <= one.number <= NUMBER_MAX and 0 <= one.start <= NUMBER_MAX and is_uid(one.owner)):
            raise ClusterMessageError("a list of epochs has one that is none")
    if not is_in_order(history):
        raise ClusterMessageError("a list of epochs is out of order")


def decode_answer(data: bytes) -> BatchAnswer:
    try:
        return _ANSWER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ClusterMessageError(f"the answer to a batch cannot be read: {error}") from None
