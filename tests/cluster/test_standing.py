import dataclasses
from dataclasses import dataclass

import pytest

from spokes.cluster.batch import Batch, Event
from spokes.cluster.history import EpochStart
from spokes.cluster.position import Epoch, Position
from spokes.cluster.standing import (
    Role,
    Standing,
    Verdict,
    judge_batch,
    next_epoch,
    quarantined,
    role_at_start,
)
from spokes.errors import (
    ClusterKindError,
    DivergedError,
    NewerSchemaError,
    PromotionRefusedError,
    SignatureError,
    StaleEpochError,
)

A, B, C, CLUSTER = "a" * 32, "b" * 32, "c" * 32, "d" * 32
FIRST = EpochStart(1, A, 0)
SECOND = EpochStart(2, C, 100)
KINDS = ("site", "port")
REPLICA = Standing(
    node=B, cluster=CLUSTER, position=Position(FIRST.epoch, 100), digest="0" * 64, highest=FIRST.epoch, schema=9,
    history=(FIRST,),
)


def batch(from_seq=100, to_seq=101, *, history=(FIRST,), kind="site", **parts):
    events = [
        Event(seq=seq, epoch=1, kind=kind, op="del", uid=A, rev=seq, body=None, time=1.0)
        for seq in range(from_seq + 1, to_seq + 1)
    ]
    fields = {
        "cluster": CLUSTER, "sender": history[-1].owner, "history": history, "from_seq": from_seq, "to_seq": to_seq,
        "previous_digest": "0" * 64, "digest": "1" * 64, "schema": 9, "events": events,
    }  # fmt: skip
    return Batch(**fields | parts)


def judge(one, standing=REPLICA):
    return judge_batch(standing, one, KINDS)


@pytest.mark.parametrize(("one", "verdict"), [
    (batch(), Verdict.APPLY),
    (batch(90, 105), Verdict.APPLY),                         # in part known
    (batch(90, 100, digest="0" * 64), Verdict.DUPLICATE),
    (batch(100, 100, digest="0" * 64), Verdict.DUPLICATE),
    (batch(90, 95), Verdict.DUPLICATE),
    (batch(previous_digest=""), Verdict.APPLY),              # the sender does not know it any more
    (batch(101, 102), Verdict.PULL),
    (batch(history=(FIRST, SECOND)), Verdict.APPLY),
    (batch(100, 100, digest="0" * 64, history=(FIRST, SECOND)), Verdict.APPLY),     # the epoch alone
    (batch(90, 95, history=(FIRST, SECOND)), Verdict.PULL),
    (batch(history=(FIRST, EpochStart(2, C, 99))), Verdict.SYNCHRONIZE),
    (batch(99, 100, history=(FIRST, EpochStart(2, C, 99))), Verdict.SYNCHRONIZE),
    (batch(history=(EpochStart(2, C, 0),)), Verdict.SYNCHRONIZE),
])
def test_judge_batch(one, verdict):
    assert judge(one) is verdict


@pytest.mark.parametrize(("one", "error"), [
    (batch(cluster=A), SignatureError),
    (batch(sender=C), SignatureError),
    (batch(history=(FIRST, EpochStart(2, B, 100))), SignatureError),      # this node's own identity
    (batch(schema=10), NewerSchemaError),
    (batch(kind="teapot"), ClusterKindError),
    (batch(previous_digest="2" * 64), DivergedError),
    (batch(99, 100), DivergedError),
    (batch(100, 100), DivergedError),
])
def test_judge_batch_refused(one, error):
    with pytest.raises(error):
        judge(one)


def test_judge_batch_of_a_deposed_master_is_told_the_highest_epoch():
    standing = dataclasses.replace(REPLICA, highest=SECOND.epoch)
    with pytest.raises(StaleEpochError) as refusal:
        judge(batch(), standing)
    assert refusal.value.epoch == SECOND.epoch
    assert refusal.value.http_status == 409


@pytest.mark.parametrize(("own", "tick", "cluster", "heard", "role"), [
    (Epoch(1, A), True, False, [], Role.STANDALONE),
    (Epoch(1, A), True, True, [], Role.MASTER),
    (Epoch(1, A), True, True, [Epoch(1, A)], Role.MASTER),
    (Epoch(1, A), True, True, [Epoch(1, A), Epoch(2, B)], Role.REPLICA),
    (Epoch(1, A), True, True, [Epoch(1, B)], Role.REPLICA),               # two took one number
    (Epoch(1, A), False, True, [], Role.REPLICA),
    (Epoch(1, B), True, True, [], Role.REPLICA),                          # the tick alone opens no epoch
])
def test_role_at_start(own, tick, cluster, heard, role):
    assert role_at_start(own, A, master_tick=tick, in_cluster=cluster, heard=heard) is role


def test_next_epoch_is_beyond_all_that_were_seen():
    own = Position(Epoch(1, A), 100)
    assert next_epoch(B, own, Epoch(4, C), {}) == Epoch(5, B)
    assert next_epoch(B, own, own.epoch, {"c": (own, Epoch(7, C))}) == Epoch(8, B)


def test_next_epoch_with_a_peer_ahead_refused_unless_forced():
    own, ahead = Position(Epoch(1, A), 100), Position(Epoch(1, A), 101)
    with pytest.raises(PromotionRefusedError, match="c has changes"):
        next_epoch(B, own, own.epoch, {"c": (ahead, ahead.epoch)})
    assert next_epoch(B, own, own.epoch, {"c": (ahead, ahead.epoch)}, forced=True) == Epoch(2, B)


@dataclass
class Numbered:
    seq: int


def test_quarantined_is_what_the_new_epoch_does_not_know():
    changes = [Numbered(seq) for seq in range(95, 106)]
    assert [one.seq for one in quarantined(changes, (FIRST,), (FIRST, SECOND))] == [101, 102, 103, 104, 105]
    assert quarantined(changes, (FIRST, SECOND), (FIRST, SECOND)) == []
