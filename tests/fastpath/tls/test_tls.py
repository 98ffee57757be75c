"""TLS between buffers: our client and server against each other, and each against Python's ssl module."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import random
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from spokes._fastpath.hooks.tls_hooks import (
    CODES,
    RECORD_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    TlsContext,
    TlsEnd,
    TlsFailure,
)

NAME = "tunnels.example"
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A certificate with its key."""

    chain_pem: bytes
    key_pem: bytes
    pin: bytes

    def save(self, directory: Path) -> tuple[Path, Path]:
        chain, key = directory / "chain.pem", directory / "key.pem"
        chain.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return chain, key


def alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make_pair(name: str = NAME, *, days_valid: int = 30, issuer: str = "") -> Pair:
    """Self-signed, or signed by an authority that nobody has."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]) if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=days_valid))
        .add_extension(x509.SubjectAlternativeName([alternative_name(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(ec.generate_private_key(ec.SECP256R1()) if issuer else key, hashes.SHA256())
    )
    public_der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        hashlib.sha256(public_der).digest(),
    )


def links_of(pair: Pair) -> TlsContext:
    return TlsContext("links", chain_pem=pair.chain_pem, key_pem=pair.key_pem)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make_pair()


@pytest.fixture(scope="module")
def links(pair: Pair) -> TlsContext:
    return links_of(pair)


@pytest.fixture(scope="module")
def visitors(pair: Pair) -> TlsContext:
    return TlsContext("visitors", chain_pem=pair.chain_pem, key_pem=pair.key_pem)


class PythonEnd:
    """Python's own ssl module in the shape of a TlsEnd."""

    def __init__(self, context: ssl.SSLContext, *, is_server: bool, session: ssl.SSLSession | None = None) -> None:
        self._rx, self._tx = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self._rx, self._tx, is_server, server_hostname=None if is_server else NAME, session=session
        )

    def feed(self, ciphertext: bytes) -> None:
        self._rx.write(ciphertext)

    def take(self, n: int = -1) -> bytes:
        return self._tx.read(n)

    def handshake(self) -> bool:
        return self._unless_waiting(lambda: self.object.do_handshake() or True, False)

    def read(self) -> bytes:
        return self._unless_waiting(self.object.read, b"")

    def write(self, plaintext: bytes) -> int:
        return self.object.write(plaintext)

    @staticmethod
    def _unless_waiting(call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except ssl.SSLWantReadError:
            return otherwise


def python_client(pair: Pair, directory: Path, *, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pair.save(directory)[0]))
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


def python_server(pair: Pair, directory: Path, *, alpn: list[str] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.save(directory))
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context


End = TlsEnd | PythonEnd


def client_end(context: TlsContext | None = None, *, tx_size: int = 65536) -> TlsEnd:
    """A client that pins, so that it needs no authority."""
    return TlsEnd(context or TlsContext("client"), server_name=NAME, has_pin=True, tx_size=tx_size)


def shake(client: End, server: End, *, step: int = 1 << 20) -> None:
    """Handshake, `step` bytes of ciphertext at a time; the server's tickets stay in its tx."""
    client_done = server_done = False
    for _ in range(100_000):
        client_done = client_done or client.handshake()
        server.feed(client.take(step))
        server_done = server_done or server.handshake()
        if client_done and server_done:
            return
        client.feed(server.take(step))
    raise AssertionError("the handshake does not end")


def read_all(source: End, target: End) -> bytes:
    """Moves what source has to send, reads all target can."""
    target.feed(source.take())
    chunks: list[bytes] = []
    while chunk := target.read():
        chunks.append(chunk)
    return b"".join(chunks)


def test_handshake_in_memory_carries_bytes_both_ways(links: TlsContext, pair: Pair) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    assert client.has_link_alpn and server.has_link_alpn
    assert client.check_pin(pair.pin) == 0
    assert client.write(b"to the server") == 13
    assert read_all(client, server) == b"to the server"
    assert server.write(b"to the client") == 13
    assert read_all(server, client) == b"to the client"


# Split and slow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 5, 6, 17, 1000])
def test_handshake_in_crumbs_is_done_all_the_same(links: TlsContext, pair: Pair, step: int) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server, step=step)
    assert client.check_pin(pair.pin) == 0


def test_handshake_first_flight_cut_at_every_byte_waits_for_the_rest(links: TlsContext) -> None:
    client = client_end()
    client.handshake()
    hello = client.take()
    for cut in range(1, len(hello)):
        server = TlsEnd(links)
        server.feed(hello[:cut])
        assert server.handshake() is False and server.take() == b""
        server.feed(hello[cut:])
        assert server.handshake() is False
        assert server.take()[0] == 22, cut  # a handshake record: ServerHello


def test_handshake_tx_of_few_bytes_is_continued(links: TlsContext) -> None:
    client, server = client_end(tx_size=7), TlsEnd(links, tx_size=7)
    shake(client, server)
    assert client.has_link_alpn


def test_read_record_in_crumbs_waits_then_answers(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    client.write(b"whole")
    record = client.take()
    for byte in record[:-1]:
        server.feed(bytes([byte]))
        assert server.read() == b""
        assert not server.has_pending
    server.feed(record[-1:])
    assert server.read() == b"whole"


def test_read_into_little_room_leaves_the_rest_pending(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    client.write(b"0123456789")
    server.feed(client.take())
    assert server.read(4) == b"0123"
    assert server.has_pending
    assert server.read(6) == b"456789"
    assert not server.has_pending


def test_data_that_follows_the_handshake_at_once_is_read(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    client.handshake()
    server.feed(client.take())
    server.handshake()
    client.feed(server.take())
    assert client.handshake()
    client.write(b"no round trip")
    server.feed(client.take())
    assert server.handshake()
    assert server.read() == b"no round trip"


@pytest.mark.parametrize(("tx_size", "step"), [(300, 1 << 20), (1000, 77), (5000, 1 << 20), (40_000, 1 << 20)])
def test_transfer_both_ways_through_small_windows_arrives_whole(links: TlsContext, tx_size: int, step: int) -> None:
    client, server = client_end(tx_size=tx_size), TlsEnd(links, tx_size=tx_size)
    shake(client, server)
    wanted = {client: random.Random(1).randbytes(200_000), server: random.Random(2).randbytes(250_000)}
    left = dict(wanted)
    got = {client: bytearray(), server: bytearray()}
    while len(got[client]) < 250_000 or len(got[server]) < 200_000:
        for source, target in ((client, server), (server, client)):
            left[source] = left[source][source.write(left[source]) :]
            target.feed(source.take(step))
            while chunk := target.read():
                got[target] += chunk
    assert got[server] == wanted[client]
    assert got[client] == wanted[server]


# Room ----------------------------------------------------------------------------------------------------------------


def test_write_takes_whole_records_until_tx_is_full(links: TlsContext) -> None:
    room = 3 * (RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES)
    client, server = client_end(tx_size=room), TlsEnd(links)
    shake(client, server)
    client.take()
    plaintext = random.Random(3).randbytes(100_000)
    taken = client.write(plaintext)
    assert taken == 3 * RECORD_BYTES_MAX
    assert client.write(b"x" * 1000) == 0  # too little room, and nothing is left inside libssl
    client_sent = read_all(client, server)
    assert client_sent == plaintext[:taken]
    assert client.write(b"other bytes than those refused") == 30
    assert read_all(client, server) == b"other bytes than those refused"


def test_write_into_a_nearly_full_tx_makes_no_tiny_record(links: TlsContext) -> None:
    client, server = client_end(tx_size=20_000), TlsEnd(links)
    shake(client, server)
    client.take()
    assert client.write(b"x" * 40_000) == RECORD_BYTES_MAX
    assert client.write(b"x" * 40_000) == 0


def test_write_after_many_records_changes_the_key(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    client.set_record_count(1 << 24)
    client.write(b"under the new key")
    sent = client.take()
    update_bytes = int.from_bytes(sent[3:5])
    assert update_bytes == 5 + 1 + 16  # KeyUpdate, content type, tag: a record before the data's
    server.feed(sent)
    assert server.read() == b"under the new key"
    client.write(b"and on")
    assert int.from_bytes(client.take()[3:5]) == 6 + 1 + 16


# Trust ---------------------------------------------------------------------------------------------------------------


def test_pin_of_another_key_is_refused(links: TlsContext, pair: Pair) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    assert client.check_pin(bytes(32)) == CODES["PIN"]
    assert client.check_pin(pair.pin[:-1] + bytes([pair.pin[-1] ^ 1])) == CODES["PIN"]


def failure_of(client: TlsEnd, server: End) -> TlsFailure:
    with pytest.raises(TlsFailure) as caught:
        shake(client, server)
    return caught.value


def trusting(pair: Pair, directory: Path) -> TlsContext:
    return TlsContext("client", ca_file=str(pair.save(directory)[0]))


def test_certificate_trusted_by_file_is_accepted(links: TlsContext, pair: Pair, tmp_path: Path) -> None:
    client, server = TlsEnd(trusting(pair, tmp_path), server_name=NAME), TlsEnd(links)
    shake(client, server)
    assert client.has_link_alpn


def test_certificate_trusted_by_file_needs_no_authority(tmp_path: Path) -> None:
    pair = make_pair(issuer="An authority")
    shake(TlsEnd(trusting(pair, tmp_path), server_name=NAME), TlsEnd(links_of(pair)))


def test_certificate_with_a_wildcard_covers_whole_labels_only(tmp_path: Path) -> None:
    whole, partial = make_pair(f"*.{NAME}"), make_pair(f"c*.{NAME}")
    name = f"calm.{NAME}"
    shake(TlsEnd(trusting(whole, tmp_path), server_name=name), TlsEnd(links_of(whole)))
    failure = failure_of(TlsEnd(trusting(partial, tmp_path), server_name=name), TlsEnd(links_of(partial)))
    assert str(failure) == "certificate verify failed (hostname mismatch)"


def test_certificate_trusted_by_the_system_is_accepted(
    links: TlsContext, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.save(tmp_path)[0]))
    context = TlsContext("client")
    shake(client_end(context), TlsEnd(links))  # with a pin: the authorities are not read yet
    for _ in range(2):
        shake(TlsEnd(context, server_name=NAME), TlsEnd(links))


def test_certificate_untrusted_is_refused_with_words(links: TlsContext) -> None:
    client, server = TlsEnd(TlsContext("client"), server_name=NAME), TlsEnd(links)
    failure = failure_of(client, server)
    assert failure.code == CODES["TLS"]
    assert str(failure) == "certificate verify failed (self-signed certificate)"
    server.feed(client.take())  # the alert is there to be sent
    with pytest.raises(TlsFailure, match="alert unknown ca"):
        server.handshake()


def test_certificate_of_another_name_is_refused(pair: Pair, links: TlsContext, tmp_path: Path) -> None:
    client = TlsEnd(trusting(pair, tmp_path), server_name="other.example")
    assert str(failure_of(client, TlsEnd(links))) == "certificate verify failed (hostname mismatch)"


def test_certificate_expired_is_refused(tmp_path: Path) -> None:
    expired = make_pair(days_valid=-1)
    server = TlsEnd(links_of(expired))
    failure = failure_of(TlsEnd(trusting(expired, tmp_path), server_name=NAME), server)
    assert str(failure) == "certificate verify failed (certificate has expired)"


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_certificate_of_an_address_is_verified_as_one(tmp_path: Path, address: str) -> None:
    pair = make_pair(address)
    context = trusting(pair, tmp_path)
    links = links_of(pair)
    shake(TlsEnd(context, server_name=address), TlsEnd(links))
    failure = failure_of(TlsEnd(context, server_name="192.0.2.8"), TlsEnd(links))
    assert str(failure) == "certificate verify failed (IP address mismatch)"


def test_client_hello_to_an_address_carries_no_server_name(tmp_path: Path) -> None:
    client = TlsEnd(TlsContext("client"), server_name="192.0.2.7")
    client.handshake()
    assert b"192.0.2.7" not in client.take()
    named = client_end()
    named.handshake()
    assert NAME.encode() in named.take()


def test_client_without_a_server_name_is_refused() -> None:
    with pytest.raises(TlsFailure, match="name of the server"):
        TlsEnd(TlsContext("client"), has_pin=True)


# Contexts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["links", "visitors"])
def test_context_of_bad_material_is_refused_with_words(kind: str, pair: Pair) -> None:
    for chain_pem, key_pem, words in (
        (b"", pair.key_pem, "no certificate found"),
        (b"garbage", pair.key_pem, "no certificate found"),
        (pair.chain_pem.replace(b"A", b"!"), pair.key_pem, "no certificate found"),
        (pair.chain_pem + pair.chain_pem.replace(b"A", b"!"), pair.key_pem, "of the chain cannot be read"),
        (pair.chain_pem, b"", "no usable private key"),
        (pair.chain_pem, make_pair().key_pem, "does not belong"),
        (pair.chain_pem, b"x" * (2 << 20), "too large"),
    ):
        with pytest.raises(TlsFailure, match=words):
            TlsContext(kind, chain_pem=chain_pem, key_pem=key_pem)


def test_context_key_with_a_password_is_refused_without_asking(pair: Pair) -> None:
    key = serialization.load_pem_private_key(pair.key_pem, None)
    locked_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(TlsFailure, match="password"):
        TlsContext("links", chain_pem=pair.chain_pem, key_pem=locked_pem)


def first_flight_bytes(links: TlsContext) -> int:
    client, server = client_end(), TlsEnd(links)
    client.handshake()
    server.feed(client.take())
    server.handshake()
    return len(server.take())


def test_context_sends_the_whole_chain(pair: Pair) -> None:
    other = make_pair("second.example")
    links = TlsContext("links", chain_pem=pair.chain_pem + b"words between\n" + other.chain_pem, key_pem=pair.key_pem)
    alone = links_of(pair)
    other_der_bytes = len(ssl.PEM_cert_to_DER_cert(other.chain_pem.decode()))
    # Each entry adds 5 bytes of lengths; signatures vary by a few.
    assert abs(first_flight_bytes(links) - first_flight_bytes(alone) - other_der_bytes - 5) <= 4


def test_context_ca_file_missing_is_refused_with_words(tmp_path: Path) -> None:
    with pytest.raises(TlsFailure, match="no certificate authority can be read"):
        TlsContext("client", ca_file=str(tmp_path / "missing.pem"))


def test_context_freed_before_its_conns_stays_usable(pair: Pair) -> None:
    links = links_of(pair)
    client, server = client_end(TlsContext("client")), TlsEnd(links)
    del links  # the conn's reference to the context is what remains
    shake(client, server)
    server.write(b"still here")
    assert read_all(server, client) == b"still here"


# ALPN and versions, with Python's ssl module as the other side -------------------------------------------------------


def test_python_client_of_a_link_context_carries_bytes(links: TlsContext, pair: Pair, tmp_path: Path) -> None:
    client = PythonEnd(python_client(pair, tmp_path, alpn=["h2", "spokes/1"]), is_server=False)
    server = TlsEnd(links)
    shake(client, server)
    assert client.object.selected_alpn_protocol() == "spokes/1"
    assert client.object.version() == "TLSv1.3"
    assert client.object.cipher()[0] == "TLS_AES_128_GCM_SHA256"
    assert server.has_link_alpn
    plaintext = random.Random(4).randbytes(50_000)
    client.write(plaintext)
    assert read_all(client, server) == plaintext
    server.write(plaintext)
    assert read_all(server, client) == plaintext


def test_python_server_of_our_client_carries_bytes(pair: Pair, tmp_path: Path) -> None:
    server = PythonEnd(python_server(pair, tmp_path, alpn=["spokes/1"]), is_server=True)
    client = TlsEnd(trusting(pair, tmp_path), server_name=NAME)
    shake(client, server)
    assert client.check_pin(pair.pin) == 0
    assert server.object.version() == "TLSv1.3"
    plaintext = random.Random(5).randbytes(50_000)
    server.write(plaintext)
    assert read_all(server, client) == plaintext
    client.write(plaintext)
    assert read_all(client, server) == plaintext


@pytest.mark.parametrize("alpn", [None, ["http/1.1"], ["spokes/11", "pokes/1"]])
def test_link_context_refuses_a_client_without_its_alpn(
    links: TlsContext, pair: Pair, tmp_path: Path, alpn: list[str] | None
) -> None:
    client, server = PythonEnd(python_client(pair, tmp_path, alpn=alpn), is_server=False), TlsEnd(links)
    with pytest.raises(TlsFailure) as caught:
        shake(client, server)
    assert caught.value.code == CODES["TLS"]
    client.feed(server.take())
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        client.handshake()


def test_client_refuses_a_server_without_the_link_alpn(pair: Pair, tmp_path: Path) -> None:
    server = PythonEnd(python_server(pair, tmp_path), is_server=True)
    failure = failure_of(client_end(), server)
    assert str(failure) == "the server does not speak the link protocol (ALPN spokes/1)"


def test_link_context_refuses_tls_1_2(links: TlsContext, pair: Pair, tmp_path: Path) -> None:
    context = python_client(pair, tmp_path, alpn=["spokes/1"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TlsFailure, match="unsupported protocol"):
        shake(PythonEnd(context, is_server=False), TlsEnd(links))


def test_client_refuses_a_server_of_tls_1_2(pair: Pair, tmp_path: Path) -> None:
    context = python_server(pair, tmp_path, alpn=["spokes/1"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = PythonEnd(context, is_server=True)
    client = client_end()
    client.handshake()
    server.feed(client.take())
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol"):
        server.handshake()
    client.feed(server.take())
    with pytest.raises(TlsFailure, match="alert protocol version"):
        client.handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("alpn", "selected"), [(None, None), (["h2", "http/1.1"], "http/1.1"), (["h2"], None), (["spokes/1"], None)]
)
def test_visitor_context_takes_both_versions_and_any_alpn(
    visitors: TlsContext,
    pair: Pair,
    tmp_path: Path,
    version: ssl.TLSVersion,
    alpn: list[str] | None,
    selected: str | None,
) -> None:
    context = python_client(pair, tmp_path, alpn=alpn)
    context.minimum_version = context.maximum_version = version
    client, server = PythonEnd(context, is_server=False), TlsEnd(visitors)
    shake(client, server)
    assert client.object.selected_alpn_protocol() == selected
    assert not server.has_link_alpn
    server.write(b"page")
    assert read_all(server, client) == b"page"
    client.write(b"request")
    assert read_all(client, server) == b"request"


def test_visitor_context_refuses_tls_1_1(visitors: TlsContext, pair: Pair, tmp_path: Path) -> None:
    context = python_client(pair, tmp_path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(TlsFailure, match="unsupported protocol"):
        shake(PythonEnd(context, is_server=False), TlsEnd(visitors))


# Resumption ----------------------------------------------------------------------------------------------------------


def connect(context: TlsContext, server_context: TlsContext, name: str = NAME, *, has_pin: bool = True) -> TlsEnd:
    """A connected client that has read its ticket."""
    client, server = TlsEnd(context, server_name=name, has_pin=has_pin), TlsEnd(server_context)
    shake(client, server)
    assert client.is_resumed == server.is_resumed
    assert read_all(server, client) == b""
    return client


def test_resumption_second_handshake_is_short_and_still_pinned(links: TlsContext, pair: Pair) -> None:
    context = TlsContext("client")
    assert not connect(context, links).is_resumed
    for _ in range(3):  # each resumed conn brings a ticket for the next
        client = connect(context, links)
        assert client.is_resumed
        assert client.check_pin(pair.pin) == 0
        assert client.check_pin(bytes(32)) == CODES["PIN"]


def test_resumption_with_verification_is_verified(links: TlsContext, pair: Pair, tmp_path: Path) -> None:
    context = trusting(pair, tmp_path)
    assert not connect(context, links, has_pin=False).is_resumed
    assert connect(context, links, has_pin=False).is_resumed


def test_resumption_of_a_pinned_session_does_not_replace_verification(links: TlsContext, tmp_path: Path) -> None:
    context = trusting(make_pair(), tmp_path)  # trusts another certificate
    connect(context, links)
    assert connect(context, links).is_resumed
    failure = failure_of(TlsEnd(context, server_name=NAME), TlsEnd(links))
    assert str(failure) == "certificate verify failed (self-signed certificate)"


def test_resumption_is_by_server_name_and_context(links: TlsContext) -> None:
    context = TlsContext("client")
    connect(context, links)
    assert not connect(context, links, "other.example").is_resumed
    assert not connect(TlsContext("client"), links).is_resumed
    assert connect(context, links).is_resumed
    assert connect(context, links, "other.example").is_resumed


def test_resumption_at_a_server_started_anew_falls_back_to_a_full_handshake(links: TlsContext, pair: Pair) -> None:
    context = TlsContext("client")
    connect(context, links)
    again = links_of(pair)
    client = connect(context, again)
    assert not client.is_resumed
    assert client.check_pin(pair.pin) == 0
    assert connect(context, again).is_resumed


def test_resumption_after_a_broken_record_is_not_tried(links: TlsContext) -> None:
    context = TlsContext("client")
    client = connect(context, links)
    client.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(TlsFailure):
        client.read()
    assert not connect(context, links).is_resumed


def test_sessions_kept_are_bounded_the_oldest_goes(links: TlsContext) -> None:
    context = TlsContext("client")
    for i in range(64):
        connect(context, links, f"host-{i}.example")
    assert connect(context, links, "host-0.example").is_resumed  # used just now, so host-1 is the oldest
    connect(context, links, "host-64.example")
    assert connect(context, links, "host-0.example").is_resumed
    assert connect(context, links, "host-64.example").is_resumed
    assert not connect(context, links, "host-1.example").is_resumed


def test_sessions_of_a_context_shared_by_threads_stay_whole(links: TlsContext, pair: Pair) -> None:
    context = TlsContext("client")

    def reconnect(worker: int) -> int:
        names = [f"host-{i % 70}.example" for i in range(worker, worker + 60)]
        return sum(connect(context, links, name).check_pin(pair.pin) for name in names)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(reconnect, range(0, 40, 10))) == [0, 0, 0, 0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption_of_a_python_visitor_works(
    visitors: TlsContext, pair: Pair, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = python_client(pair, tmp_path)
    context.minimum_version = context.maximum_version = version
    client, server = PythonEnd(context, is_server=False), TlsEnd(visitors)
    shake(client, server)
    read_all(server, client)
    again, server = PythonEnd(context, is_server=False, session=client.object.session), TlsEnd(visitors)
    shake(again, server)
    assert again.object.session_reused and server.is_resumed


# Ends and damage -----------------------------------------------------------------------------------------------------


def test_close_notify_is_the_end(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    client.write(b"last words")
    assert client.shutdown()
    server.feed(client.take())
    assert server.read() == b"last words"
    for _ in range(2):
        with pytest.raises(TlsFailure) as caught:
            server.read()
        assert caught.value.code == CODES["EOF"]
    assert server.end_of_input() == CODES["EOF"]
    server.write(b"half closed")  # the other direction goes on
    assert read_all(server, client) == b"half closed"


def test_end_of_input_without_close_notify_is_a_failure(links: TlsContext) -> None:
    client, server = client_end(), TlsEnd(links)
    shake(client, server)
    assert server.end_of_input() == CODES["TLS"]
    with pytest.raises(TlsFailure):
        server.read()


def test_shutdown_before_the_handshake_has_nothing_to_say(links: TlsContext) -> None:
    server = TlsEnd(links)
    assert server.shutdown()
    assert server.take() == b""


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"SSH-2.0-x\r\n",
        bytes(64),
        b"\xff" * 64,
        b"\x16\x03\x01\xff\xff" + bytes(99),
    ],
)
def test_garbage_instead_of_a_client_hello_is_refused_with_words(links: TlsContext, garbage: bytes) -> None:
    server = TlsEnd(links)
    server.feed(garbage)
    with pytest.raises(TlsFailure) as caught:
        server.handshake()
    assert caught.value.code == CODES["TLS"]
    assert str(caught.value).isascii() and str(caught.value)
    with pytest.raises(TlsFailure):  # and it stays failed
        server.handshake()


@given(st.binary(max_size=300))
def test_any_bytes_never_make_a_handshake(garbage: bytes) -> None:
    server = TlsEnd(FUZZED_LINKS)
    server.feed(garbage)
    try:
        assert server.handshake() is False
    except TlsFailure as failure:
        assert failure.code == CODES["TLS"]


@settings(deadline=None)                # a sanitizer makes each example slower
@given(st.data())
def test_client_hello_with_a_changed_byte_is_refused_or_answered_but_never_done(data: st.DataObject) -> None:
    client = client_end(FUZZED_CLIENT)
    client.handshake()
    hello = bytearray(client.take())
    hello[data.draw(st.integers(5, len(hello) - 1))] ^= data.draw(st.integers(1, 255))
    server = TlsEnd(FUZZED_LINKS)
    server.feed(bytes(hello))
    try:
        server.handshake()
        client.feed(server.take())
        client.handshake()
        server.feed(client.take())
        assert server.handshake() is False  # the transcripts differ
    except TlsFailure as failure:
        assert failure.code == CODES["TLS"]


def test_record_with_any_byte_flipped_is_refused(links: TlsContext) -> None:
    context = TlsContext("client")
    client, server = client_end(context), TlsEnd(links)
    shake(client, server)
    client.write(b"sensitive")
    record_bytes = len(client.take())
    for position in range(5, record_bytes):
        client, server = client_end(context), TlsEnd(links)
        shake(client, server)
        client.write(b"sensitive")
        record = bytearray(client.take())
        record[position] ^= 0x40
        server.feed(bytes(record))
        with pytest.raises(TlsFailure, match="bad record mac"):
            server.read()
        with pytest.raises(TlsFailure, match="had failed before"):
            server.read()
        client.feed(server.take())  # the alert reaches the other side
        with pytest.raises(TlsFailure, match="alert bad record mac"):
            client.read()


def test_words_of_one_conn_are_not_those_of_the_next(links: TlsContext) -> None:
    broken, healthy = TlsEnd(links), TlsEnd(links)
    broken.feed(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(TlsFailure, match="http request"):
        broken.handshake()
    shake(client_end(), healthy)


_PAIR = make_pair()
FUZZED_LINKS = TlsContext("links", chain_pem=_PAIR.chain_pem, key_pem=_PAIR.key_pem)
FUZZED_CLIENT = TlsContext("client")
