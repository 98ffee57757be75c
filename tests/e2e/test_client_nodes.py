"""One `spoke start` and the nodes of a cluster: sessions to all or to one, through the loss of nodes and of DNS."""

from __future__ import annotations

import json
import signal
import stat
import threading
from pathlib import Path

import pytest

from tests.support.client_cluster import CLUSTER, ClientCluster, client_cluster
from tests.support.processes import wait_until
from tests.support.threads import join_thread

pytestmark = pytest.mark.e2e


@pytest.fixture
def cluster(tmp_path: Path, web):
    with client_cluster(tmp_path, web.port) as cluster:
        yield cluster


class Visitors:
    """Requests to some nodes, one after the other, until the block ends."""

    def __init__(self, cluster: ClientCluster, *nodes: str) -> None:
        self.answers: list[int] = []
        self.failures: list[str] = []
        self._cluster = cluster
        self._nodes = nodes
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ending.is_set():
            for node in self._nodes:
                try:
                    status, _ = self._cluster.servers[node].get(self._cluster.hostname)
                except OSError as error:
                    self.failures.append(f"{node}: {error}")
                    continue
                self.answers.append(status)
                if status != 200:
                    self.failures.append(f"{node}: {status}")
                self._ending.wait(0.01)

    def __enter__(self) -> Visitors:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        join_thread(self._thread)


def test_active_active_every_node_serves_one_killed_disturbs_no_other_and_comes_back(cluster):
    process = cluster.start()
    wait_until(lambda: all(cluster.serves(node) for node in cluster.servers))
    wait_until(lambda: cluster.states() == dict.fromkeys(cluster.servers, "online"))
    facts = json.loads(cluster.client.spoke("info", "--json").stdout)
    assert [sorted(node) for node in facts["nodes"]] == [["hostname", "role", "rttMs", "state"]] * 3
    shown = cluster.client.spoke("info").stdout
    assert "Nodes: active-active" in shown
    assert sum(line.startswith("node") and "online" in line for line in shown.splitlines()) == 3
    with Visitors(cluster, "node1", "node3") as visitors:
        cluster.servers["node2"].end(signal.SIGKILL)
        wait_until(lambda: cluster.states()["node2"] in ("waiting", "connecting"))
        seen = len(visitors.answers)
        wait_until(lambda: len(visitors.answers) > seen + 50)
        cluster.servers["node2"].start()
        wait_until(lambda: cluster.serves("node2"))
    assert visitors.failures == []
    assert process.log().count("Address: ") == 1  # said once, however many nodes there are


def test_node_that_is_stopped_holds_up_neither_visitors_nor_rules_nor_other_nodes(cluster, web):
    cluster.start()
    wait_until(lambda: all(cluster.serves(node) for node in cluster.servers))
    assert cluster.servers["node3"].process is not None
    with Visitors(cluster, "node1", "node2") as visitors:
        cluster.servers["node3"].process.send(signal.SIGSTOP)
        cluster.client.spoke("http", "add", "--domain", "shop.test", "--http", web.port)
        wait_until(lambda: cluster.servers["node1"].serves("shop.test"))
        cluster.servers["node2"].end(signal.SIGKILL)
        cluster.servers["node2"].start()
        wait_until(lambda: cluster.serves("node2"))
        visitors.failures = [failure for failure in visitors.failures if not failure.startswith("node2")]
        cluster.servers["node3"].process.send(signal.SIGCONT)
    assert visitors.failures == []
    wait_until(lambda: cluster.states() == dict.fromkeys(cluster.servers, "online"))


def test_dns_down_nodes_come_back_from_memory_and_after_a_restart_from_disk(cluster):
    process = cluster.start()
    wait_until(lambda: cluster.states() == dict.fromkeys(cluster.servers, "online"))
    stored = cluster.client.config.with_name("client.json.nodes")
    wait_until(lambda: all(node["addresses"] for node in json.loads(stored.read_text())["nodes"]))
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    cluster.names.stop()
    cluster.servers["node2"].end(signal.SIGKILL)
    wait_until(lambda: cluster.states()["node2"] != "online")
    cluster.servers["node2"].start()
    wait_until(lambda: cluster.serves("node2"))
    assert process.end(signal.SIGTERM) == 0
    cluster.start()
    wait_until(lambda: all(cluster.serves(node) for node in cluster.servers))


def test_master_only_fails_over_by_priority_and_returns(cluster):
    cluster.client.spoke("configure", "--ha", "master-only")
    process = cluster.start()
    wait_until(lambda: cluster.serves("node1"))
    assert cluster.states() == {"node1": "online", "node2": "idle", "node3": "idle"}
    cluster.servers["node1"].end(signal.SIGKILL)
    wait_until(lambda: cluster.serves("node2"))
    assert not cluster.serves("node3")
    cluster.servers["node1"].start()
    with Visitors(cluster, "node2") as visitors:
        wait_until(lambda: cluster.states()["node1"] == "watched")
        wait_until(lambda: cluster.serves("node1"), 120)
    assert visitors.answers[0] == 200
    wait_until(lambda: cluster.states() == {"node1": "online", "node2": "idle", "node3": "idle"})
    assert not cluster.serves("node2")
    cluster.client.spoke("configure", "--ha", "active-active")  # the running client is told
    wait_until(lambda: all(cluster.serves(node) for node in cluster.servers))
    assert process.popen.poll() is None


def test_records_changed_node_is_added_and_one_is_drained(cluster, web):
    cluster.list("node1", "node2")
    process = cluster.start()
    wait_until(lambda: cluster.states() == {"node1": "online", "node2": "online"})
    visitor = threading.Thread(target=lambda: slow.append(cluster.servers["node2"].get(cluster.hostname, "/slow", 60)))
    slow: list[tuple[int, bytes]] = []
    visitor.start()
    web.gate.release()
    with Visitors(cluster, "node1") as visitors:
        cluster.list("node1", "node3")
        wait_until(lambda: cluster.states().get("node2", "draining") == "draining" and cluster.serves("node3"))
        for _ in range(9):
            web.gate.release()
        join_thread(visitor)
        wait_until(lambda: cluster.states() == {"node1": "online", "node3": "online"})
    assert slow == [(200, b"x" * 100)]  # what was open could end
    assert visitors.failures == []
    assert not cluster.serves("node2")
    assert process.popen.poll() is None


def test_records_gone_the_name_alone_is_the_server_again(cluster):
    """And what knew several nodes knows one: its session goes on until another one is up."""
    node = cluster.servers["node1"]
    cluster.configure(serverHost=f"{CLUSTER}:{node.https_port}")
    cluster.names.put_lines(f"tun IN A {node.address}")
    cluster.start()
    assert cluster.serves("node1")
    assert cluster.states() == {"tun": "online"}
    assert not cluster.client.config.with_name("client.json.nodes").exists()
    cluster.list("node1", "node2")
    node.end(signal.SIGKILL)  # the records are asked for again with the next session
    node.start()
    wait_until(lambda: cluster.states() == {"node1": "online", "node2": "online"})
    cluster.names.put_lines(f"tun IN A {node.address}")
    wait_until(lambda: cluster.states() == {"tun": "online"}, 120)
    assert cluster.serves("node1")


def test_commands_without_a_running_client_ask_the_first_node_that_answers(cluster, tmp_path):
    keys = [word for server in cluster.servers.values() for word in ("--server-key", server.link_key)]
    token = cluster.servers["node1"].data / "first-token"
    cluster.servers["node1"].end(signal.SIGKILL)
    cluster.client.spoke("edit", "--name", "till 4")
    facts = json.loads(cluster.client.spoke("info", "--json").stdout)
    assert facts["addresses"]
    assert {one["state"] for one in facts["nodes"]} == {"not running"}
    cluster.client.config = tmp_path / "other.json"
    cluster.client.spoke(
        "configure", "--url", f"https://{CLUSTER}", "--ha", "master-only", "--resolver", cluster.names.address,
        "--token-file", token, *keys,
    )  # fmt: skip
    document = json.loads(cluster.client.config.read_text())
    assert (document["serverHost"], document["ha"], len(document["serverKeys"])) == (CLUSTER, "master-only", 2)
