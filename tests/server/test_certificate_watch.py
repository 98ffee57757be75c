"""The certificate's files under a running server: bad ones are an alert, good ones are taken."""

import asyncio
import datetime as dt
import socket
import ssl

import pytest

from spokes._fastpath.engine import ListenerKind
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import CertificateError
from spokes.server.app import Server
from spokes.server.certificates import CHAIN_NAME, KEY_NAME, ensure_certificate, read_certificate
from tests.server.conftest import DOMAIN
from tests.support.eventually import eventually


@pytest.fixture
def watched(server):
    """One look at the files; then whether the alert is open."""
    subject = str(server.directory / CHAIN_NAME)

    async def look() -> bool:
        await server.notices.certificates.look()
        await server.notices.alerts.flush()
        return server.notices.alerts.is_open("certificate", subject)

    return look


def certificate_of(port, name):
    """What a visitor of this name is shown, as DER."""
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as conn,
        context.wrap_socket(conn, server_hostname=name) as tls,
    ):
        return tls.getpeercert(binary_form=True)


@pytest.mark.parametrize("name", [CHAIN_NAME, KEY_NAME])
async def test_file_broken_is_an_alert_until_it_is_mended_and_the_good_pair_stays(server, watched, name):
    in_use = server.notices.certificates.current
    path = server.directory / name
    good = path.read_bytes()
    for bad in (b"", b"garbage", good[: len(good) // 2]):
        path.write_bytes(bad)
        assert await watched()
        assert server.notices.certificates.current is in_use
    path.unlink()
    assert await watched()
    path.write_bytes(good)
    path.chmod(0o600)
    assert not await watched()


async def test_key_of_another_pair_is_an_alert(server, watched, tmp_path, store):
    other = tmp_path / "other"
    other.mkdir()
    ensure_certificate(other, DOMAIN)
    good = (server.directory / KEY_NAME).read_bytes()
    (server.directory / KEY_NAME).write_bytes((other / KEY_NAME).read_bytes())
    assert await watched()
    (server.directory / KEY_NAME).write_bytes(good)
    assert not await watched()
    (server.directory / KEY_NAME).write_bytes((other / KEY_NAME).read_bytes())
    (server.directory / CHAIN_NAME).write_bytes((other / CHAIN_NAME).read_bytes())
    assert await watched()  # a good pair, but clients pin the other key: that is for a restart
    assert "restart the server" in "".join(alert.text for alert in store.list_alerts())


async def test_key_readable_by_everybody_is_an_alert(server, watched):
    (server.directory / KEY_NAME).chmod(0o644)
    assert await watched()


async def test_new_certificate_of_the_same_key_is_taken(server, watched):
    before = server.notices.certificates.current
    (server.directory / CHAIN_NAME).unlink()
    made = ensure_certificate(server.directory, DOMAIN)
    assert not await watched()
    assert server.notices.certificates.current.chain_pem == made.chain_pem != before.chain_pem
    status = await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "status")
    assert status["certificates"][0]["expires"] == made.expires_at


async def test_new_certificate_is_shown_to_visitors_while_nothing_else_changes(config):
    server = Server(config)
    await server.start()
    try:
        (server.directory / CHAIN_NAME).unlink()
        made = ensure_certificate(server.directory, DOMAIN)
        await server.notices.certificates.look()
        port = server.addresses(ListenerKind.TLS)[0].port
        for name in (DOMAIN, f"some.{DOMAIN}"):
            shown = await asyncio.to_thread(certificate_of, port, name)
            assert shown == ssl.PEM_cert_to_DER_cert(made.chain_pem.decode())
    finally:
        server.hurry()
        await server.stop()


async def test_files_are_looked_at_by_themselves(server, store):
    (server.directory / CHAIN_NAME).write_bytes(b"garbage")
    await server.notices.watch.look()
    await eventually(lambda: store.list_alerts(open_only=True))
    assert "holds no certificate" in store.list_alerts()[0].text


def test_certificate_that_has_ended_is_refused(tmp_path):
    made = ensure_certificate(tmp_path, DOMAIN)
    with pytest.raises(CertificateError, match="ended on"):
        read_certificate(tmp_path, DOMAIN, now=dt.datetime.fromtimestamp(made.expires_at + 1, dt.UTC))
