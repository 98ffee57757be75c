"""All other nodes: who keeps links to whom, who is on-line where, and which way visitors go.

Owns: a Peer for each other node of the cluster's list, the table of presence, and the way (`set_via`) of every tunnel
that is on-line elsewhere. Of two nodes the one with the lower UID dials.
Bound: the list of nodes; for each node what its peer and the table are bound to.
Fails: a node that is not in the list, or does not show its key, is refused; nothing else is touched.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator

import spokes
from spokes._fastpath.engine import Engine, Event, EventKind
from spokes.config_values import Address
from spokes.errors import NodeError, UnreachableError
from spokes.server.nodes.node_key import NodeKey, is_signed
from spokes.server.nodes.peer import Here, NodeInfo, Peer
from spokes.server.nodes.presence_table import PresenceTable
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.link import Link
from spokes.server.sessions.registry import Registry, Session
from spokes.wire.handshake import ClientHandshake
from spokes.wire.messages import PRESENCE_COUNT_MAX, Agent, Linked, Node, OnlineTunnel, Presence

log = logging.getLogger(__name__)

DIAL_DEADLINE_S = 12.0  # the engine's own deadline comes first
RTT_CLASS_MS = 5.0  # nodes that differ by less are as near as each other


class Nodes:
    """Of this server; without other nodes it does nothing."""

    def __init__(
        self,
        *,
        engine: Engine,
        registry: Registry,
        routes: RouteTable,
        key: NodeKey,
        uid: str,
        domain: str,
        resolve: Callable[[str], Awaitable[tuple[str, ...]]],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._routes = routes
        self._domain = domain
        self._resolve = resolve
        self._here = Here(
            uid=uid,
            incarnation=secrets.token_hex(8),
            workers=engine.worker_count,
            sign=key.sign,
            agent=Agent(version=spokes.__version__),
        )
        self.presence = PresenceTable()
        self._peers: dict[str, Peer] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._dialled: dict[int, Link] = {}
        self._dialling: dict[int, asyncio.Future[Link]] = {}
        self._led: set[str] = set()  # tunnels that have a way to another node
        self._changed: set[str] = set()  # tunnels of ours whose links changed in this turn of the loop
        registry.on_change = self._local_changed
        routes.on_tunnel = self._lead

    @property
    def peers(self) -> list[Peer]:
        return list(self._peers.values())

    def set_peers(self, infos: Iterable[NodeInfo]) -> None:
        """The other nodes of the cluster from now on; one that changed is left and met again."""
        wanted = {info.uid: info for info in infos if info.uid != self._here.uid}
        for uid, peer in list(self._peers.items()):
            if wanted.get(uid) != peer.info:
                self._leave(uid, peer)
        for uid, info in wanted.items():
            if uid not in self._peers:
                self._meet(info)

    def close(self) -> None:
        for uid, peer in list(self._peers.items()):
            self._leave(uid, peer)

    # events of links that were dialled here

    def on_event(self, event: Event) -> bool:
        """False: the link is none of ours."""
        dialling = self._dialling.get(event.link)
        link = self._dialled.get(event.link)
        if dialling is None and link is None:
            return False
        match event.kind:
            case EventKind.LINK_UP if dialling is not None:
                link = Link(self._engine, event.link, event.data.decode("ascii", "replace"), ClientHandshake())
                self._dialled[event.link] = link
                del self._dialling[event.link]
                if not dialling.done():
                    dialling.set_result(link)
            case EventKind.LINK_DOWN:
                self._dialled.pop(event.link, None)
                self._dialling.pop(event.link, None)
                if link is not None:
                    link.end()
                elif dialling is not None and not dialling.done():
                    words = event.data.decode("ascii", "replace")
                    dialling.set_exception(UnreachableError(f"no link to the node: {words}"))
            case EventKind.CONTROL if link is not None:
                link.feed(event.data, event.code)
            case EventKind.PONG if link is not None:
                link.take_pong()
        return True

    async def _dial(self, where: Address, pin_sha256: bytes, *, worker: int, peer_worker: int) -> Link:
        link_id = self._engine.connect_link(
            where.host,
            where.port,
            server_name=self._domain,
            pin_sha256=pin_sha256,
            worker=worker,
            peer_worker=peer_worker,
        )
        up: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._dialling[link_id] = up
        try:
            async with asyncio.timeout(DIAL_DEADLINE_S):
                return await up
        except BaseException:
            self._engine.abort_link(link_id)
            raise

    # links that arrived

    async def accept(self, link: Link, request: Node) -> None:
        """A link whose peer says that it is a node, until it is over."""
        peer = self._peers.get(request.node)
        if peer is None:
            raise NodeError("this node is in no list here", hint="add it at the master, or wait for the list to arrive")
        if not is_signed(peer.info.public_key, request.signature, link.nonce, request.node, self._here.uid):
            raise NodeError("this is not the key of that node", hint="join it to the cluster again")
        worker = (link.id >> 56) - 1
        link.send(Linked(
            node=self._here.uid, incarnation=self._here.incarnation, worker=worker, workers=self._here.workers
        ))
        await peer.serve(link, request.workers, request.worker, request.incarnation, primary=request.primary)

    # peers

    def _meet(self, info: NodeInfo) -> None:
        peer = Peer(
            info,
            engine=self._engine,
            here=self._here,
            dial=self._dial,
            resolve=self._resolve,
            whole_set=self._whole_set,
            on_presence=self._take,
            on_begin=self._begin,
            on_change=self._peer_changed,
        )
        self._peers[info.uid] = peer
        if self._here.uid < info.uid:
            self._running[info.uid] = asyncio.get_running_loop().create_task(peer.run(), name=f"node {info.hostname}")

    def _leave(self, uid: str, peer: Peer) -> None:
        task = self._running.pop(uid, None)
        if task is not None:
            task.cancel()
        del self._peers[uid]
        self._lead_all(self.presence.drop(uid))
        peer.close()

    def _begin(self, peer: Peer, incarnation: str) -> None:
        self._lead_all(self.presence.begin(peer.info.uid, incarnation))

    def _take(self, peer: Peer, told: Presence) -> None:
        self._lead_all(self.presence.take(peer.info.uid, told))

    def _peer_changed(self, peer: Peer) -> None:
        """Its presence goes with its last link."""
        if not peer.is_connected and self._peers.get(peer.info.uid) is peer:
            self._lead_all(self.presence.drop(peer.info.uid))

    # the way of visitors

    def _lead_all(self, tunnels: Iterable[str]) -> None:
        for tunnel in tunnels:
            self._lead(tunnel)

    def _lead(self, tunnel: str) -> None:
        """Its visitors go to the nearest node that has it; also once its slot is open."""
        slot = self._routes.slot(tunnel)
        if slot is None:
            self._led.discard(tunnel)
            return
        best: tuple[float, str] | None = None
        for uid in self.presence.where(tunnel):
            peer = self._peers.get(uid)
            if peer is not None and peer.is_connected:
                rank = (peer.rtt_ms // RTT_CLASS_MS, uid)
                best = rank if best is None else min(best, rank)
        if best is not None:
            uid = best[1]
            workers = self.presence.where(tunnel)[uid].workers
            if workers:
                self._engine.set_via(slot, self._peers[uid].number, workers)
                self._led.add(tunnel)
                return
        if tunnel in self._led:
            self._engine.set_via(slot)
            self._led.discard(tunnel)

    # who is on-line here

    def _local_changed(self, tunnel: str) -> None:
        if not self._peers:
            return
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._tell_changes)
        self._changed.add(tunnel)

    def _tell_changes(self) -> None:
        """One difference for all that changed in a turn of the loop."""
        changed, self._changed = sorted(self._changed), set()
        for start in range(0, len(changed), PRESENCE_COUNT_MAX):
            online, offline = [], []
            for tunnel in changed[start:start + PRESENCE_COUNT_MAX]:
                session = self._registry.get(tunnel)
                if session is None:
                    offline.append(tunnel)
                else:
                    online.append(_online(session))
            told = Presence(online=tuple(online), offline=tuple(offline))
            for peer in self._peers.values():
                peer.tell(told)

    def _whole_set(self) -> Iterator[Presence]:
        sessions = self._registry.sessions()
        for start in range(0, max(1, len(sessions)), PRESENCE_COUNT_MAX):
            part = sessions[start:start + PRESENCE_COUNT_MAX]
            more = start + PRESENCE_COUNT_MAX < len(sessions)
            yield Presence(online=tuple(_online(session) for session in part), whole=True, more=more)


def _online(session: Session) -> OnlineTunnel:
    workers = 0
    for link in session.links:
        workers |= 1 << ((link >> 56) - 1)
    return OnlineTunnel(tunnel=session.tunnel_uid, session=session.id, workers=workers)
