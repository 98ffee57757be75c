"""Changes of another node put into this store."""

import dataclasses
import json

import msgspec
import pytest

from spokes.cluster.standing import Verdict
from spokes.errors import ClusterKindError, DivergedError, GapError, NewerSchemaError, SealError, SignatureError
from spokes.model.passwords import SetPassword
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.model.tunnels import AssignTunnel, CreateTunnel, RegisterTunnel
from spokes.model.users import CreateUser, DeleteUser
from spokes.password_hash import hash_of
from spokes.store import Principal, TunnelState
from spokes.store.digests import computed_digest
from tests.store.test_changes import MUTATIONS, another_world
from tests.support.operations import do
from tests.support.stores import DOMAIN, fill

ALL = 1_000


@pytest.fixture
def pair(cluster_stores):
    """A master with one of everything, and a replica that stands where it stands."""
    master, replica, _ = cluster_stores
    fill(master)
    replica.cluster.join(master.cluster.cluster_key())
    replica.cluster.load(master.cluster.export())
    return master, replica


def seq(store):
    return store.cluster.standing().position.seq


def carry(master, replica):
    return replica.changes.apply(master.changes.batch(seq(replica), ALL))


def changed(batch, **event):
    events = [msgspec.structs.replace(batch.events[0], **event), *batch.events[1:]]
    return msgspec.structs.replace(batch, events=events)


def test_apply_gives_the_same_log_rows_and_standing(pair):
    master, replica = pair
    before = seq(master)
    for name in MUTATIONS:
        MUTATIONS[name][0](another_world(master))
    while seq(replica) < seq(master):
        applied = carry(master, replica)
        assert applied.verdict is Verdict.APPLY
    assert replica.changes.after(before) == master.changes.after(before)
    assert replica.cluster.is_digest_right() and master.cluster.is_digest_right()
    ours, theirs = (dataclasses.replace(one.cluster.standing(), node="") for one in (master, replica))
    assert ours == theirs
    assert applied.answer.digest == ours.digest
    for tunnel in master.tunnels.select():
        assert replica.rules.read(tunnel.uid) == master.rules.read(tunnel.uid)
        auth = master.tunnels.auth_token(tunnel.uid)
        if auth.active and tunnel.state == TunnelState.INIT:
            assert replica.tunnels.find_by_key(auth.value).uid == tunnel.uid
    assert replica.audit.select() == []                      # the node that was asked has them


def test_running_digest_is_that_of_the_rows(store):
    fill(store)
    for name in MUTATIONS:
        MUTATIONS[name][0](another_world(store))
        assert store.cluster.is_digest_right(), name
    with store._db.snapshot():
        assert computed_digest(store._db, store.secrets.digest_key) == store.cluster.standing().digest


def test_apply_twice_is_once(pair):
    master, replica = pair
    do(master, CreateToken("t"))
    batch = master.changes.batch(seq(replica))
    assert replica.changes.apply(batch).verdict is Verdict.APPLY
    before = replica.changes.after(0)
    again = replica.changes.apply(batch)
    assert (again.verdict, again.answer.applied_seq) == (Verdict.DUPLICATE, seq(master))
    assert replica.changes.after(0) == before


def test_apply_of_what_is_known_in_part_takes_the_rest(pair):
    master, replica = pair
    first = do(master, CreateToken("a"))
    carry(master, replica)
    do(master, CreateToken("b"))
    assert replica.changes.apply(master.changes.batch(first.rev - 1)).change_count == 1
    assert len(replica.tokens.select()) == len(master.tokens.select())


def test_apply_behind_a_gap_asks_for_the_log(pair):
    master, replica = pair
    do(master, CreateToken("a"))
    last = do(master, CreateToken("b"))
    before = replica.cluster.standing()
    assert replica.changes.apply(master.changes.batch(last.rev - 1)).verdict is Verdict.PULL
    assert replica.cluster.standing() == before


def test_apply_port_and_email_that_change_hands_fit(pair):
    """In the order of the log, whatever was unique for whom at the beginning and at the end."""
    master, replica = pair
    one, _ = do(master, CreateTunnel(name="one", hostname=f"one.{DOMAIN}", domain=DOMAIN))
    two, _ = do(master, CreateTunnel(name="two", hostname=f"two.{DOMAIN}", domain=DOMAIN))
    port = do(master, AllocatePort(one.uid, 23000, 23000))
    user = do(master, CreateUser(fullname="a", email="a@example.com"))
    carry(master, replica)
    do(master, ReleasePort(one.uid, port))
    do(master, AllocatePort(two.uid, 23000, 23000))
    do(master, DeleteUser(user.uid))
    do(master, CreateUser(fullname="b", email="a@example.com"))
    assert carry(master, replica).verdict is Verdict.APPLY
    assert [row.tunnel_uid for row in replica.ports.select() if row.port == 23000] == [two.uid]
    assert replica.users.find_by_email("A@example.com").fullname == "b"


def test_apply_user_made_again_under_its_id_stands(pair):
    master, replica = pair
    user = do(master, CreateUser(fullname="a"))
    do(master, DeleteUser(user.uid))
    carry(master, replica)
    do(master, CreateUser(fullname="b", uid=user.uid))
    carry(master, replica)
    assert replica.users.get(user.uid).fullname == "b"


def test_apply_renamed_tunnel_holds_its_former_name(pair):
    master, replica = pair
    tunnel, _ = do(master, CreateTunnel(name="x", hostname=f"before.{DOMAIN}", domain=DOMAIN))
    user = do(master, CreateUser(fullname="a"))
    do(master, AssignTunnel(uid=tunnel.uid, user_uid=user.uid, name="", hostname=f"after.{DOMAIN}", domain=DOMAIN))
    carry(master, replica)
    for store in pair:
        with store.changes.transaction() as tx:
            holder, = store.hostnames.holders_of_hostnames(tx, [f"before.{DOMAIN}"]).values()
        assert (holder.tunnel_uid, holder.renamed) == (tunnel.uid, True)


def test_batch_and_snapshot_show_no_secret(pair):
    master, replica = pair
    token = do(master, CreateToken("t"))
    user = do(master, CreateUser(fullname="a"))
    hashed, visitors = hash_of("a password"), hash_of("a visitor's")
    do(master, SetPassword(user.uid, hashed))
    tunnel, auth = do(master, RegisterTunnel(token=token.value, name="a", domain=DOMAIN))
    do(master, PutSites(tunnel.uid, [{"domain": "p.example.org", "password": visitors}]))
    secrets = (token.value, auth.value if hasattr(auth, "value") else auth, hashed, visitors)
    batch = master.changes.batch(seq(replica), ALL)
    text = msgspec.json.encode(batch).decode() + repr(list(master.cluster.export()))
    assert not [secret for secret in secrets if secret in text]
    assert replica.changes.apply(batch).verdict is Verdict.APPLY
    assert replica.users.get(user.uid).password_hash == hashed
    assert replica.sites.select(tunnel.uid) == master.sites.select(tunnel.uid)


@pytest.mark.parametrize(("damage", "error"), [
    (lambda batch: changed(batch, kind="teapot"), ClusterKindError),
    (lambda batch: changed(batch, body='{"lid":"open"}'), ClusterKindError),
    (lambda batch: changed(batch, body="[]"), ClusterKindError),
    (lambda batch: changed(batch, body=batch.events[0].body.replace('"active":true', '"active":7')), ClusterKindError),
    (lambda batch: changed(batch, body=batch.events[0].body.replace("sealed.1.", "sealed.1.AAAA")), SealError),
    (lambda batch: changed(batch, body=batch.events[0].body.replace('"one"', '"two"')), DivergedError),
    (lambda batch: changed(batch, op="del", body=None), DivergedError),
    (lambda batch: msgspec.structs.replace(batch, digest="0" * 64), DivergedError),
    (lambda batch: msgspec.structs.replace(batch, previous_digest="0" * 64), DivergedError),
    (lambda batch: msgspec.structs.replace(batch, schema=10**6), NewerSchemaError),
    (lambda batch: msgspec.structs.replace(batch, sender="f" * 32), SignatureError),
    (lambda batch: msgspec.structs.replace(batch, cluster="f" * 32), SignatureError),
])
def test_apply_what_does_not_fit_changes_nothing(pair, damage, error):
    master, replica = pair
    do(master, CreateToken("one"))
    do(master, CreateToken("three"))
    batch = master.changes.batch(seq(replica))
    before = replica.cluster.standing(), replica.tokens.select(), replica.changes.after(0)
    with pytest.raises(error):
        replica.changes.apply(damage(batch))
    assert (replica.cluster.standing(), replica.tokens.select(), replica.changes.after(0)) == before
    assert replica.changes.apply(batch).verdict is Verdict.APPLY


def test_apply_where_a_hand_was_in_the_database_is_noticed(pair):
    master, replica = pair
    token = do(master, CreateToken("t"))
    carry(master, replica)
    with replica._db.write():
        replica._db.query("UPDATE token SET description = 'other' WHERE uid = {}", (token.uid,))
    assert not replica.cluster.is_digest_right()
    do(master, EditToken(token.uid, "u", True))
    with pytest.raises(DivergedError):
        carry(master, replica)
    with replica._db.write():            # and one that is in the way of a unique name
        replica._db.query("UPDATE token SET description = 't' WHERE uid = {}", (token.uid,))
    carry(master, replica)
    fresh = do(master, CreateToken("v"))
    with replica._db.write():
        replica._db.query(
            "UPDATE token SET value_hash = {} WHERE uid = {}", (replica.secrets.hash(fresh.value), token.uid)
        )
    with pytest.raises(DivergedError):
        carry(master, replica)


def test_batch_bounds(pair, monkeypatch):
    master, _ = pair
    first = do(master, CreateToken("t")).rev
    for _ in range(4):
        do(master, CreateToken("t"))
    assert len(master.changes.batch(first, 2).events) == 2
    monkeypatch.setattr("spokes.store.batches.TEXT_BYTES_MAX", 1)
    assert len(master.changes.batch(first, 3).events) == 1
    assert master.changes.batch(first + 4).events == []
    for nowhere in (first + 5, 10**30):
        with pytest.raises(GapError):
            master.changes.batch(nowhere)


def test_batch_of_changes_from_before_there_were_digests_needs_a_snapshot(pair):
    master, _ = pair
    last = do(master, CreateToken("t")).rev
    with master._db.write():
        master._db.query("UPDATE change SET digest = ''")
    with pytest.raises(GapError):
        master.changes.batch(last - 1)
    do(master, CreateToken("t"))
    assert master.changes.batch(last).previous_digest == ""


def test_delete_leaves_a_tombstone_for_seven_days_and_as_long_as_the_log(store):
    token = do(store, CreateToken("t"))
    do(store, DeleteToken(token.uid))
    now = store.changes.after(0)[-1].time
    assert store._db.query("SELECT kind, uid, seq FROM tombstone") == [("token", token.uid, token.rev + 1)]
    assert store.changes.purge_tombstones(now + 1) == 0      # the log still tells of it
    do(store, CreateToken("u"))
    store.changes.purge(now + 60, 1)
    assert store.changes.purge_tombstones(now) == 0
    assert store.changes.purge_tombstones(now + 1) == 1
    assert store._db.query("SELECT uid FROM tombstone") == []


def test_audited_replica_still_writes_what_is_no_configuration(pair):
    _, replica = pair
    with replica.audit.acting(Principal(kind="shell")):
        replica.audit.note("session.stop")
    assert [event.action for event in replica.audit.select()] == ["session.stop"]
    assert json.loads(json.dumps(replica.changes.position())) == list(replica.changes.position())
