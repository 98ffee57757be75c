"""A node's answers to the other nodes, as a request after the other."""

import msgspec
import pytest

from spokes import clock
from spokes.cluster.batch import decode_answer, decode_batch, encode
from spokes.cluster.position import Epoch
from spokes.cluster.signing import Envelope, new_nonce
from spokes.model.tokens import CreateToken
from spokes.server.cluster.endpoints import PATH_PREFIX, Endpoints, read_refusal
from spokes.store import Store
from tests.support.operations import do

KEY = b"hmac key"


@pytest.fixture
def nodes(tmp_path):
    """A master and a replica that has loaded its snapshot."""
    with Store.open(str(tmp_path / "a.db")) as master, Store.open(str(tmp_path / "b.db")) as replica:
        do(master, CreateToken("t"))
        replica.cluster.join(master.cluster.cluster_key())
        answer = ask(master, replica, "GET", "snapshot")
        replica.cluster.load(answer.body)
        yield master, replica


def ask(receiver, sender, method, path, body=b"", /, *, key=KEY, endpoints=None, **parts):
    fields = {
        "method": method, "path": PATH_PREFIX + path, "sender": sender.cluster.node_uid,
        "receiver": receiver.cluster.node_uid, "epoch": 1, "from_seq": 0, "to_seq": 0, "time": int(clock.wall_s()),
        "nonce": new_nonce(),
    }  # fmt: skip
    one = Envelope(**fields | parts)
    return (endpoints or Endpoints(receiver, KEY)).handle(method, one.path, one.headers(key, body), body)


def push(receiver, sender, after, /, **parts):
    batch = sender.changes.batch(after)
    signed = {"epoch": batch.epoch.number, "from_seq": batch.from_seq, "to_seq": batch.to_seq}
    return ask(receiver, sender, "POST", "batch", encode(batch), **signed | parts)


def refused(answer):
    return answer.status, read_refusal(b"".join(answer.body)).code


def test_batch_is_applied_and_answered_with_where_the_node_stands(nodes):
    master, replica = nodes
    do(master, CreateToken("u"))
    for _ in range(2):                   # the second is a duplicate
        answer = push(replica, master, 1)
        assert answer.status == 200
        standing = master.cluster.standing()
        found = decode_answer(b"".join(answer.body))
        assert (found.applied_seq, found.digest) == (2, standing.digest)
    assert replica.tokens.select() == master.tokens.select()


def test_batch_behind_a_gap_is_refused_and_the_log_brings_it(nodes):
    master, replica = nodes
    for name in "uv":
        do(master, CreateToken(name))
    assert refused(push(replica, master, 2)) == (409, "SPK-CLUSTER-GAP")
    answer = ask(master, replica, "GET", "log?after=1")
    replica.changes.apply(decode_batch(b"".join(answer.body)))
    assert replica.tokens.select() == master.tokens.select()


def test_batch_of_a_deposed_master_is_told_the_highest_epoch(nodes):
    master, replica = nodes
    replica.cluster.promote(Epoch(2, replica.cluster.node_uid))
    do(master, CreateToken("u"))
    answer = push(replica, master, 1)
    refusal = read_refusal(b"".join(answer.body))
    assert (answer.status, refusal.code) == (409, "SPK-CLUSTER-EPOCH")
    master.cluster.note_epoch(Epoch(refusal.epoch, refusal.owner))
    assert not master.cluster.may_write()


@pytest.mark.parametrize(("parts", "code"), [
    ({"key": b"other"}, "SPK-CLUSTER-SIGNATURE"), ({"receiver": "f" * 32}, "SPK-CLUSTER-SIGNATURE"),
    ({"to_seq": 9}, "SPK-CLUSTER-SIGNATURE"), ({"epoch": 9}, "SPK-CLUSTER-SIGNATURE"),
    ({"sender": "f" * 32}, "SPK-CLUSTER-SIGNATURE"), ({"time": 1}, "SPK-CLUSTER-CLOCK"),
])  # fmt: skip
def test_batch_that_is_not_authentic_changes_nothing(nodes, parts, code):
    master, replica = nodes
    do(master, CreateToken("u"))
    assert refused(push(replica, master, 1, **parts)) == (401, code)
    assert replica.changes.position()[1] == 1


def test_request_that_comes_twice_is_refused(nodes):
    master, replica = nodes
    endpoints = Endpoints(master, KEY)
    assert ask(master, replica, "GET", "log?after=1", endpoints=endpoints, nonce="n").status == 200
    assert refused(ask(master, replica, "GET", "log?after=1", endpoints=endpoints, nonce="n")) == (
        401, "SPK-CLUSTER-REPLAY"
    )


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "log", 400), ("GET", "log?after=", 400), ("GET", "log?after=-1", 400), ("GET", "log?after=1&after=1", 400),
    ("GET", "log?after=7", 409), ("GET", "batch", 404), ("POST", "log?after=1", 404), ("GET", "../x", 404),
    ("POST", "batch", 400),
])  # fmt: skip
def test_request_that_makes_no_sense_is_refused(nodes, method, path, status):
    master, replica = nodes
    answer = ask(master, replica, method, path)
    assert answer.status == status
    assert msgspec.json.decode(b"".join(answer.body))["code"].startswith("SPK-")


@pytest.mark.parametrize("path", ["log?after=0", "snapshot"])
def test_replica_gives_neither_log_nor_snapshot(nodes, path):
    master, replica = nodes
    assert refused(ask(replica, master, "GET", path)) == (503, "SPK-REPLICA")


def test_request_without_signature_is_refused(nodes):
    assert Endpoints(nodes[0], KEY).handle("GET", PATH_PREFIX + "snapshot", {}, b"").status == 400
