import json
import random

import pytest

from spokes.cluster.batch import (
    BATCH_BYTES_MAX,
    EVENT_COUNT_MAX,
    Batch,
    BatchAnswer,
    Event,
    decode_answer,
    decode_batch,
    encode,
)
from spokes.cluster.history import EpochStart
from spokes.cluster.position import Epoch, Position
from spokes.errors import ClusterMessageError

A, B = "a" * 32, "b" * 32


def batch(count=2, **parts):
    events = [
        Event(
            seq=5 + number, epoch=1, kind="site", op="put", uid=B, rev=5 + number, body=r'{"domain":"é\ud800"}',
            time=1.5,
        )
        for number in range(1, count + 1)
    ]
    fields = {
        "cluster": B, "sender": A, "history": (EpochStart(1, A, 0),), "from_seq": 5, "to_seq": 5 + count,
        "previous_digest": "0" * 64, "digest": "1" * 64, "schema": 9, "events": events,
    }  # fmt: skip
    return Batch(**fields | parts)


def test_batch_reads_back():
    assert decode_batch(encode(batch())) == batch()
    assert decode_batch(encode(batch(0))).events == []
    assert batch().position == Position(Epoch(1, A), 7)


def test_event_object_is_the_body_whatever_json_can_escape():
    assert decode_batch(encode(batch())).events[0].object() == {"domain": "é\ud800"}
    for text in ("", "{", "[" * 100_000):
        with pytest.raises(ClusterMessageError):
            Event(seq=1, epoch=1, kind="site", op="put", uid=A, rev=1, body=text, time=1.0).object()


def test_answer_reads_back():
    answer = BatchAnswer(epoch=1, owner=A, applied_seq=7, digest="1" * 64)
    assert decode_answer(encode(answer)) == answer
    assert json.loads(encode(answer))["appliedSeq"] == 7


@pytest.mark.parametrize("parts", [
    {"to_seq": 8}, {"from_seq": 6}, {"cluster": "x"}, {"digest": "0"}, {"schema": -1}, {"from_seq": 2**63},
    {"history": ()}, {"history": (EpochStart(1, "x", 0),)}, {"history": (EpochStart(-1, A, 0),)},
    {"history": (EpochStart(2, A, 0), EpochStart(1, A, 0))}, {"history": (EpochStart(0, A, 0),)},
    {"history": tuple(EpochStart(number, A, 0) for number in range(101))},
    {"events": batch().events[::-1]}, {"events": batch().events[:1] * 2},
])  # fmt: skip
def test_decode_batch_that_does_not_fit_together_refused(parts):
    with pytest.raises(ClusterMessageError):
        decode_batch(encode(batch(**parts)))


@pytest.mark.parametrize("event", [
    {"op": "del"}, {"body": None}, {"op": "drop"}, {"kind": "Site"}, {"kind": "x" * 41}, {"uid": "x"}, {"epoch": 2},
    {"extra": 1}, {"time": "now"}, {"rev": -1},
])  # fmt: skip
def test_decode_batch_malformed_event_refused(event):
    message = json.loads(encode(batch(1)))
    message["events"][0] |= event
    with pytest.raises(ClusterMessageError):
        decode_batch(json.dumps(message).encode())


def test_decode_batch_too_large_refused():
    with pytest.raises(ClusterMessageError, match="longer"):
        decode_batch(b" " * (BATCH_BYTES_MAX + 1))
    with pytest.raises(ClusterMessageError):
        decode_batch(encode(batch(EVENT_COUNT_MAX + 1)))
    assert len(decode_batch(encode(batch(EVENT_COUNT_MAX))).events) == EVENT_COUNT_MAX


@pytest.mark.parametrize("seed", range(100))
def test_decode_batch_damaged_is_refused_or_still_well_formed(seed):
    rng = random.Random(seed)
    data = bytearray(encode(batch()))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    data = bytes(data[:rng.randint(1, len(data))] if rng.random() < 0.3 else data)
    for decode in (decode_batch, decode_answer):
        try:
            decode(data)
        except ClusterMessageError:
            continue
