"""The nodes of a cluster in the order that DNS gives: SRV records of `_spokes._tcp.<cluster>` made into a list.

Bound: NODE_COUNT_MAX nodes, those of the lowest priority numbers.
Fails: it cannot; what is wrong with the records is said in `problem`, and what is right in them counts.
Source: RFC 2782.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from spokes.client.config import join_host_port
from spokes.resolver import ServiceAnswer

NODE_COUNT_MAX = 16
SRV_PREFIX = "_spokes._tcp."


class NodeAddress(NamedTuple):
    """Where a node is dialled, and when: the lowest priority first, among equals more weight more often."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """What makes it this node and no other."""
        return self.host, self.port

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class NodeList:
    """`nodes` in the order of their priorities; `problem` in words, "" where nothing is wrong."""

    nodes: tuple[NodeAddress, ...]
    problem: str = ""


def read_records(host: str, port: int, answer: ServiceAnswer) -> NodeList:
    """The nodes of the cluster `host`. No records: the name alone is the server, at `port`."""
    name = SRV_PREFIX + host
    if answer.is_unavailable:
        return NodeList((), f"{name} SRV has the target \".\": there is no server for this name")
    if not answer.records:
        return NodeList((NodeAddress(host, port),))
    found: dict[tuple[str, int], NodeAddress] = {}
    problems = []
    for record in sorted(answer.records, key=lambda one: (one.priority, -one.weight, one.host, one.port)):
        node = NodeAddress(record.host.lower(), record.port, record.priority, record.weight)
        if not node.port:
            problems.append(f"{name} SRV has port 0 for {node.host}")
        elif node.host == host.lower() and len(answer.records) > 1:
            # Its addresses are those of all nodes: a session there would meet, and end, that of another record.
            problems.append(f"{name} SRV names the cluster itself beside its nodes")
        else:
            found.setdefault(node.key, node)
    if len(found) > NODE_COUNT_MAX:
        problems.append(f"{name} SRV has {len(found)} nodes; the first {NODE_COUNT_MAX} count")
    return NodeList(tuple(found.values())[:NODE_COUNT_MAX], "; ".join(problems))
