"""Three stores as a cluster through a network that does everything wrong, and builds that the invariants catch."""

import contextlib
import itertools

import pytest

from spokes import clock
from spokes.cluster.standing import Verdict, judge_batch
from spokes.errors import GapError, StaleEpochError
from spokes.store import Store, apply, full_sync, place
from tests.support.cluster_invariants import BrokenInvariant
from tests.support.cluster_nodes import Cluster

STEPS = 100


def run(stores, seed, steps=STEPS):
    cluster = Cluster(stores, seed)
    try:
        for _ in range(steps):
            cluster.step()
        cluster.settle()
    except Exception as error:
        error.add_note(f"seed {seed}, after {len(cluster.events)} steps: {' '.join(cluster.events[-20:])}")
        raise
    return cluster


@pytest.mark.parametrize("seed", range(6))
def test_cluster_run_keeps_every_invariant(cluster_stores, seed):
    cluster = run(cluster_stores, seed)
    assert all(cluster.is_level(node) for node in cluster.nodes)


def depose(cluster):
    """The first node goes on as master after another one was promoted, and says so to the third."""
    first, second, third = cluster.nodes
    while first.seq < 5:
        cluster.write(first)
    for node in (second, third):
        cluster.pull(node)
    cluster.promote(second, forced=True)
    cluster.pull(third)                  # nothing but the epoch
    before = first.seq
    while first.seq == before:
        cluster.write(first)
    with contextlib.suppress(StaleEpochError):
        cluster.receive(third, first.store.changes.batch(before))
    cluster.watch.check(cluster.stores)
    return before


def test_deposed_master_is_refused_returns_and_lists_what_it_wrote(cluster_stores):
    cluster = Cluster(cluster_stores, 1)
    before = depose(cluster)
    first, second, third = cluster.nodes
    own = [(change.seq, change.uid) for change in first.store.changes.after(before)]
    with pytest.raises(StaleEpochError) as refusal:
        third.store.changes.apply(first.store.changes.batch(before))
    assert refusal.value.epoch == second.store.cluster.standing().position.epoch
    assert first.store.cluster.may_write()
    first.store.cluster.note_epoch(refusal.value.epoch)      # as the refusal told it
    assert not first.store.cluster.may_write()
    cluster.settle()
    assert cluster.is_level(first)
    assert [(change.seq, change.uid) for _, change in first.store.cluster.quarantine()] == own
    cluster.promote(first)                                   # reinstated: the same the other way
    cluster.write(first)
    cluster.settle()
    assert second.store.cluster.quarantine() == third.store.cluster.quarantine() == []


def test_replica_that_was_away_longer_than_the_log_synchronizes(cluster_stores):
    cluster = Cluster(cluster_stores, 2)
    first, second, _ = cluster.nodes
    cursor = second.store.changes.cursor()
    for _ in range(12):
        cluster.write(first)
    first.store.changes.purge(clock.wall_s() + 1, 2)
    with pytest.raises(GapError):
        first.store.changes.batch(second.seq)
    assert second.store.changes.continues(cursor)
    cluster.settle()
    assert not second.store.changes.continues(cursor)        # who follows the log there begins with a full read
    assert second.store.changes.continues(second.store.changes.cursor())


# --- broken on purpose ---------------------------------------------------------------------------------------------


def ignore_epochs(monkeypatch):
    """Batches of a deposed master are taken, and it writes on."""
    def judged(standing, batch, kinds):
        try:
            return judge_batch(standing, batch, kinds)
        except Exception:
            return Verdict.APPLY if batch.from_seq <= standing.position.seq < batch.to_seq else Verdict.DUPLICATE

    monkeypatch.setattr(apply, "judge_batch", judged)


def write_anywhere(monkeypatch):
    monkeypatch.setattr(place.Place, "may_write", lambda self, node_uid: True)


def compare_no_digest(monkeypatch):
    """A row that is lost on its way is not noticed."""
    real = apply._Work._put
    count = itertools.count(1)

    def lossy(self, table, stored, columns):
        if next(count) % 5:
            real(self, table, stored, columns)

    monkeypatch.setattr(apply._Work, "_put", lossy)
    monkeypatch.setattr(apply._Work, "digest_text", property(lambda self: self._batch.digest))


def bring_back_what_was_deleted(monkeypatch):
    """A deletion is noted, and the row stays; nobody compares digests."""
    real = apply._Work.apply

    def lenient(self, event, sealer):
        if event.op != "del":
            return real(self, event, sealer)
        table = apply.KINDS[event.kind]
        with monkeypatch.context() as patch:
            patch.setattr(table, "delete", table.find)
            return real(self, event, sealer)

    monkeypatch.setattr(apply._Work, "apply", lenient)
    monkeypatch.setattr(apply._Work, "digest_text", property(lambda self: self._batch.digest))


def quarantine_nothing(monkeypatch):
    monkeypatch.setattr(full_sync._Load, "_quarantine", lambda self, last: 0)


def take_old_snapshots(monkeypatch):
    monkeypatch.setattr(full_sync._Load, "_check", lambda *_: None)


BROKEN = {
    ignore_epochs: {"equal position, equal digest", "equal position, equal rows", "positions never go back",
                    "acknowledged writes survive or are listed", "one committer per epoch"},
    write_anywhere: {"one committer per epoch", "equal position, equal digest", "equal position, equal rows"},
    compare_no_digest: {"equal position, equal digest", "equal position, equal rows"},
    bring_back_what_was_deleted: {"a deleted id never returns"},
    quarantine_nothing: {"acknowledged writes survive or are listed"},
    take_old_snapshots: {"positions never go back"},
}  # fmt: skip


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda breaking: breaking.__name__)
def test_invariants_catch_a_broken_build(breaking, tmp_path, monkeypatch):
    caught = set()
    for seed in range(20):
        with contextlib.ExitStack() as stack:
            stores = [stack.enter_context(Store.open(str(tmp_path / f"{seed}-{number}.db"))) for number in range(3)]
            try:
                with monkeypatch.context() as patch:
                    breaking(patch)
                    depose(cluster := Cluster(stores, seed))
                    for _ in range(STEPS):
                        cluster.step()
                    cluster.settle()
            except BrokenInvariant as broken:
                caught.add(broken.name)
            except Exception:            # a broken build may fail in other ways as well
                continue
        if caught & BROKEN[breaking]:
            return
    pytest.fail(f"nothing but {caught} was caught")
