"""What a node is and does in its cluster, as pure decisions: what comes of a batch, of a start, of a promotion.

Source: docs/store.md, "Positions". Nothing is ordered by a clock here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from spokes.cluster.batch import Batch
from spokes.cluster.history import History, common_seq
from spokes.cluster.position import Epoch, Position
from spokes.errors import (
    ClusterKindError,
    DivergedError,
    NewerSchemaError,
    PromotionRefusedError,
    SignatureError,
    StaleEpochError,
)


class Role(StrEnum):
    STANDALONE = "standalone"            # no cluster is configured
    MASTER = "master"                    # owns the epoch: the one that writes
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A node at one moment."""

    node: str                            # its UID
    cluster: str                         # sealing.cluster_id
    position: Position
    digest: str
    highest: Epoch                       # ever seen, its own included
    schema: int                          # version that its store writes
    history: History = ()


class Verdict(StrEnum):
    """What to do with a batch that may be heard."""

    APPLY = "apply"
    DUPLICATE = "duplicate"              # nothing; answered as if it had been applied
    PULL = "pull"                        # changes are missing before it: ask for the log behind one's own position
    SYNCHRONIZE = "synchronize"          # one wrote what the epoch does not know: set that aside, load a snapshot


def judge_batch(standing: Standing, batch: Batch, known_kinds: Iterable[str]) -> Verdict:
    """What a node does with a batch whose signature fits.

    Fails: SignatureError (of another cluster; of a node that does not own the epoch), StaleEpochError (the sender is
    deposed), NewerSchemaError, ClusterKindError, DivergedError (the same position, another digest).
    """
    if batch.cluster != standing.cluster:
        raise SignatureError("a batch is of another cluster", hint="join this node to the cluster again")
    if batch.sender != batch.epoch.owner:
        raise SignatureError("a batch comes from a node that does not own its epoch")
    if batch.sender == standing.node:
        raise SignatureError("a batch comes from a node with this node's own identity",
                             hint="two nodes were made from one image; join one of them again")
    epoch = batch.epoch
    if epoch < standing.highest:
        raise StaleEpochError(standing.highest)
    if batch.schema > standing.schema:
        raise NewerSchemaError(batch.schema, standing.schema)
    if unknown := {event.kind for event in batch.events} - set(known_kinds):
        raise ClusterKindError(min(unknown))
    seq = standing.position.seq
    if seq > common_seq(standing.history, batch.history):
        return Verdict.SYNCHRONIZE
    if batch.to_seq <= seq:
        if batch.to_seq == seq and batch.digest != standing.digest:
            raise DivergedError(standing.position, batch.sender)
        if epoch == standing.position.epoch:
            return Verdict.DUPLICATE
        return Verdict.APPLY if batch.to_seq == seq else Verdict.PULL
    if batch.from_seq > seq:
        return Verdict.PULL
    if batch.from_seq == seq and batch.previous_digest not in ("", standing.digest):
        raise DivergedError(standing.position, batch.sender)
    return Verdict.APPLY


def role_at_start(own: Epoch, node: str, *, master_tick: bool, in_cluster: bool, heard: Iterable[Epoch]) -> Role:
    """After probation, in which peers (and the arbiter) said the highest epoch that each has ever seen."""
    if not in_cluster:
        return Role.STANDALONE
    if any(epoch > own for epoch in heard) or own.owner != node or not master_tick:
        return Role.REPLICA
    return Role.MASTER


def next_epoch(
    node: str, own: Position, highest: Epoch, peers: Mapping[str, tuple[Position, Epoch]], *, forced: bool = False
) -> Epoch:
    """The epoch that a promotion of `node` begins.

    `peers`: of each node that could be reached its position, and the highest epoch that it has seen. Refused when one
    of them has changes that this one lacks, unless forced: these changes would be lost.
    Fails: PromotionRefusedError.
    """
    ahead = {name for name, (position, _) in peers.items() if position > own}
    if ahead and not forced:
        raise PromotionRefusedError(
            f"{min(ahead)} has changes that this node lacks",
            hint="promote that node, or let this one synchronize first; by force its changes are set aside",
        )
    number = max([own.epoch.number, highest.number, *(epoch.number for _, epoch in peers.values())])
    return Epoch(number + 1, node)


class Numbered(Protocol):
    @property
    def seq(self) -> int: ...


T = TypeVar("T", bound=Numbered)


def quarantined(changes: Iterable[T], own: History, theirs: History) -> list[T]:
    """Of a deposed master's own changes those that the new epoch does not know: written behind its start."""
    last = common_seq(own, theirs)
    return [change for change in changes if change.seq > last]
