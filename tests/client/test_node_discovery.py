"""Discovery of nodes: when DNS is asked, and what counts while it is away."""

import asyncio

import pytest

from spokes.client import node_discovery
from spokes.client.node_discovery import NodeDiscovery
from spokes.client.node_file import NodeFile
from spokes.resolver import ServiceAnswer, ServiceRecord
from tests.support.eventually import eventually

HOST = "tun.example"


class Dns:
    def __init__(self):
        self.hosts = ("a.example", "b.example")
        self.lifetime_s = 1.0
        self.failure = None
        self.hangs = False
        self.asked = []

    async def __call__(self, name):
        self.asked.append(name)
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        records = tuple(ServiceRecord(10 * at, 0, host, 443) for at, host in enumerate(self.hosts))
        return ServiceAnswer(records, self.lifetime_s)


@pytest.fixture
def dns():
    return Dns()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(node_discovery, "ASK_INTERVAL_S_MIN", 0.01)
    monkeypatch.setattr(node_discovery, "RETRY_INTERVAL_S", 0.01)
    monkeypatch.setattr(node_discovery, "FIRST_PATIENCE_S", 0.05)


def hosts(discovery):
    return [node.host for node in discovery.nodes]


@pytest.fixture
async def running(dns):
    tasks = []

    def run(discovery):
        tasks.append(asyncio.create_task(discovery.run()))
        return discovery

    yield run
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_first_nodes_of_the_records(dns):
    discovery = NodeDiscovery(dns, HOST, 8443)
    await discovery.first()
    assert hosts(discovery) == ["a.example", "b.example"]
    assert dns.asked == ["_spokes._tcp.tun.example"]
    assert not discovery.is_single


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
async def test_literal_address_is_never_asked_about(dns, host, running):
    discovery = running(NodeDiscovery(dns, host, 8443))
    await discovery.first()
    discovery.ask_soon()
    await asyncio.sleep(0)
    assert (hosts(discovery), dns.asked, discovery.is_single) == ([host], [], True)


async def test_first_dns_that_hangs_or_fails_the_name_alone_is_tried(dns):
    discovery = NodeDiscovery(dns, HOST, 8443)
    dns.failure = OSError("away")
    assert hosts_of(await discovery.first()) == [HOST]
    dns.failure, dns.hangs = None, True
    assert hosts_of(await discovery.first()) == [HOST]
    discovery.stop()


def hosts_of(nodes):
    return [node.host for node in nodes]


async def test_dns_away_at_the_start_the_nodes_on_disk_count(dns, config_path):
    await NodeDiscovery(dns, HOST, 8443, file=NodeFile(config_path)).first()
    dns.failure = OSError("away")
    discovery = NodeDiscovery(dns, HOST, 8443, file=NodeFile(config_path))
    assert hosts_of(await discovery.first()) == ["a.example", "b.example"]
    assert hosts(NodeDiscovery(dns, "other.example", 443, file=NodeFile(config_path))) == ["other.example"]


async def test_no_records_any_more_the_stored_list_goes(dns, config_path):
    await NodeDiscovery(dns, HOST, 8443, file=NodeFile(config_path)).first()
    dns.hosts = ()
    await NodeDiscovery(dns, HOST, 8443, file=NodeFile(config_path)).first()
    dns.failure = OSError("away")
    assert hosts(NodeDiscovery(dns, HOST, 8443, file=NodeFile(config_path))) == [HOST]


async def test_run_asks_again_when_the_lifetime_is_over_and_tells_changes(dns, running):
    dns.lifetime_s = 0.0
    discovery = NodeDiscovery(dns, HOST, 8443)
    lists = []
    await discovery.first()
    discovery.on_change = lambda: lists.append(hosts(discovery))
    running(discovery)
    dns.hosts = ("b.example", "c.example")
    await eventually(lambda: lists == [["b.example", "c.example"]])
    dns.failure = OSError("away")
    seen = len(dns.asked)
    await eventually(lambda: len(dns.asked) > seen + 2)
    assert lists == [["b.example", "c.example"]]  # the last good list stays
    dns.failure, dns.hosts = None, ("c.example",)
    await eventually(lambda: lists[1:] == [["c.example"]])


async def test_long_lifetime_is_asked_again_only_for_a_new_session(dns, running):
    dns.lifetime_s = 86_400.0
    discovery = running(NodeDiscovery(dns, HOST, 8443))
    await eventually(lambda: hosts(discovery) == ["a.example", "b.example"])
    assert len(dns.asked) == 1
    discovery.ask_soon()
    await eventually(lambda: len(dns.asked) == 2)


async def test_use_another_server_is_asked_about_at_once(dns, running):
    dns.hosts = ()
    discovery = running(NodeDiscovery(dns, HOST, 8443))
    await eventually(lambda: dns.asked)
    discovery.use("other.example", 443)
    assert hosts(discovery) == ["other.example"]
    await eventually(lambda: dns.asked[-1] == "_spokes._tcp.other.example")
