import ast
import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import dns.message
import dns.rdatatype
import dns.rrset
import pytest
import uvloop

import spokes
from spokes.config_values import Address
from spokes.dns_client import has_route
from spokes.resolver import Resolver, ServiceRecord, literal_addresses, read_hosts, read_order
from tests.support.eventually import eventually
from tests.support.name_server import NameServer
from tests.support.name_server import name_server as run_name_server

PACKAGE = Path(spokes.__file__).parent


def make_resolver(
    folder: Path, *, hosts: str = "", server: NameServer | None = None, order: str = "files dns"
) -> Resolver:
    (folder / "hosts").write_text(hosts)
    port = server.address.port if server is not None else 53
    (folder / "resolv.conf").write_text(f"nameserver 127.0.0.1\nsearch {server.zone if server else 'test'}\n")
    (folder / "nsswitch.conf").write_text(f"passwd: files\nhosts: {order}  # as usual\n")
    resolver = Resolver(hosts=folder / "hosts", resolv=folder / "resolv.conf", nsswitch=folder / "nsswitch.conf")
    set_port(resolver, port)
    return resolver


def set_port(resolver: Resolver, port: int) -> None:
    """resolv.conf cannot name one."""
    client = resolver._dns_client()
    assert client is not None
    client._resolver.port = port


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("[::1]", ("::1",)),
        ("::1", ("::1",)),
        ("localhost", ("127.0.0.1", "::1")),
        ("LocalHost.", ("127.0.0.1", "::1")),
        ("tun.localhost", ("127.0.0.1", "::1")),
        ("notlocalhost", ()),
        ("localhost.example", ()),
        ("db.internal", ()),
        ("1.2.3", ()),
    ],
)
def test_literal_addresses(host, addresses):
    assert literal_addresses(host) == addresses


def open_files() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def test_read_hosts_names_without_case_and_all_their_lines():
    text = "127.0.0.1 localhost\n10.0.0.1 Db.Internal db  # the first\n::0:1 db\nnonsense x\n\n# 10.0.0.3 no\n"
    text += "10.0.0.1 db\n"
    assert read_hosts(text) == {
        "localhost": ("127.0.0.1",),
        "db.internal": ("10.0.0.1",),
        "db": ("10.0.0.1", "::1"),
    }


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("", ("files", "dns")),
        ("hosts:\n", ("files", "dns")),
        ("passwd: files\nhosts:      dns files\n", ("dns", "files")),
        ("hosts: files mdns4_minimal [NOTFOUND=return] dns\n", ("files", "mdns4_minimal", "dns")),
        ("hosts: files resolve [!UNAVAIL=return] dns # x\n", ("files", "resolve", "dns")),
        ("hosts: files [broken\n", ("files",)),
    ],
)
def test_read_order(text, order):
    assert read_order(text) == order


async def test_addresses_hosts_file_comes_first_and_is_read_again_when_written(tmp_path):
    resolver = make_resolver(tmp_path, hosts="10.0.0.1 db\n")
    assert (await resolver.addresses("DB.")).addresses == ("10.0.0.1",)
    before = resolver.files_version()
    assert resolver.files_version() == before
    (tmp_path / "hosts").write_text("10.0.0.2 db\n")
    assert (await resolver.addresses("db")).addresses == ("10.0.0.2",)
    assert resolver.files_version() != before


async def test_files_version_file_put_in_place_of_another_is_seen(tmp_path):
    resolver = make_resolver(tmp_path, hosts="10.0.0.1 db\n")
    before = resolver.files_version()
    (tmp_path / "new").write_text("10.0.0.2 db\n")
    (tmp_path / "new").rename(tmp_path / "hosts")
    assert resolver.files_version() != before
    assert (await resolver.addresses("db")).addresses == ("10.0.0.2",)


@pytest.fixture
def name_server():
    with run_name_server("names.test") as server:
        yield server


async def test_addresses_dns_tells_addresses_of_both_families_and_the_lifetime(tmp_path, name_server):
    name_server.put_lines(
        "db 7 IN A 127.0.0.9", "db 7 IN A 127.0.0.8", "db 9 IN AAAA ::1", "alias 3 IN CNAME db", "empty IN TXT x"
    )
    resolver = make_resolver(tmp_path, server=name_server)
    for host, lifetime_s in ((f"db.{name_server.zone}", 7.0), ("db", 7.0), (f"alias.{name_server.zone}", 3.0)):
        answer = await resolver.addresses(host)
        assert set(answer.addresses) == {"127.0.0.9", "127.0.0.8", "::1"}
        assert "::1" in answer.addresses[:2] or not has_route("::1")  # each family's first before any second
        assert answer.lifetime_s == lifetime_s
    for host in (f"empty.{name_server.zone}", f"nobody.{name_server.zone}"):
        with pytest.raises(OSError):
            await resolver.addresses(host)


async def test_addresses_order_is_the_systems(tmp_path, name_server):
    name_server.put_lines("db IN A 127.0.0.9")
    host = f"db.{name_server.zone}"
    resolver = make_resolver(tmp_path, hosts=f"127.0.0.1 {host}\n", server=name_server, order="dns files")
    assert (await resolver.addresses(host)).addresses == ("127.0.0.9",)
    resolver = make_resolver(tmp_path, hosts=f"127.0.0.1 {host}\n", server=name_server)
    assert (await resolver.addresses(host)).addresses == ("127.0.0.1",)
    resolver = make_resolver(tmp_path, server=name_server, order="files mdns4_minimal [NOTFOUND=return] dns")
    assert (await resolver.addresses(host)).addresses == ("127.0.0.9",)


async def test_addresses_dead_name_server_is_an_os_error(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = make_resolver(tmp_path)
        set_port(resolver, silent.getsockname()[1])
        resolver._dns._resolver.lifetime = resolver._dns._resolver.timeout = 0.2
        with pytest.raises(OSError, match="do not answer"):
            await resolver.addresses("db.example")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..y"])
async def test_addresses_impossible_name_is_an_os_error(tmp_path, host):
    with pytest.raises(OSError):
        await make_resolver(tmp_path).addresses(host)


async def test_addresses_source_that_is_the_systems_alone_is_asked_there(tmp_path):
    resolver = make_resolver(tmp_path, order="files resolve dns")
    assert "127.0.0.1" in (await resolver.addresses("localhost")).addresses


def test_resolver_that_asks_no_dns_loads_no_dnspython():
    words = """
import asyncio, sys
from spokes.resolver import Resolver
assert asyncio.run(Resolver().addresses("127.0.0.1")).addresses == ("127.0.0.1",)
assert not [name for name in sys.modules if name == "dns" or name.startswith("dns.")]
"""
    subprocess.run([sys.executable, "-c", words], check=True)


async def test_addresses_refusing_name_server_is_known_at_once(tmp_path):
    """Not after the time that one gets to answer: who dials goes on with the last addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    resolver = make_resolver(tmp_path)
    set_port(resolver, port)
    resolver._dns._resolver.lifetime = resolver._dns._resolver.timeout = 1000.0
    with pytest.raises(OSError, match="cannot be reached"):
        await resolver.addresses("db.example")


async def test_addresses_dead_name_server_leaves_the_name_to_the_next_source(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    resolver = make_resolver(tmp_path, hosts="10.0.0.1 db.example\n", order="dns files")
    set_port(resolver, port)
    assert (await resolver.addresses("db.example")).addresses == ("10.0.0.1",)


async def test_addresses_answer_from_another_address_is_not_taken(tmp_path):
    """Who only knows the port of the question is not the name server, whatever else is right."""
    loop = asyncio.get_running_loop()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other_socket,
    ):
        for sock in (server, other_socket):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        resolver = make_resolver(tmp_path)
        set_port(resolver, server.getsockname()[1])
        asking = asyncio.create_task(resolver.addresses("db.example."))
        for _ in range(2):  # AAAA and A
            wire, asker = await loop.sock_recvfrom(server, 4096)
            question = dns.message.from_wire(wire)
            for sock, address in ((other_socket, "192.0.2.66"), (server, "192.0.2.1")):
                answer = dns.message.make_response(question)
                if question.question[0].rdtype == dns.rdatatype.A:
                    answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", "A", address))
                await loop.sock_sendto(sock, answer.to_wire(), asker)
        assert (await asking).addresses == ("192.0.2.1",)


async def test_addresses_cancelled_leaves_no_socket_and_no_thread(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        resolver = make_resolver(tmp_path)
        set_port(resolver, silent.getsockname()[1])
        before, threads = open_files(), threading.active_count()
        asking = asyncio.create_task(resolver.addresses("db.example"))
        await asyncio.to_thread(silent.recvfrom, 4096)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: open_files() <= before)
        assert threading.active_count() <= threads + 1  # the one that received for this test


async def test_servers_given_are_asked_in_place_of_the_systems(tmp_path, name_server):
    name_server.put_lines("db IN A 127.0.0.9")
    (tmp_path / "hosts").write_text("127.0.0.1 here\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files resolve dns\n")
    resolver = Resolver(
        servers=[name_server.address],
        hosts=tmp_path / "hosts",
        resolv=tmp_path / "none",
        nsswitch=tmp_path / "nsswitch.conf",
    )
    assert (await resolver.addresses(f"db.{name_server.zone}")).addresses == ("127.0.0.9",)
    assert (await resolver.addresses("here")).addresses == ("127.0.0.1",)


async def test_services_by_priority_and_none_where_there_are_none(tmp_path, name_server):
    name_server.put_lines(
        "_spokes._tcp 9 IN SRV 20 5 443 Node2.Other.Example.", "_spokes._tcp 9 IN SRV 10 0 8443 node1",
        "_gone._tcp IN SRV 0 0 0 .",
    )  # fmt: skip
    resolver = Resolver(servers=[name_server.address])
    answer = await resolver.services(f"_spokes._tcp.{name_server.zone}")
    assert answer.lifetime_s == 9.0
    assert answer.records == (
        ServiceRecord(10, 0, f"node1.{name_server.zone}", 8443),
        ServiceRecord(20, 5, "Node2.Other.Example", 443),
    )
    for name in ("_gone._tcp", "_other._tcp"):
        answer = await resolver.services(f"{name}.{name_server.zone}")
        assert (answer.records, answer.is_unavailable) == ((), name == "_gone._tcp")


def test_resolver_works_on_uvloop(tmp_path, name_server):
    big = (f"big IN A 10.0.0.{number}" for number in range(90))
    name_server.put_lines("db IN A 127.0.0.9", "db IN AAAA ::1", *big)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        closed = Address("127.0.0.1", gone.getsockname()[1])

    async def ask() -> None:
        resolver = Resolver(servers=[closed, name_server.address])
        assert set((await resolver.addresses(f"db.{name_server.zone}")).addresses) == {"127.0.0.9", "::1"}
        assert len((await resolver.addresses(f"big.{name_server.zone}")).addresses) == 90  # by TCP
        with pytest.raises(OSError, match="cannot be reached"):
            await Resolver(servers=[closed]).addresses("db.example")

    uvloop.run(ask())


def test_names_are_resolved_here_alone():
    """A name that other code resolved would miss the name servers given, the lifetime, and the bound on what hangs."""
    asking = {"getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "urlopen"}
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in asking)
        or (isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("dns", "urllib3"))
        or (isinstance(node, ast.Import) and any(name.name.partition(".")[0] == "dns" for name in node.names))
    }
    assert found == {"dns_client.py", "system_names.py"}


async def test_use_servers_others_are_asked_from_now_on(name_server, tmp_path):
    name_server.put_lines("db IN A 192.0.2.7")
    resolver = make_resolver(tmp_path, server=None)
    resolver.use_servers([name_server.address])
    version = resolver.files_version()
    assert (await resolver.addresses(f"db.{name_server.zone}")).addresses == ("192.0.2.7",)
    resolver.use_servers([name_server.address])
    assert resolver.files_version() == version  # the same: nothing is looked up again
    resolver.use_servers([Address("127.0.0.1", 1)])
    assert resolver.files_version() != version
    with pytest.raises(OSError, match="name servers"):
        await resolver.addresses(f"db.{name_server.zone}")
