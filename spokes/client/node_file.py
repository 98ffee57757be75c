"""The last good list of a cluster's nodes on disk, for a start while DNS is down: `<configuration>.nodes`, mode 0600.

Beside each node stand the addresses that its name had when it last took a session.
Fails: a folder that cannot be written costs a warning, once; a file that cannot be read, or is of another cluster,
counts as none.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spokes.client.node_list import NODE_COUNT_MAX, NodeAddress
from spokes.file_edit import write_file
from spokes.resolver import literal_addresses

log = logging.getLogger(__name__)

FILE_BYTES_MAX = 64 * 1024
ADDRESS_COUNT_MAX = 16  # of one node


class NodeFile:
    """Of one configuration."""

    def __init__(self, config_path: Path, *, read_only: bool = False) -> None:
        """`read_only`: for a command, which may run beside a client."""
        self.path = config_path.with_name(config_path.name + ".nodes")
        self.addresses: dict[str, list[str]] = {}  # by the host name of a node
        self._read_only = read_only
        self._cluster = ""
        self._nodes: tuple[NodeAddress, ...] = ()
        self._written: Any = None
        self._warned = False

    def read(self, cluster: str) -> tuple[NodeAddress, ...]:
        """The nodes of this cluster as they were last known; () for none."""
        self._cluster, self._nodes, self.addresses = cluster, (), {}
        try:
            with self.path.open("rb") as file:
                document = json.loads(file.read(FILE_BYTES_MAX))
            if document["cluster"] != cluster:
                return ()
            for one in document["nodes"][:NODE_COUNT_MAX]:
                node = NodeAddress(str(one["host"]), int(one["port"]), int(one["priority"]), int(one["weight"]))
                if node.host and 1 <= node.port <= 65535:
                    self._nodes += (node,)
                    addresses = [str(text) for text in one.get("addresses") or () if literal_addresses(str(text))]
                    self.addresses[node.host] = addresses[:ADDRESS_COUNT_MAX]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._nodes, self.addresses = (), {}
        return self._nodes

    def write(self, nodes: Sequence[NodeAddress]) -> None:
        """These are the nodes of the cluster that was read."""
        self._nodes = tuple(nodes)
        hosts = {node.host for node in nodes}
        self.addresses = {host: found for host, found in self.addresses.items() if host in hosts}
        self._write()

    def note_addresses(self, host: str, addresses: Sequence[str]) -> None:
        """Of a node that has taken a session."""
        if any(node.host == host for node in self._nodes):
            self.addresses[host] = sorted(addresses)[:ADDRESS_COUNT_MAX]
            self._write()

    def remove(self) -> None:
        """The name is a single server's."""
        self._nodes, self.addresses, self._written = (), {}, None
        if not self._read_only:
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _write(self) -> None:
        nodes = [{**node._asdict(), "addresses": self.addresses.get(node.host, [])} for node in self._nodes]
        document = {"cluster": self._cluster, "nodes": nodes}
        if self._read_only or document == self._written:
            return
        try:
            write_file(self.path, json.dumps(document, indent=2).encode() + b"\n")
        except OSError as error:
            if not self._warned:
                self._warned = True
                reason = error.strerror or str(error)
                log.warning(
                    "list of nodes not saved",
                    extra={"path": str(self.path), "reason": reason, "lost": "a start while DNS is down"},
                )
            return
        self._written, self._warned = document, False
