"""A client, three servers that all know its tunnel, and a name server that lists them.

Until servers share their rows each of them has its own copy of the rows that the first one had, and a link key of its
own: to a client they are the nodes of one cluster.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spokes.client.local_caller import LocalCaller
from tests.support.name_server import NameServer, name_server
from tests.support.ports import free_port_range
from tests.support.processes import Client, Process, ServerProcess, wait_until

ZONE = "client.test"
CLUSTER = f"tun.{ZONE}"


class ClientCluster:
    """`servers` by the name of their node, `client` with a configuration that names the cluster."""

    def __init__(self, directory: Path, names: NameServer, service_port: int) -> None:
        tcp_ports = str(free_port_range(4))
        self.names = names
        self.servers: dict[str, ServerProcess] = {}
        for number in (1, 2, 3):
            folder = directory / f"node{number}"
            folder.mkdir()
            self.servers[f"node{number}"] = ServerProcess(
                folder, tcp_ports, "--drain-timeout", 10, address=f"127.0.0.{number}"
            )
        first, *others = self.servers.values()
        first.start()
        self.client = Client(first, directory / "client.json")
        self.configure(https=[{"domain": self.client.hostname, "port": service_port}])
        first.end()
        for server in others:
            shutil.copytree(first.data, server.data, ignore=shutil.ignore_patterns("*.key", "*.crt", "lock", "*.sock"))
        for server in self.servers.values():
            server.start()
        self.list(*self.servers)
        first_key, *other_keys = [server.link_key for server in self.servers.values()]
        assert first_key not in other_keys
        self.configure(serverHost=CLUSTER, serverKey=first_key, serverKeys=other_keys, resolver=str(names.address))

    @property
    def hostname(self) -> str:
        return self.client.hostname

    def configure(self, **members: Any) -> None:
        document = json.loads(self.client.config.read_text()) | members
        self.client.config.write_text(json.dumps(document))

    def list(self, *nodes: str, priorities: Sequence[int] = (10, 20, 30)) -> None:
        """DNS names these nodes from now on."""
        lines = []
        for node, priority in zip(nodes, priorities, strict=False):
            server = self.servers[node]
            lines += [
                f"{node} IN A {server.address}",
                f"_spokes._tcp.tun IN SRV {priority} 1 {server.https_port} {node}.{ZONE}.",
            ]
        addresses = [f"tun IN A {self.servers[node].address}" for node in nodes]
        self.names.put_lines(*lines, *addresses)

    def start(self) -> Process:
        process = self.client.start()
        wait_until(lambda: "Running HTTP services:" in process.log(), what="the services")
        return process

    def serves(self, node: str) -> bool:
        return self.servers[node].serves(self.hostname)

    def states(self) -> dict[str, str]:
        """Of every node by its first label, as the running client has it."""
        running = LocalCaller.find(self.client.config)
        assert running is not None
        return {one["hostname"].partition(".")[0]: one["state"] for one in running.status()["nodes"]}

    def end(self) -> None:
        self.client.end()
        for server in self.servers.values():
            if server.process is not None:
                server.end()


@contextlib.contextmanager
def client_cluster(directory: Path, service_port: int) -> Iterator[ClientCluster]:
    with name_server(ZONE) as names:
        cluster = ClientCluster(directory, names, service_port)
        try:
            yield cluster
        finally:
            cluster.end()
