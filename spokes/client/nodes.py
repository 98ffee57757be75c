"""Which nodes of the server have a session: all of them (active-active), or one at a time (master-only).

Master-only: the node of the lowest priority number serves; among equals chance decides by weight, once. When it is
lost, or takes too long, the next one serves at once, and the nodes before that one are watched (node.py). One that has
been watched without a break for RETURN_STABLE_S serves again: its session begins before the other one is drained.
A node that DNS names no more keeps its session until one that is named is on-line, and is drained then.
Owns: the nodes, their tasks under the supervisor.
Bound: as many nodes as the list has, and those that are being drained.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence

from spokes.client.config import ACTIVE_ACTIVE, MASTER_ONLY
from spokes.client.node import Node, Wanted
from spokes.client.node_list import NodeAddress
from spokes.client.tasks import Tasks
from spokes.supervisor import Supervisor

log = logging.getLogger(__name__)

RETURN_STABLE_S = 10.0  # a node that comes and goes must not take the traffic with it
FAILOVER_PATIENCE_S = 3.0  # with a node that neither takes a session nor refuses one

NodeKey = tuple[str, int]


class Nodes:
    def __init__(
        self,
        make: Callable[[NodeAddress], Node],
        end: Callable[[Node], None],
        *,
        supervisor: Supervisor,
        tasks: Tasks,
        mode: str = ACTIVE_ACTIVE,
        task_name: Callable[[NodeAddress], str],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`end` hears of a node whose session and task are over."""
        self.mode = mode
        self._make = make
        self._end = end
        self._supervisor = supervisor
        self._tasks = tasks
        self._task_name = task_name
        self._chance = chance
        self._listed: dict[NodeKey, Node] = {}  # in the order of the list
        self._leaving: dict[NodeKey, Node] = {}
        self._places: dict[NodeKey, float] = {}  # among nodes of one priority, in mode master-only
        self._returning: Node | None = None  # was watched for long enough: serves as soon as it has a session
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Node]:
        """Those of the list in its order, then those that leave."""
        return iter((*self._listed.values(), *self._leaving.values()))

    @property
    def listed(self) -> Sequence[Node]:
        return tuple(self._listed.values())

    def take_list(self, addresses: Sequence[NodeAddress]) -> None:
        """These nodes from now on."""
        before = self._listed | self._leaving
        self._listed = {}
        for address in addresses:
            node = before.pop(address.key, None)
            if node is None:
                node = self._make(address)
                # Weighted sampling (A-Res, Efraimidis and Spirakis): twice the weight, first twice as often.
                self._places[address.key] = -(self._chance() ** (1 / max(address.weight, 0.01)))
                self._supervisor.keep(self._task_name(address), node.run)
            node.address, node.duplicate_of = address, ""
            self._listed[address.key] = node
        self._leaving = before
        self._places = {key: place for key, place in self._places.items() if key in self._listed}
        self.choose()

    def use_mode(self, mode: str) -> None:
        self.mode = mode
        self.choose()

    def choose(self) -> None:
        """Called at every change of a node's state. Returns at once."""
        if self.mode == MASTER_ONLY:
            self._choose_one()
        else:
            for node in self._listed.values():
                node.want(Wanted.NOTHING if node.duplicate_of else Wanted.SERVE)
        is_served = any(node.is_online for node in self._listed.values())
        for key, node in list(self._leaving.items()):
            if is_served or not node.open_links():
                del self._leaving[key]
                self._part_with(node)

    def part_with_leaving(self) -> None:
        """At once, although nobody of the list serves yet."""
        leaving, self._leaving = self._leaving, {}
        for node in leaving.values():
            self._part_with(node)

    def replace(self, addresses: Sequence[NodeAddress]) -> None:
        """Another server: the sessions at this one end at once."""
        for node in (*self._listed.values(), *self._leaving.values()):
            node.close()
            self._part_with(node)
        self._listed, self._leaving = {}, {}
        self.take_list(addresses)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _part_with(self, node: Node) -> None:
        log.info("node left", extra={"node": str(node)})
        node.want(Wanted.NOTHING)
        self._supervisor.drop(self._task_name(node.address))
        self._tasks.spawn(self._see_off(node))

    async def _see_off(self, node: Node) -> None:
        if node.open_links():
            await node.leave()
        self._end(node)

    # master-only

    def _order(self) -> list[Node]:
        usable = [node for node in self._listed.values() if not node.duplicate_of]
        return sorted(usable, key=lambda node: (node.address.priority, self._places[node.address.key]))

    def _choose_one(self) -> None:
        order = self._order()
        serving = next((node for node in order if node.is_online), None)
        if serving is None:
            self._fail_over(order)
        else:
            self._hold(order, serving)

    def _hold(self, order: list[Node], serving: Node) -> None:
        """`serving` serves; nodes before it are watched, and may take over; those behind it have nothing to do."""
        at = order.index(serving)
        serving.want(Wanted.SERVE)
        for node in order[at + 1 :]:
            node.want(Wanted.NOTHING)
        if self._returning is serving or (self._returning is not None and self._returning.state == "waiting"):
            self._returning = None
        for node in order[:at]:
            if node is self._returning:
                continue
            node.want(Wanted.WATCH)
            if node.state == "watched" and self._returning is None:
                left_s = node.since + RETURN_STABLE_S - time.monotonic()
                if left_s <= 0:
                    log.info("node serves again", extra={"node": str(node)})
                    self._returning = node
                    node.want(Wanted.SERVE)
                else:
                    self._choose_in(left_s)

    def _fail_over(self, order: list[Node]) -> None:
        """Nobody serves: a node that is known to answer, else the next one that was not tried yet."""
        self._returning = None
        watched = next((node for node in order if node.state == "watched"), None)
        if watched is not None:
            watched.want(Wanted.SERVE)
            self._choose_in(FAILOVER_PATIENCE_S)
            return
        tried = [node for node in order if node.wanted is not Wanted.NOTHING]
        for node in tried:
            if node.wanted is Wanted.SERVE and node.state in ("idle", "connecting"):
                left_s = node.since + FAILOVER_PATIENCE_S - time.monotonic()
                if left_s > 0:
                    self._choose_in(left_s)
                    return
        untried = next((node for node in order if node.wanted is Wanted.NOTHING), None)
        if untried is not None:
            untried.want(Wanted.SERVE)
            self._choose_in(FAILOVER_PATIENCE_S)

    def _choose_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if loop.time() < self._timer.when() <= loop.time() + wait_s and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = loop.call_later(max(wait_s, 0.001), self.choose)
