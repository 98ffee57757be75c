import socket
from pathlib import Path

import pytest

from spokes.client.name_lookup import NameLookup, has_route, read_hosts, read_order
from tests.support.name_server import NameServer
from tests.support.name_server import name_server as run_name_server


def make_lookup(
    folder: Path, *, hosts: str = "", server: NameServer | None = None, order: str = "files dns"
) -> NameLookup:
    (folder / "hosts").write_text(hosts)
    port = server.address.port if server is not None else 53
    (folder / "resolv.conf").write_text(f"nameserver 127.0.0.1\nsearch {server.zone if server else 'test'}\n")
    (folder / "nsswitch.conf").write_text(f"passwd: files\nhosts: {order}  # as usual\n")
    lookup = NameLookup(hosts=folder / "hosts", resolv=folder / "resolv.conf", nsswitch=folder / "nsswitch.conf")
    if lookup._resolver is not None:
        lookup._resolver.port = port  # resolv.conf cannot name one
    return lookup


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


async def test_lookup_hosts_file_comes_first_and_is_read_again_when_written(tmp_path):
    lookup = make_lookup(tmp_path, hosts="10.0.0.1 db\n")
    assert (await lookup("DB.")).addresses == ("10.0.0.1",)
    assert not lookup.changed()
    (tmp_path / "hosts").write_text("10.0.0.2 db\n")
    assert lookup.changed() and not lookup.changed()
    assert (await lookup("db")).addresses == ("10.0.0.2",)


async def test_lookup_file_put_in_place_of_another_is_seen(tmp_path):
    lookup = make_lookup(tmp_path, hosts="10.0.0.1 db\n")
    (tmp_path / "new").write_text("10.0.0.2 db\n")
    (tmp_path / "new").rename(tmp_path / "hosts")
    assert lookup.changed()
    assert (await lookup("db")).addresses == ("10.0.0.2",)


@pytest.fixture
def name_server():
    with run_name_server("names.test") as server:
        yield server


async def test_lookup_dns_tells_addresses_of_both_families_and_the_lifetime(tmp_path, name_server):
    name_server.put_lines(
        "db 7 IN A 127.0.0.9", "db 7 IN A 127.0.0.8", "db 9 IN AAAA ::1", "alias 3 IN CNAME db", "empty IN TXT x"
    )
    lookup = make_lookup(tmp_path, server=name_server)
    for host, lifetime_s in ((f"db.{name_server.zone}", 7.0), ("db", 7.0), (f"alias.{name_server.zone}", 3.0)):
        answer = await lookup(host)
        assert set(answer.addresses) == {"127.0.0.9", "127.0.0.8", "::1"}
        assert "::1" in answer.addresses[:2] or not has_route("::1")  # each family's first before any second
        assert answer.lifetime_s == lifetime_s
    for host in (f"empty.{name_server.zone}", f"nobody.{name_server.zone}"):
        with pytest.raises(OSError):
            await lookup(host)


async def test_lookup_order_is_the_systems(tmp_path, name_server):
    name_server.put_lines("db IN A 127.0.0.9")
    host = f"db.{name_server.zone}"
    lookup = make_lookup(tmp_path, hosts=f"127.0.0.1 {host}\n", server=name_server, order="dns files")
    assert (await lookup(host)).addresses == ("127.0.0.9",)
    lookup = make_lookup(tmp_path, hosts=f"127.0.0.1 {host}\n", server=name_server)
    assert (await lookup(host)).addresses == ("127.0.0.1",)
    lookup = make_lookup(tmp_path, server=name_server, order="files mdns4_minimal [NOTFOUND=return] dns")
    assert (await lookup(host)).addresses == ("127.0.0.9",)


async def test_lookup_dead_name_server_is_an_os_error(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        lookup = make_lookup(tmp_path)
        lookup._resolver.port = silent.getsockname()[1]
        lookup._resolver.lifetime = lookup._resolver.timeout = 0.2
        with pytest.raises(OSError, match="DNS"):
            await lookup("db.example")


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "x..y"])
async def test_lookup_impossible_name_is_an_os_error(tmp_path, host):
    with pytest.raises(OSError):
        await make_lookup(tmp_path)(host)


async def test_lookup_source_that_is_the_systems_alone_is_asked_there(tmp_path):
    lookup = make_lookup(tmp_path, order="files resolve dns")
    assert "127.0.0.1" in (await lookup("localhost")).addresses
