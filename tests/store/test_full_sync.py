"""Snapshots out of a store and into another one."""

import threading

import pytest

from spokes.errors import ReplicaError, SignatureError, SnapshotError, StaleEpochError, StoreError
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel, DeleteTunnel
from spokes.model.users import CreateUser, DeleteUser
from spokes.store import PresenceUpdate, TunnelState
from spokes.store.digests import ensure_digest
from tests.support.cluster_invariants import rows_of
from tests.support.operations import do
from tests.support.stores import DOMAIN, fill
from tests.support.threads import join_thread


@pytest.fixture
def pair(cluster_stores):
    master, replica, _ = cluster_stores
    fill(master)
    replica.cluster.join(master.cluster.cluster_key())
    return master, replica


def load(master, replica):
    return replica.cluster.load(list(master.cluster.export()))


def state(store):
    return store.cluster.standing(), sorted(rows_of(store)), store.changes.after(0), store.changes.cursor()


def test_load_gives_the_rows_and_the_place(pair):
    master, replica = pair
    loaded = load(master, replica)
    assert sorted(rows_of(replica)) == sorted(rows_of(master))
    assert loaded.position == replica.cluster.standing().position == master.cluster.standing().position
    assert loaded.put_count == len(rows_of(master))
    assert replica.cluster.is_digest_right()
    assert replica._db.query("SELECT kind, uid, seq FROM tombstone ORDER BY uid") == master._db.query(
        "SELECT kind, uid, seq FROM tombstone ORDER BY uid"
    )
    for table in ("former_hostname", "domain_proof"):
        rows = replica._db.query(f"SELECT * FROM {table}")
        assert rows == master._db.query(f"SELECT * FROM {table}") != []


def test_load_again_touches_nothing_and_keeps_what_was_seen(pair):
    master, replica = pair
    load(master, replica)
    tunnel, = replica.tunnels.select()
    replica.presence.write([
        PresenceUpdate(tunnel_uid=tunnel.uid, state=TunnelState.ONLINE, last_active=7.0, address="198.51.100.7")
    ])
    loaded = load(master, replica)
    assert (loaded.put_count, loaded.deleted_count) == (0, 0)
    do(master, PutSites(tunnel.uid, [{"domain": "new.example.org"}]))
    assert load(master, replica).put_count == 1
    assert replica.tunnels.get(tunnel.uid).address == "198.51.100.7"


def test_load_unique_names_that_changed_hands_fit(pair):
    master, replica = pair
    tunnels = [do(master, CreateTunnel(name=name, hostname=f"{name}.{DOMAIN}", domain=DOMAIN))[0] for name in "xy"]
    ports = [do(master, AllocatePort(tunnel.uid, 23000, 23001)) for tunnel in tunnels]
    users = [do(master, CreateUser(fullname=name, email=f"{name}@example.com")) for name in "xy"]
    load(master, replica)
    for tunnel, port in zip(tunnels, ports, strict=True):
        do(master, ReleasePort(tunnel.uid, port))
    for tunnel, port in zip(tunnels, reversed(ports), strict=True):
        do(master, AllocatePort(tunnel.uid, port, port))
    with master._db.write():             # rows that keep their ids and exchange names, as no operation does it
        for table, column, rows in (("user", "email", users), ("tunnel", "hostname", tunnels)):
            one, two = (getattr(row, column) for row in rows)
            for name, row in (("aside", rows[0]), (one, rows[1]), (two, rows[0])):
                key = ", email_key = {}" if table == "user" else ""
                values = (name, name) if key else (name,)
                master._db.query(f'UPDATE "{table}" SET {column} = {{}}{key} WHERE uid = {{}}', (*values, row.uid))
        master._db.query("UPDATE position SET digest = ''")
    ensure_digest(master._db, master.secrets.digest_key)
    do(master, CreateToken("further on"))
    load(master, replica)
    assert sorted(rows_of(replica)) == sorted(rows_of(master))


def test_load_takes_away_what_is_not_there(pair):
    master, replica = pair
    load(master, replica)
    for tunnel in master.tunnels.select():
        do(master, DeleteTunnel(tunnel.uid))
    for user in master.users.select():
        do(master, DeleteUser(user.uid))
    assert load(master, replica).deleted_count > 0
    assert sorted(rows_of(replica)) == sorted(rows_of(master))


def test_load_what_a_node_held_before_joining_is_set_aside(cluster_stores):
    master, other, _ = cluster_stores
    fill(master)
    own = do(other, CreateToken("own"))
    other.cluster.join(master.cluster.cluster_key())
    with pytest.raises(ReplicaError):
        do(other, CreateToken("not here"))
    assert load(master, other).quarantined_count == 1        # the changes alone: rows go with them
    (_, change), = other.cluster.quarantine()
    assert (change.uid, change.body["description"]) == (own.uid, "own")
    assert sorted(rows_of(other)) == sorted(rows_of(master))


def test_load_while_the_log_moves_on_is_of_one_moment_and_the_tail_follows(pair, monkeypatch):
    master, replica = pair
    monkeypatch.setattr("spokes.cluster.snapshot.CHUNK_BYTES", 100)
    stream = master.cluster.export()
    chunks = [next(stream)]
    writer = threading.Thread(target=do, args=(master, CreateToken("meanwhile")), daemon=True)
    writer.start()
    join_thread(writer)
    chunks += stream
    before = rows_of(master)
    replica.cluster.load(chunks)
    assert [change.body["description"] for change in master.changes.after(replica.changes.position()[1])] == [
        "meanwhile"
    ]
    replica.changes.apply(master.changes.batch(replica.changes.position()[1]))
    assert sorted(rows_of(replica)) == sorted(before)


def test_load_older_or_foreign_snapshot_refused(pair, cluster_stores):
    master, replica = pair
    old = list(master.cluster.export())
    do(master, CreateToken("t"))
    load(master, replica)
    before = state(replica)
    with pytest.raises(SnapshotError, match="older"):
        replica.cluster.load(old)
    foreign = cluster_stores[2]
    with pytest.raises(SnapshotError):
        replica.cluster.load(foreign.cluster.export())
    with pytest.raises(SignatureError, match="does not own"):
        replica.cluster.load(replica.cluster.export())
    assert state(replica) == before


def test_load_of_a_deposed_master_refused(pair):
    master, replica = pair
    load(master, replica)
    standing = replica.cluster.standing()
    replica.cluster.promote(standing.highest._replace(number=2, owner=standing.node))
    with pytest.raises(StaleEpochError):
        load(master, replica)


def test_load_cut_anywhere_leaves_everything_as_it_was(pair):
    master, replica = pair
    load(master, replica)
    do(master, CreateToken("t"))
    data = b"".join(master.cluster.export())
    before = state(replica)
    for end in range(0, len(data), max(1, len(data) // 40)):
        with pytest.raises(SnapshotError):
            replica.cluster.load([data[:end]])
    assert state(replica) == before
    replica.cluster.load([data])


def test_load_on_a_disk_that_is_full_leaves_everything_as_it_was(pair):
    master, replica = pair
    load(master, replica)
    if not replica._db.is_sqlite:
        return                           # PostgreSQL's disk is not ours to fill; its transaction is undone alike
    tunnel, = master.tunnels.select()
    rules = [{"domain": f"s{number}.example.org", "x": "x" * 3_000} for number in range(250)]
    do(master, PutSites(tunnel.uid, rules))
    before = state(replica)
    ((page_count,),) = replica._db.query("PRAGMA page_count")
    replica._db.query(f"PRAGMA max_page_count = {page_count + 20}")
    with pytest.raises(StoreError):
        load(master, replica)
    assert state(replica) == before
    replica._db.query("PRAGMA max_page_count = 1000000")
    load(master, replica)
    assert sorted(rows_of(replica)) == sorted(rows_of(master))


def test_load_that_fails_at_its_end_leaves_everything_as_it_was(pair, monkeypatch):
    master, replica = pair
    load(master, replica)
    do(master, CreateToken("t"))
    before = state(replica)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("spokes.store.full_sync._Load._finish", fail)
        with pytest.raises(SnapshotError, match="No space"):
            load(master, replica)
    assert state(replica) == before
