"""Stores as the nodes of a cluster, and a network between them that loses, doubles, reorders, delays and damages.

Everything that happens is drawn from one seed, which a failure names; so a run can be had again.
"""

from __future__ import annotations

import random

from spokes.cluster.batch import decode_batch, encode
from spokes.cluster.standing import Verdict, next_epoch
from spokes.errors import (
    ClusterMessageError,
    DivergedError,
    GapError,
    ReplicaError,
    SealError,
    SignatureError,
    SnapshotError,
    SpokesError,
    StaleEpochError,
)
from spokes.ids import ZERO_UID
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.model.sites import PutSites, RemoveSites
from spokes.model.tokens import CreateToken, DeleteToken, EditToken
from spokes.model.tunnels import AssignTunnel, CreateTunnel, DeleteTunnel, EditTunnel
from spokes.model.users import CreateUser, DeleteUser, EditUser
from tests.support.cluster_invariants import Watch
from tests.support.operations import do

DOMAIN = "tun.example.net"


class Node:
    def __init__(self, name, store):
        self.name = name
        self.store = store
        self.uid = store.cluster.node_uid

    @property
    def seq(self):
        return self.store.cluster.standing().position.seq


class Cluster:
    """Nodes, the first of them master; `step()` lets one thing happen."""

    def __init__(self, stores, seed, *, watch=None):
        self.rng = random.Random(seed)
        self.seed = seed
        self.nodes = [Node(f"node{number}", store) for number, store in enumerate(stores)]
        self.master = self.nodes[0]
        self.watch = watch or Watch()
        self.network = []                # (receiver, bytes): batches under way
        self.events = []                 # what happened, for a failure's message
        self.snapshots = []              # some of before, that may come late
        for node in self.nodes[1:]:
            node.store.cluster.join(self.master.store.cluster.cluster_key())
            self.synchronize(node)

    @property
    def stores(self):
        return [node.store for node in self.nodes]

    def step(self):
        happens = self.rng.choices(
            [self.write, self.send, self.deliver, self.pull, self.promote, self.late_snapshot, self.write_at_replica],
            [8, 8, 14, 4, 0.7, 1, 1],
        )[0]
        self.events.append(happens.__name__)
        happens()
        self.watch.check(self.stores)

    def settle(self):
        """The network is empty, and everybody has caught up."""
        self.network.clear()
        for node in self.nodes:
            self.hear_master(node)
            for _ in range(20):
                if node is not self.master and not self.is_level(node):
                    self.pull(node)
        self.watch.check(self.stores)
        self.watch.check_acknowledged(self.master.store, self.stores)

    def is_level(self, node):
        return node.store.cluster.standing().position == self.master.store.cluster.standing().position

    # --- what may happen -------------------------------------------------------------------------------------------

    def write(self, node=None):
        """At a node that thinks that it is the master: the present one, or one that was not told yet."""
        writers = [one for one in self.nodes if one.store.cluster.may_write()]
        node = node or (self.rng.choice(writers) if writers else self.master)
        before = node.seq
        try:
            self._mutate(node.store)
        except ReplicaError:
            return
        except SpokesError:
            return                       # a name that is taken, and the like
        self.watch.note_commit(node.store, node.uid, before)

    def write_at_replica(self):
        """Refused, and nothing is done."""
        node = self.rng.choice(self.nodes)
        if not node.store.cluster.may_write():
            before = node.store.cluster.standing()
            try:
                do(node.store, CreateToken("at a replica"))
            except ReplicaError:
                assert node.store.cluster.standing() == before
            else:
                self.watch.note_commit(node.store, node.uid, before.position.seq)

    def send(self):
        sender = self.rng.choice([one for one in self.nodes if one.store.cluster.may_write()] or [self.master])
        receiver = self.rng.choice([one for one in self.nodes if one is not sender])
        after = max(0, min(sender.seq, receiver.seq) - self.rng.choice([0, 0, 0, 1, 3]))
        try:
            batch = sender.store.changes.batch(after, self.rng.choice([1, 2, 5, 100]))
        except GapError:
            return
        data = encode(batch)
        assert not any(token.value.encode() in data for token in sender.store.tokens.select())
        self.network.append((receiver, data))
        if self.rng.random() < 0.2:
            self.network.append((receiver, data))

    def deliver(self):
        """One of those that are under way, in no order; or it is lost, cut, or a bit of it is flipped."""
        if not self.network:
            return
        receiver, data = self.network.pop(self.rng.randrange(len(self.network)))
        fate = self.rng.random()
        if fate < 0.1:
            return
        if fate < 0.15:
            data = data[:self.rng.randrange(len(data))]
        elif fate < 0.3:
            damaged = bytearray(data)
            damaged[self.rng.randrange(len(damaged))] ^= 1 << self.rng.randrange(8)
            data = bytes(damaged)
        try:
            self.receive(receiver, decode_batch(data))
        except (ClusterMessageError, SignatureError, DivergedError, SealError, StaleEpochError):
            return
        except SpokesError:
            if fate >= 0.3:              # a damaged batch may be refused with any words
                raise

    def receive(self, receiver, batch):
        applied = receiver.store.changes.apply(batch)
        if applied.verdict is Verdict.SYNCHRONIZE:
            self.synchronize(receiver)

    def hear_master(self, node):
        """A deposed master is told, as by the refusal of what it sends."""
        if node is not self.master:
            node.store.cluster.note_epoch(self.master.store.cluster.standing().position.epoch)

    def pull(self, node=None):
        """A replica asks the master for what it lacks."""
        node = node or self.rng.choice(self.nodes)
        if node is self.master:
            return
        try:
            applied = node.store.changes.apply(self.master.store.changes.batch(node.seq))
        except (GapError, DivergedError):
            self.synchronize(node)
        else:
            if applied.verdict is Verdict.SYNCHRONIZE:
                self.synchronize(node)

    def synchronize(self, node):
        data = b"".join(self.master.store.cluster.export())
        self.snapshots.append((self.master.store.cluster.standing().position, data))
        node.store.cluster.load([data])

    def late_snapshot(self):
        """One of before comes once more: never older than what is there."""
        if self.snapshots:
            position, data = self.rng.choice(self.snapshots)
            node = self.rng.choice(self.nodes)
            before = node.store.cluster.standing()
            if before.position == position or node.store.cluster.may_write():
                return
            try:
                node.store.cluster.load([data])
            except (SnapshotError, StaleEpochError, SignatureError):
                assert node.store.cluster.standing() == before

    def promote(self, node=None, *, forced=False):
        """A replica becomes master; the old one may not hear of it for a while."""
        node = node or self.rng.choice(self.nodes)
        if node is self.master or node.seq == 0:
            return
        standing = node.store.cluster.standing()
        if standing.position.epoch.number == 0:
            return
        peers = {} if self.rng.random() < 0.5 or forced else {
            one.name: (one.store.cluster.standing().position, one.store.cluster.standing().highest)
            for one in self.nodes if one is not node
        }
        try:
            # The arbiter of these runs: no number is taken twice.
            highest = max((one.store.cluster.standing().highest for one in self.nodes), key=lambda epoch: epoch.number)
            epoch = next_epoch(node.uid, standing.position, highest, peers, forced=forced)
        except SpokesError:
            return
        node.store.cluster.promote(epoch)
        self.master = node

    # --- changes ---------------------------------------------------------------------------------------------------

    def _mutate(self, store):
        rng = self.rng
        tunnels, tokens, users = store.tunnels.select(), store.tokens.select(), store.users.select()
        tunnel = rng.choice(tunnels).uid if tunnels else ""
        name = f"n{rng.randrange(6)}"
        operations = [CreateToken(name), CreateUser(fullname=name, email=f"{name}@example.org")]
        operations.append(CreateTunnel(name=name, hostname=f"{name}.{DOMAIN}", domain=DOMAIN))
        if tunnels:
            operations += [
                PutSites(tunnel, [{"domain": f"{name}.example.org", "password": "", "port": rng.randrange(1, 9)}]),
                RemoveSites(tunnel, [f"{name}.example.org"]), AllocatePort(tunnel, 22000, 22004),
                EditTunnel(tunnel, name=name),
                AssignTunnel(uid=tunnel, user_uid=ZERO_UID, name=name, hostname=f"{name}x.{DOMAIN}", domain=DOMAIN),
                DeleteTunnel(tunnel),
            ]
            operations += [ReleasePort(port.tunnel_uid, port.port) for port in store.ports.select()[:1]]
        if tokens:
            token = rng.choice(tokens).uid
            operations += [EditToken(token, name, rng.random() < 0.5), DeleteToken(token)]
        if users:
            user = rng.choice(users).uid
            operations += [EditUser(user, email=f"{name}@example.com"), DeleteUser(user)]
        do(store, rng.choice(operations))
