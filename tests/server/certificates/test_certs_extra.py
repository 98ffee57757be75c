"""certs-extra under a running server: in force by name, renewed under live conns, faults named, the last good kept."""

import asyncio
import dataclasses
import datetime as dt
import shutil
import socket
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from spokes import clock
from spokes._fastpath.engine import ListenerKind
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import RegisterTunnel
from spokes.server.certificates.certificate_files import read_pair
from spokes.server.certificates.certificate_folders import CertificateFolders
from spokes.server.certificates.certs_extra import FOLDER_NAME
from spokes.server.certificates.folder_events import FolderEvents
from spokes.server.process.app import Server
from spokes.wire.messages import Address, Answer, Request
from tests.server.conftest import DOMAIN
from tests.server.sessions.test_sessions import hears, log_in
from tests.support.certificate_pairs import Authority, write
from tests.support.eventually import eventually
from tests.support.fake_engine import FakeEngine
from tests.support.operations import do

WILD = "*.example.net"
NAME = "wildcard_.example.net"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
async def server(config, authority):
    """With one pair that lay there at its start."""
    root = config.data / FOLDER_NAME
    authority.put(root / NAME, WILD, "example.net")
    server = Server(config)
    await server.start()
    yield server
    server.force_stop()
    await server.stop()


@pytest.fixture
def root(server):
    return server.directory / FOLDER_NAME


def der(pem):
    return ssl.PEM_cert_to_DER_cert(pem.decode())


async def shown(server, name):
    def ask():
        context = ssl._create_unverified_context()
        port = server.addresses(ListenerKind.TLS)[0].port
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as conn,
            context.wrap_socket(conn, server_hostname=name) as tls,
        ):
            return tls.getpeercert(binary_form=True)

    return await asyncio.to_thread(ask)


def leaf_in(folder):
    return der((folder / "fullchain.pem").read_bytes().partition(b"-----END CERTIFICATE-----\n")[0] +
               b"-----END CERTIFICATE-----\n")


async def check(server):
    await server.notifications.certs_extra.check()
    await server.notifications.alerts.flush()


async def listed(server, name=NAME):
    found = await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "certificates")
    return next(one for one in found if one["source"] == f"{FOLDER_NAME}/{name}")


def alerts(server):
    return server.notifications.alerts.subjects("certificate")


async def test_pair_that_lies_there_at_the_start_is_in_force(server, root):
    for name in ("a.example.net", "example.net"):
        assert await shown(server, name) == leaf_in(root / NAME)
    with pytest.raises(ssl.SSLError):
        await shown(server, "a.b.example.net")
    assert (await listed(server))["state"] == "in use"


async def test_renewed_pair_counts_for_who_comes_next(server, root, authority):
    before = leaf_in(root / NAME)
    authority.put(root / NAME, WILD)
    await check(server)
    assert await shown(server, "a.example.net") == leaf_in(root / NAME) != before
    with pytest.raises(ssl.SSLError):
        await shown(server, "example.net")         # the new one does not name it
    assert not alerts(server)


async def test_reload_looks_at_once(server, root, authority):
    leaf = authority.put(root / "other", "other.test")
    await server.reload()
    await eventually(lambda: server.notifications.shown.leads_to_name("other.test"))
    assert await shown(server, "other.test") == der(leaf)


async def test_kernel_tells_of_what_changes(server, root, authority):
    leaf = authority.put(root / "other", "other.test")
    await eventually(lambda: server.notifications.shown.leads_to_name("other.test"))
    assert await shown(server, "other.test") == der(leaf)
    authority.put(root / "other", "another.test")
    await eventually(lambda: server.notifications.shown.leads_to_name("another.test"))
    assert not server.notifications.shown.leads_to_name("other.test")
    shutil.rmtree(root / "other")
    await eventually(lambda: alerts(server) == [f"{FOLDER_NAME}/other"])


async def test_folder_of_folders_that_is_replaced_is_looked_through(server, root, authority):
    for name in ("first.test", "second.test"):
        authority.put(root.parent / "next" / "pair", name)
        root.rename(root.parent / f"before-{name}")
        (root.parent / "next").rename(root)
        await eventually(lambda name=name: server.notifications.shown.leads_to_name(name))
    authority.put(root / "pair", "third.test")
    await eventually(lambda: server.notifications.shown.leads_to_name("third.test"))


async def test_pair_that_is_half_written_is_awaited_without_an_alert(server, root, authority, caplog):
    leaf, key = authority.issue("whole.test")
    (root / "slow").mkdir()
    write(root / "slow" / "privkey.pem", key)
    await eventually(lambda: server.notifications.certs_extra.is_waiting_for("slow"))
    write(root / "slow" / "fullchain.pem", leaf + authority.intermediate)
    await eventually(lambda: server.notifications.shown.leads_to_name("whole.test"))
    assert "certificate not taken" not in caplog.text


async def test_pair_that_the_tls_library_refuses_is_found_though_others_of_its_kind_were_not(root, authority, tmp_path):
    authority.put(root / "small", "small.test")
    leaf, key = authority.issue("small.test", key=ec.generate_private_key(ec.SECP192R1()))
    write(root / "small" / "fullchain.pem", leaf + authority.intermediate)
    write(root / "small" / "privkey.pem", key)
    folders = CertificateFolders(root, FolderEvents(root, lambda: None))
    folders.walk(None, is_last=True)
    assert "too small" in str(folders.known["small"].error)         # the first of its kind is tried before it is shown
    kind = read_pair(root / "small", root, dt.datetime.now(dt.UTC)).kind
    folders = CertificateFolders(root, FolderEvents(root, lambda: None), tried_kinds={kind})
    folders.walk(None, is_last=True)
    assert folders.known["small"].shown is not None
    assert folders.try_out(10) == {"small"}
    assert folders.known["small"].shown is None
    assert "too small" in str(folders.known["small"].error)


async def test_bad_pair_is_named_and_the_last_good_one_stays(server, root):
    good = leaf_in(root / NAME)
    write(root / NAME / "fullchain.pem", b"-----BEGIN CERTIFICATE-----\nAAAA")
    await check(server)
    assert await shown(server, "a.example.net") == good
    told = await listed(server)
    assert (told["state"], told["names"]) == ("last good in use", [WILD, "example.net"])
    assert "cut off" in told["cause"]
    assert alerts(server) == [f"{FOLDER_NAME}/{NAME}"]


async def test_folder_that_is_gone_stays_in_use_until_its_certificate_ends(server, root, authority):
    good = leaf_in(root / NAME)
    shutil.rmtree(root / NAME)
    for _ in range(2):
        await check(server)
        assert await shown(server, "a.example.net") == good
        assert "is gone" in (await listed(server))["cause"]
    with clock.replaced(clock.ManualClock(wall_s=clock.wall_s() + 91 * 86_400)):
        await check(server)
        with pytest.raises(ssl.SSLError):
            await shown(server, "a.example.net")
        await check(server)
    assert server.notifications.certs_extra.list() == []
    assert not alerts(server)


async def test_mended_pair_settles_the_alert(server, root, authority):
    write(root / NAME / "privkey.pem", b"")
    await check(server)
    assert alerts(server)
    leaf = authority.put(root / NAME, WILD)
    await check(server)
    assert await shown(server, "a.example.net") == der(leaf)
    assert not alerts(server)


async def test_pair_that_never_was_good_says_so(server, root, store):
    (root / "bad").mkdir()
    await check(server)
    told = await listed(server, "bad")
    assert (told["state"], told["names"], told["hint"]) == ("not used", [], "put the chain (PEM) there")
    assert "last good" not in "".join(alert.text for alert in store.alerts.select())


async def test_of_two_that_cover_a_name_the_longer_lived_is_used_and_that_is_said_once(server, root, authority, caplog):
    longer = authority.put(root / "longer", "a.example.net", "example.net", days=95)
    for _ in range(2):
        await check(server)
        assert await shown(server, "example.net") == der(longer)
        assert await shown(server, "b.example.net") == leaf_in(root / NAME)
    authority.put(root / "third", "third.test")
    caplog.set_level("INFO")
    await check(server)
    assert "two certificates cover" not in caplog.text
    authority.put(root / "least", "third.test", days=1)
    await check(server)
    assert caplog.text.count("two certificates cover") == 1
    assert (await listed(server, "least"))["state"] == "covered by another"


async def test_servers_own_name_may_be_among_them_and_what_is_self_made_is_the_last_resort(server, root, authority):
    own = await shown(server, DOMAIN)
    assert await shown(server, None) == own
    leaf = authority.put(root / "own", DOMAIN, f"*.{DOMAIN}", days=5)
    await check(server)
    for name in (DOMAIN, f"some.{DOMAIN}", None):
        assert await shown(server, name) == der(leaf)
    found = await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "certificates")
    assert (found[0]["source"], found[0]["state"]) == ("self-made", "covered by another")


async def test_clients_hear_which_address_to_show_as_certificates_come_and_go(config, authority):
    server = Server(dataclasses.replace(config, public_http_port=80, public_https_port=443), make_engine=FakeEngine)
    await server.start()
    store, engine, root = server._store.store, server._engine, server.directory / FOLDER_NAME
    tunnel, key = do(store, RegisterTunnel(token=do(store, CreateToken("t")).value, name="shop", domain=DOMAIN))
    plain, secure = f"http://{tunnel.hostname}", f"https://{tunnel.hostname}"
    peer, ready = await log_in(engine, key)
    assert (ready.urls, ready.url) == ((plain, secure), plain)          # what the server made itself vouches for nobody
    authority.put(root / "wildcard", f"*.{DOMAIN}")
    assert (await hears(peer, Address)).url == secure
    peer.say(Request(id=1, op="tunnel.info"))
    assert (await hears(peer, Answer)).result["url"] == secure
    authority.put(root / "elsewhere", "elsewhere.test")
    authority.put(root / "exact", tunnel.hostname)
    await eventually(lambda: server.notifications.shown.leads_to_name(tunnel.hostname))
    authority.put(root / "wildcard", "other.test")
    await eventually(lambda: server.notifications.shown.leads_to_name("other.test"))
    authority.put(root / "exact", "other.test", days=80)
    assert (await hears(peer, Address, count=2)).url == plain                    # nothing was said in between
    _, ready = await log_in(engine, key)
    assert ready.url == plain
    server.force_stop()
    await server.stop()


async def test_who_names_no_host_gets_the_certificate_of_the_address(server, root, authority):
    leaf = authority.put(root / "address", "127.0.0.1")
    await check(server)
    assert await shown(server, None) == der(leaf)
    assert await shown(server, DOMAIN) != der(leaf)


async def test_tree_that_changes_while_it_is_walked_is_right_in_the_end(server, root, authority):
    async def shuffle():
        for number in range(40):
            folder = root / f"f{number % 7}"
            if number % 3 == 2:
                await asyncio.to_thread(shutil.rmtree, folder, True)
            else:
                await asyncio.to_thread(authority.put, folder, f"n{number % 7}.test")

    shuffling = asyncio.create_task(shuffle())
    while not shuffling.done():
        await check(server)
    await check(server)
    for number in range(7):
        folder = root / f"f{number}"
        if folder.is_dir():
            assert await shown(server, f"n{number}.test") == leaf_in(folder)
