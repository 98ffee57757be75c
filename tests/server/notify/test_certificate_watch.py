"""The certificate's files under a running server: bad ones are an alert, good ones are taken."""

import asyncio
import datetime as dt
import socket
import ssl

import pytest
from cryptography import x509

from spokes._fastpath.engine import ListenerKind
from spokes.control import CONTROL_SOCKET_NAME, call_control
from spokes.errors import CertificateError
from spokes.fingerprints import fingerprint
from spokes.server.certificates.certificates import CHAIN_NAME, KEY_NAME, ensure_certificate, read_certificate
from spokes.server.process.app import Server
from tests.server.conftest import DOMAIN
from tests.support.eventually import eventually


@pytest.fixture
def watched(server):
    """One check of the files; then whether the alert is open."""
    subject = str(server.directory / CHAIN_NAME)

    async def check() -> bool:
        await server.notifications.certificates.check()
        await server.notifications.alerts.flush()
        return server.notifications.alerts.is_open("certificate", subject)

    return check


LINK = ("spokes/1",)
BY_AUTHORITY = ("spokes/1", "spokes-ca/1")


def certificate_of(port, name, alpn=("http/1.1",)):
    """What a visitor of this name is shown, or a link, as DER."""
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(alpn)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as conn,
        context.wrap_socket(conn, server_hostname=name) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def fingerprint_of(der):
    return fingerprint(x509.load_der_x509_certificate(der))


@pytest.mark.parametrize("name", [CHAIN_NAME, KEY_NAME])
async def test_file_broken_is_an_alert_until_it_is_mended_and_the_good_pair_stays(server, watched, name):
    in_use = server.notifications.certificates.current
    path = server.directory / name
    good = path.read_bytes()
    for bad in (b"", b"garbage", good[: len(good) // 2]):
        path.write_bytes(bad)
        assert await watched()
        assert server.notifications.certificates.current is in_use
    path.unlink()
    assert await watched()
    path.write_bytes(good)
    path.chmod(0o600)
    assert not await watched()


async def test_key_of_another_pair_is_an_alert(server, watched, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ensure_certificate(other, DOMAIN)
    good = (server.directory / KEY_NAME).read_bytes()
    (server.directory / KEY_NAME).write_bytes((other / KEY_NAME).read_bytes())
    assert await watched()
    (server.directory / KEY_NAME).write_bytes(good)
    assert not await watched()


async def test_pair_with_another_key_is_shown_to_visitors_and_links_keep_theirs(config, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ensure_certificate(other, DOMAIN)
    server = Server(config)
    await server.start()
    try:
        port = server.addresses(ListenerKind.TLS)[0].port
        pinned = await asyncio.to_thread(certificate_of, port, DOMAIN, LINK)
        for name in (KEY_NAME, CHAIN_NAME):
            (server.directory / name).write_bytes((other / name).read_bytes())
        await server.notifications.certificates.check()
        shown = await asyncio.to_thread(certificate_of, port, DOMAIN)
        assert shown == ssl.PEM_cert_to_DER_cert((other / CHAIN_NAME).read_text())
        assert await asyncio.to_thread(certificate_of, port, DOMAIN, BY_AUTHORITY) == shown
        kept = await asyncio.to_thread(certificate_of, port, DOMAIN, LINK)
        assert fingerprint_of(kept) == fingerprint_of(pinned) == server.link_certificate.fingerprint
    finally:
        server.force_stop()
        await server.stop()
    again = Server(config)
    await again.start()
    try:
        port = again.addresses(ListenerKind.TLS)[0].port
        kept = await asyncio.to_thread(certificate_of, port, DOMAIN, LINK)
        assert fingerprint_of(kept) == fingerprint_of(pinned)
        assert await asyncio.to_thread(certificate_of, port, DOMAIN) == shown
    finally:
        again.force_stop()
        await again.stop()


async def test_key_readable_by_everybody_is_an_alert(server, watched):
    (server.directory / KEY_NAME).chmod(0o644)
    assert await watched()


async def test_new_certificate_of_the_same_key_is_taken(server, watched):
    before = server.notifications.certificates.current
    (server.directory / CHAIN_NAME).unlink()
    made = ensure_certificate(server.directory, DOMAIN)
    assert not await watched()
    assert server.notifications.certificates.current.chain_pem == made.chain_pem != before.chain_pem
    status = await asyncio.to_thread(call_control, server.directory / CONTROL_SOCKET_NAME, "status")
    assert status["certificates"][0]["expires"] == made.expires_at


async def test_new_certificate_is_shown_to_visitors_while_nothing_else_changes(config):
    server = Server(config)
    await server.start()
    try:
        (server.directory / CHAIN_NAME).unlink()
        made = ensure_certificate(server.directory, DOMAIN)
        await server.notifications.certificates.check()
        port = server.addresses(ListenerKind.TLS)[0].port
        for name in (DOMAIN, f"some.{DOMAIN}"):
            shown = await asyncio.to_thread(certificate_of, port, name)
            assert shown == ssl.PEM_cert_to_DER_cert(made.chain_pem.decode())
    finally:
        server.force_stop()
        await server.stop()


async def test_files_are_checked_by_themselves(server, store):
    (server.directory / CHAIN_NAME).write_bytes(b"garbage")
    await server.notifications.watch.check()
    await eventually(lambda: store.alerts.select(open_only=True))
    assert "holds no certificate" in store.alerts.select()[0].text


def test_certificate_that_has_ended_is_refused(tmp_path):
    made = ensure_certificate(tmp_path, DOMAIN)
    with pytest.raises(CertificateError, match="ended on"):
        read_certificate(tmp_path, DOMAIN, now=dt.datetime.fromtimestamp(made.expires_at + 1, dt.UTC))
