import json

import pytest

from spokes.client.config import ClientConfig
from spokes.client.config_edit import ConfigFile
from spokes.client.operations import Operations, apply_nowhere
from spokes.client.rule_merge import merge_rules
from spokes.client.rule_parsing import port_key
from spokes.errors import ConfigError, NameRefusedError, NotFoundError, RemoteError, RuleError
from spokes.wire.messages import Accepted, Fault, PortResult, SiteResult
from spokes.wire.rules import Port, Site


class Server:
    def __init__(self):
        self.asked = []
        self.next_port = 22000
        self.refusal = None

    async def ask(self, op, args):
        self.asked.append((op, args))
        if self.refusal is not None:
            raise self.refusal
        if op == "tcp.allocate":
            self.next_port += 1
            return {"port": self.next_port - 1}
        return {}


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def operations(config_path, server):
    return Operations(ConfigFile(config_path), ask=server.ask, apply=apply_nowhere)


def rules(path):
    config = ClientConfig.load(path)
    return config.sites(), config.ports()


async def test_http_add_then_replace_then_rm(operations, config_path):
    await operations.perform("http.add", {"domain": "a.example", "destination": "localhost", "port": 80})
    await operations.perform("http.add", {"domain": "b.example", "port": 81})
    await operations.perform("http.add", {"domain": "A.EXAMPLE", "port": 8080})
    assert rules(config_path)[0] == [Site(domain="A.EXAMPLE", port=8080), Site(domain="b.example", port=81)]
    await operations.perform("http.rm", {"domain": "a.example"})
    assert rules(config_path)[0] == [Site(domain="b.example", port=81)]


async def test_http_add_other_spelling_of_a_name_is_the_same_rule(operations, config_path):
    await operations.perform("http.add", {"domain": "bücher.example", "port": 80})
    await operations.perform("http.add", {"domain": "XN--BCHER-KVA.example.", "port": 81})
    assert [site.port for site in rules(config_path)[0]] == [81]


async def test_http_rm_unknown_domain_is_an_error(operations):
    with pytest.raises(NotFoundError, match=r"no\.example"):
        await operations.perform("http.rm", {"domain": "no.example"})


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"domain": ""},
        {"domain": "a", "port": -1},
        {"domain": "a", "port": "x"},
        {"domain": "a b"},
        {"domain": "1.2.3.4"},
    ],
)
async def test_http_add_malformed_rule_changes_nothing(operations, config_path, args):
    before = config_path.read_bytes()
    with pytest.raises((RuleError, NameRefusedError)):
        await operations.perform("http.add", args)
    assert config_path.read_bytes() == before


async def test_http_add_refused_by_the_server_is_taken_back(config_path, server):
    applied = []

    async def apply():
        sites, _ = rules(config_path)
        applied.append([site.domain for site in sites])
        fault = Fault(code="SPK-TAKEN", message="held by another tunnel")
        return Accepted(https=tuple(SiteResult(domain=site.domain, error=fault) for site in sites))

    operations = Operations(ConfigFile(config_path), ask=server.ask, apply=apply)
    with pytest.raises(RemoteError) as caught:
        await operations.perform("http.add", {"domain": "a.example", "port": 80})
    assert caught.value.code == "SPK-TAKEN"
    assert rules(config_path)[0] == []
    assert applied == [["a.example"], []]


async def test_tcp_allocate_while_the_server_cannot_store_the_list_is_done_all_the_same(config_path, server):
    """The port is the tunnel's; another try would take another."""

    async def delayed():
        raise RemoteError("the server cannot store the rules now", code="SPK-STORE", retryable=True)

    operations = Operations(ConfigFile(config_path), ask=server.ask, apply=delayed)
    assert await operations.perform("tcp.allocate", {}) == {"port": 22000}
    assert await operations.perform("tcp.release", {"port": 22000}) == {"port": 22000}
    with pytest.raises(RemoteError):
        await operations.perform("http.add", {"domain": "a.example", "port": 80})
    assert [site.domain for site in rules(config_path)[0]] == ["a.example"]


async def test_tcp_allocate_is_remembered(operations, config_path):
    assert await operations.perform("tcp.allocate", {}) == {"port": 22000}
    assert rules(config_path)[1] == [Port(port=22000)]
    assert json.loads(config_path.read_text())["ports"] == [{"port": 22000}]


async def test_tcp_forward_of_a_new_port_outlives_the_next_session(operations, config_path):
    await operations.perform("tcp.allocate", {})
    await operations.perform("tcp.forward", {"port": 22000, "destination": "localhost", "dstPort": 22})
    config = ClientConfig.load(config_path)
    at_the_server = [Port(port=22000)]
    merged = merge_rules(port_key, synced=config.synced_ports(), local=config.ports(), remote=at_the_server)
    assert merged == [Port(port=22000, destination="localhost", dst_port=22)]


async def test_tcp_forward_without_port_takes_a_free_one_then_a_new_one(operations, config_path, server):
    await operations.perform("tcp.allocate", {})
    rule = {"destination": "localhost", "dstPort": 22}
    assert (await operations.perform("tcp.forward", rule))["port"] == 22000
    assert (await operations.perform("tcp.forward", rule))["port"] == 22001
    assert [port.dst_port for port in rules(config_path)[1]] == [22, 22]


async def test_tcp_forward_foreign_port_is_refused(operations):
    with pytest.raises(NotFoundError, match="22999"):
        await operations.perform("tcp.forward", {"port": 22999, "destination": "localhost", "dstPort": 22})


async def test_tcp_forward_refused_by_the_server_is_taken_back(config_path, server):
    async def apply():
        fault = Fault(code="SPK-NOT-FOUND", message="not yours")
        return Accepted(ports=(PortResult(port=22000, error=fault if rules(config_path)[1][0].dst_port else None),))

    operations = Operations(ConfigFile(config_path), ask=server.ask, apply=apply)
    await operations.perform("tcp.allocate", {})
    with pytest.raises(RemoteError, match="not yours"):
        await operations.perform("tcp.forward", {"port": 22000, "destination": "localhost", "dstPort": 22})
    assert rules(config_path)[1] == [Port(port=22000)]


async def test_tcp_forward_unix_socket_is_a_rule_every_server_takes(operations, config_path):
    await operations.perform("tcp.forward", {"destination": "unix:/run/db.sock", "dstPort": 0})
    (port,) = rules(config_path)[1]
    assert port.destination == "unix:/run/db.sock"
    assert port.dst_port != 0


async def test_tcp_release_server_refuses_port_is_kept(operations, config_path, server):
    await operations.perform("tcp.allocate", {})
    server.refusal = RemoteError("not yours", code="SPK-NOT-FOUND")
    with pytest.raises(RemoteError):
        await operations.perform("tcp.release", {"port": 22000})
    assert rules(config_path)[1] == [Port(port=22000)]
    server.refusal = None
    await operations.perform("tcp.release", {"port": 22000})
    assert rules(config_path)[1] == []


async def test_tunnel_edit_name_is_saved(operations, config_path, server):
    await operations.perform("tunnel.edit", {"name": "till 4"})
    assert server.asked == [("tunnel.edit", {"name": "till 4"})]
    assert ClientConfig.load(config_path).name == "till 4"


async def test_unknown_operation_is_not_found(operations):
    with pytest.raises(NotFoundError):
        await operations.perform("no.such", {})


@pytest.mark.parametrize("args", [{}, {"port": 0}, {"port": "22"}])
async def test_tcp_release_wrong_arguments_are_named(operations, args):
    with pytest.raises(ConfigError, match="wrong arguments"):
        await operations.perform("tcp.release", args)


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        ("tun.example", "SPK-NAME"),  # the server itself
        ("ADMIN.tun.example.", "SPK-NAME"),
        ("a.admin.tun.example", "SPK-NAME"),
        ("example", "SPK-NAME"),  # above it
        ("server.example", "SPK-NAME"),  # as the client calls it
        ("*.shop.example", "SPK-WILDCARD"),
        ("a b.example", "SPK-NAME"),
    ],
)
async def test_http_add_name_that_no_server_would_take_is_refused_off_line(operations, config_path, domain, code):
    document = json.loads(config_path.read_text())
    document |= {"hostname": "calm-otter-104.tun.example", "serverHost": "server.example:8443"}
    config_path.write_text(json.dumps(document))
    with pytest.raises(NameRefusedError) as caught:
        await operations.perform("http.add", {"domain": domain, "port": 80})
    assert caught.value.code == code
    assert caught.value.hint or code == "SPK-NAME"
    assert rules(config_path)[0] == []


async def test_http_add_off_line_says_what_was_not_checked(operations, config_path, server):
    rule = {"domain": "calm-otter-104.tun.example", "port": 80}
    assert "free" in (await operations.perform("http.add", rule))["notChecked"]

    async def apply():
        return Accepted(https=(SiteResult(domain=rule["domain"]),))

    online = Operations(ConfigFile(config_path), ask=server.ask, apply=apply)
    assert await online.perform("http.add", rule) == {"domain": rule["domain"]}
