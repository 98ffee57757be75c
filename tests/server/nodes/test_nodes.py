"""Nodes on real engines: they meet, know each other by their keys, tell who is on-line, and take visitors there."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from spokes._fastpath.engine import Engine, Event, EventKind, ListenerKind, RouteKind, Site
from spokes.errors import SpokesError
from spokes.server.base.events import EventPump
from spokes.server.nodes.node_key import NodeKey, load_node_key
from spokes.server.nodes.nodes import Nodes
from spokes.server.nodes.peer import NodeInfo, Peer, PeerState
from spokes.server.routing.routes import RouteTable
from spokes.server.sessions.link import Link
from spokes.server.sessions.registry import Registry
from spokes.server.sessions.unauthenticated import UnauthenticatedLinks
from spokes.wire.messages import Agent, Node
from tests.support.engines import CHAIN_PEM, DOMAIN, KEY_PEM, PIN, listening, terminate
from tests.support.eventually import eventually
from tests.support.http_wire import ScriptedUpstream, Wire, request, response, serving

TUNNEL = "7" * 32


class Server:
    """As much of a server as nodes need: an engine, a registry, routes, and links that say hello."""

    def __init__(self, uid: str, key: NodeKey, workers: int) -> None:
        self.uid, self.key = uid, key
        self.engine = Engine(workers=workers, memory_limit_bytes=64 << 20, accepting=True)
        self.engine.set_link_certificate(terminate(self.engine, [DOMAIN, f"*.{DOMAIN}"], CHAIN_PEM, KEY_PEM))
        self.engine.start()
        self.tls_port, self.http_port = self._listen(ListenerKind.TLS), self._listen(ListenerKind.HTTP)
        self.registry = Registry(8)
        self.routes = RouteTable(self.engine, DOMAIN)
        self.nodes = Nodes(
            engine=self.engine, registry=self.registry, routes=self.routes, key=key, uid=uid, domain=DOMAIN,
            resolve=self._resolve,
        )
        self.meeting = UnauthenticatedLinks(DOMAIN)
        self.links: dict[int, Link] = {}
        self.refused: list[str] = []
        self.failed: list[Exception] = []
        self.pump = EventPump(self.engine, self._on_event, on_failed=self.failed.append)
        self.pump.start()

    def _listen(self, kind: ListenerKind) -> int:
        first = listening()
        port: int = first.getsockname()[1]
        for worker in range(self.engine.worker_count):
            sock = first if worker == 0 else listening(port=port)
            self.engine.add_listener(kind, sock.detach(), worker=worker, port=port)
        return port

    async def _resolve(self, host: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    def info(self) -> NodeInfo:
        return NodeInfo(self.uid, f"{self.uid[0]}.{DOMAIN}", self.tls_port, self.key.public, PIN)

    def peer(self, other: Server) -> Peer:
        (found,) = [peer for peer in self.nodes.peers if peer.info.uid == other.uid]
        return found

    def _on_event(self, event: Event) -> None:
        if self.nodes.on_event(event):
            return
        link = self.links.get(event.link)
        if event.kind == EventKind.LINK_UP:
            link = self.links[event.link] = Link(self.engine, event.link, event.data.decode())
            link.task = asyncio.get_running_loop().create_task(self._converse(link))
        elif link is not None and event.kind == EventKind.CONTROL:
            link.feed(event.data, event.code)
        elif link is not None and event.kind == EventKind.PONG:
            link.take_pong()
        elif link is not None and event.kind == EventKind.LINK_DOWN:
            del self.links[event.link]
            assert link.task is not None
            link.task.cancel()

    async def _converse(self, link: Link) -> None:
        try:
            _, asked = await self.meeting.meet(link)
            assert isinstance(asked, Node)
            await self.nodes.accept(link, asked)
        except SpokesError as error:
            self.refused.append(error.code)
            link.send_bye(error, retry=error.retryable)

    def stop(self) -> None:
        self.nodes.close()
        self.pump.stop()
        self.engine.stop()
        assert self.failed == []


@asynccontextmanager
async def servers(tmp_path: Path, count: int = 2, workers: int = 1) -> AsyncIterator[list[Server]]:
    made = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        made.append(Server(f"{number + 1}" * 32, load_node_key(folder), workers))
    try:
        yield made
    finally:
        for server in made:
            server.stop()


def acquaint(made: list[Server]) -> None:
    for server in made:
        server.nodes.set_peers([other.info() for other in made])


def are_connected(made: list[Server]) -> bool:
    return all(
        server.peer(other).state is PeerState.CONNECTED
        and server.peer(other).link_count == server.engine.worker_count * other.engine.worker_count
        for server in made for other in made if other is not server
    )


def on_line(server: Server) -> None:
    server.registry.open(TUNNEL, link=1 << 56 | 5, peer="192.0.2.1 1", agent=Agent())


@pytest.mark.parametrize("workers", [1, 3])
async def test_nodes_meet_and_keep_a_link_from_each_worker_to_each(tmp_path: Path, workers: int) -> None:
    async with servers(tmp_path, 3, workers) as made:
        acquaint(made)
        await eventually(lambda: are_connected(made))
        first, second = made[0].peer(made[1]), made[1].peer(made[0])
        await eventually(lambda: first.rtt_ms > 0 and second.rtt_ms > 0)


async def test_who_is_on_line_is_told_at_once_and_ends_with_the_session(tmp_path: Path) -> None:
    async with servers(tmp_path) as (here, there):
        acquaint([here, there])
        await eventually(lambda: are_connected([here, there]))
        session, _ = there.registry.open(TUNNEL, link=1 << 56 | 5, peer="192.0.2.1 1", agent=Agent())
        await eventually(lambda: here.nodes.presence.where(TUNNEL))
        assert here.nodes.presence.where(TUNNEL)[there.uid].workers == 1
        there.registry.join(session.token, 3 << 56 | 6)
        await eventually(lambda: here.nodes.presence.where(TUNNEL)[there.uid].workers == 0b101)
        there.registry.close(session)
        await eventually(lambda: not here.nodes.presence.where(TUNNEL))


async def test_who_was_on_line_before_is_told_to_a_node_that_comes(tmp_path: Path) -> None:
    async with servers(tmp_path) as (here, there):
        for _ in range(5000):                       # more than one message has
            there.registry.open(secrets.token_hex(16), link=1 << 56 | 5, peer="192.0.2.1 1", agent=Agent())
        acquaint([here, there])
        await eventually(lambda: here.nodes.presence.count(there.uid) == 5000)


async def test_visitors_are_taken_where_the_tunnel_is_in_whatever_order_that_is_known(tmp_path: Path) -> None:
    host = f"t.{DOMAIN}"
    client = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=False)
    client.start()
    try:
        with ScriptedUpstream(serving(lambda wire, _: wire.send(response(b"there")))) as upstream:
            async with servers(tmp_path) as (here, there):
                client.set_route(RouteKind.HTTP, host, Site(upstream=upstream.upstream()))
                client.publish()
                dialled = client.connect_link("127.0.0.1", there.tls_port, server_name=DOMAIN, pin_sha256=PIN)
                await eventually(lambda: there.links)
                (link,) = there.links               # bound by hand: no session loop runs here
                client.bind_link(dialled, client.open_tunnel())
                there.routes.put_tunnel(TUNNEL, host)
                slot = there.routes.slot(TUNNEL)
                assert slot is not None
                there.engine.bind_link(link, slot)
                there.registry.open(TUNNEL, link=link, peer="192.0.2.1 1", agent=Agent())
                acquaint([here, there])
                await eventually(lambda: are_connected([here, there]) and here.nodes.presence.where(TUNNEL))
                here.routes.put_tunnel(TUNNEL, host)    # only now is its slot open: the way is known before it
                for server in (here, there):
                    version = server.engine.publish()
                    await eventually(lambda server=server, version=version: server.engine.version_in_force() >= version)

                def ask() -> bytes:
                    wire = Wire(socket.create_connection(("127.0.0.1", here.http_port), timeout=20))
                    wire.send(request("/", host=host))
                    got = wire.read_response().body
                    wire.close()
                    return got

                assert await asyncio.to_thread(ask) == b"there"
    finally:
        client.stop()


async def test_a_node_that_is_silent_loses_its_links_and_its_presence(tmp_path: Path, monkeypatch) -> None:
    async with servers(tmp_path) as (here, there):
        acquaint([here, there])
        await eventually(lambda: are_connected([here, there]))
        on_line(there)
        await eventually(lambda: here.nodes.presence.where(TUNNEL))
        monkeypatch.setattr(Link, "is_there", _never)
        await eventually(lambda: not here.nodes.presence.where(TUNNEL))
        monkeypatch.undo()
        await eventually(lambda: are_connected([here, there]) and here.nodes.presence.where(TUNNEL))


async def _never(_link: Link, _within_s: float) -> bool:
    return False


async def test_who_is_in_no_list_and_who_shows_another_key_is_refused(tmp_path: Path) -> None:
    async with servers(tmp_path) as (here, there):
        here.nodes.set_peers([there.info()])        # the other does not know us
        await eventually(lambda: there.refused)
        assert there.refused[0] == "SPK-NODE"
        await eventually(lambda: "SPK-NODE" in here.peer(there).error)
        assert here.peer(there).state is PeerState.UNREACHABLE
        (tmp_path / "forged").mkdir()
        forged = load_node_key(tmp_path / "forged")
        there.refused.clear()
        there.nodes.set_peers([NodeInfo(here.uid, "1", 1, forged.public, PIN)])
        await eventually(lambda: there.refused)
        assert not there.peer(here).is_connected


async def test_a_server_whose_key_is_not_the_pinned_one_is_told_nothing(tmp_path: Path) -> None:
    async with servers(tmp_path) as (here, there):
        there.nodes.set_peers([here.info()])
        here.nodes.set_peers([NodeInfo(there.uid, "2", there.tls_port, there.key.public, bytes(32))])
        await eventually(lambda: here.peer(there).state is PeerState.UNREACHABLE)
        assert not there.peer(here).is_connected
        assert there.refused == []


async def test_another_node_at_the_host_name_is_found_out(tmp_path: Path) -> None:
    async with servers(tmp_path, 3) as (here, there, other):
        for server in (there, other):
            server.nodes.set_peers([here.info()])
        here.nodes.set_peers([NodeInfo(there.uid, "2", other.tls_port, there.key.public, PIN)])
        # What we sign is for the node that was meant: the other one does not take it for its own.
        await eventually(lambda: "SPK-NODE" in here.peer(there).error)
        assert other.refused[0] == "SPK-NODE"


async def test_a_node_off_the_list_is_left_and_met_again(tmp_path: Path) -> None:
    async with servers(tmp_path) as made:
        here, there = made
        acquaint(made)
        await eventually(lambda: are_connected(made))
        on_line(there)
        await eventually(lambda: here.nodes.presence.where(TUNNEL))
        here.nodes.set_peers([])
        assert here.nodes.presence.where(TUNNEL) == {}
        await eventually(lambda: there.peer(here).link_count == 0)
        acquaint(made)
        await eventually(lambda: are_connected(made) and here.nodes.presence.where(TUNNEL))
