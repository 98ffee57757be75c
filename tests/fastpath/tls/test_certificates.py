"""Certificates of the engine: chosen by name, counted, renewed under live conns; what links are shown; tickets."""

from __future__ import annotations

import datetime as dt
import gc
import hashlib
import os
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
from spokes._fastpath.hooks.hello_hooks import live_certificates
from spokes._fastpath.hooks.tls_hooks import TlsContext, TlsEnd

from spokes._fastpath.engine import Certificate, Engine, EventKind, LinkDown
from spokes.errors import EngineError
from tests.support.engines import (
    CHAIN_PEM,
    DOMAIN,
    KEY_PEM,
    PIN,
    Pair,
    engine_pair,
    eventually,
    make_certificate,
    terminate,
    wait_events,
)
from tests.support.visitors import context_for

PARSED_COUNT_MAX = 512
TICKET_KEY_BYTES = 80
OTHER = ("other.test", *make_certificate("other.test"))


@pytest.fixture
def pair():
    with engine_pair() as pair:
        yield pair


def shake(client: TlsEnd, server: TlsEnd) -> bool:
    """A whole handshake with its tickets; whether it resumed a session."""
    done = [False, False]
    while not all(done):
        done[0] = done[0] or client.handshake()
        server.feed(client.take())
        done[1] = done[1] or server.handshake()
        client.feed(server.take())
    assert client.read() == b""
    return client.is_resumed


def visit(context: TlsContext, client: TlsContext) -> bool:
    return shake(TlsEnd(client, server_name=DOMAIN, has_pin=True), TlsEnd(context))


def links(scope: bytes = bytes(32), keys: bytes = b"") -> TlsContext:
    context = TlsContext("links", chain_pem=CHAIN_PEM, key_pem=KEY_PEM)
    context.use(CHAIN_PEM, KEY_PEM, scope)
    if keys:
        context.set_ticket_keys(keys)
    return context


# --- tickets ----------------------------------------------------------------------------------------------------------


def test_session_is_resumed_over_a_restart_with_the_same_ticket_keys():
    keys, client = os.urandom(TICKET_KEY_BYTES), TlsContext("client")
    assert not visit(links(keys=keys), client)
    assert visit(links(keys=keys), client)
    assert not visit(links(keys=os.urandom(TICKET_KEY_BYTES)), client)


def test_ticket_of_a_key_that_was_rotated_away_from_is_opened_and_renewed():
    old, new, client = os.urandom(TICKET_KEY_BYTES), os.urandom(TICKET_KEY_BYTES), TlsContext("client")
    visit(links(keys=old), client)
    assert visit(links(keys=new + old), client)
    assert visit(links(keys=new), client)       # what came with the last one is of the new key


def test_session_is_resumed_under_the_same_names_alone():
    keys, client = os.urandom(TICKET_KEY_BYTES), TlsContext("client")
    one, other = hashlib.sha256(b"one").digest(), hashlib.sha256(b"other").digest()
    visit(links(one, keys), client)
    assert not visit(links(other, keys), client)
    assert visit(links(other, keys), client)


@pytest.mark.parametrize("keys", [[], [bytes(79)], [bytes(80)] * 5])
def test_ticket_keys_of_another_shape_are_refused(pair, keys):
    with pytest.raises(EngineError, match="ticket keys"):
        pair.server.set_ticket_keys(keys)


def test_visitors_session_is_resumed_at_an_engine_started_anew():
    keys, context = [os.urandom(TICKET_KEY_BYTES)], context_for(CHAIN_PEM, ssl.TLSVersion.TLSv1_2)
    session = None
    for resumes in (False, True):
        with engine_pair() as pair:
            pair.server.set_ticket_keys(keys)
            with (
                socket.create_connection(("127.0.0.1", pair.ports["tls"]), timeout=10) as sock,
                context.wrap_socket(sock, server_hostname=DOMAIN, session=session) as tls,
            ):
                assert tls.session_reused is resumes
                session = tls.session


# --- counted ----------------------------------------------------------------------------------------------------------


def test_certificates_go_with_who_used_them(pair):
    before = live_certificates()[0]
    for i in range(200):
        chain, key = (CHAIN_PEM, KEY_PEM) if i % 2 else OTHER[1:3]
        terminate(pair.server, ["a.test"], chain, key)
        if i % 10 == 0:
            pair.publish()
    pair.publish()
    gc.collect()
    eventually(lambda: live_certificates()[0] <= before + 2)     # the one in force, and that of the table before it
    pair.server.drop_certificate("a.test")
    pair.publish()
    pair.server.set_certificate("b.test", Certificate(["b.test"], CHAIN_PEM, KEY_PEM))
    pair.publish()
    eventually(lambda: live_certificates()[0] <= before + 1)


def test_conn_outlives_its_certificate(pair):
    chain, key, _ = make_certificate("a.test")
    terminate(pair.server, ["a.test"], chain, key)
    pair.publish()
    with (
        socket.create_connection(("127.0.0.1", pair.ports["tls"]), timeout=10) as sock,
        context_for(chain, ssl.TLSVersion.TLSv1_3).wrap_socket(sock, server_hostname="a.test") as tls,
    ):
        pair.server.drop_certificate("a.test")
        for _ in range(2):
            pair.server.set_certificate("b.test", Certificate(["b.test"], CHAIN_PEM, KEY_PEM))
            pair.publish()
        tls.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert tls.recv(65536).startswith(b"HTTP/1.1 421")


def test_certificate_dropped_is_shown_no_more(pair):
    pair.server.drop_certificate(f"*.{DOMAIN}")
    pair.publish()
    with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|unrecognized"):
        shown(pair, f"a.{DOMAIN}")
    assert shown(pair, DOMAIN) == ssl.PEM_cert_to_DER_cert(CHAIN_PEM.decode())


def test_those_used_last_are_kept_parsed_and_no_more():
    contexts = [TlsContext("visitors", chain_pem=CHAIN_PEM, key_pem=KEY_PEM) for _ in range(PARSED_COUNT_MAX + 50)]
    for context in contexts:
        TlsEnd(context)
    assert live_certificates()[1] == PARSED_COUNT_MAX
    TlsEnd(contexts[0])                         # parsed again
    assert live_certificates()[1] == PARSED_COUNT_MAX
    alive = live_certificates()[0]
    del contexts, context
    gc.collect()
    assert live_certificates()[0] <= alive - PARSED_COUNT_MAX
    assert live_certificates()[1] < PARSED_COUNT_MAX


@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        (CHAIN_PEM, OTHER[2], "does not belong"),
        (CHAIN_PEM, b"", "no usable private key"),
        (b"", KEY_PEM, "no certificate"),
        (CHAIN_PEM * 13, KEY_PEM, "more certificates than twelve"),
        (CHAIN_PEM, KEY_PEM + bytes(1 << 20), "too large"),
    ],
)
def test_certificate_that_cannot_be_used_is_refused_with_words(chain, key, words):
    before = live_certificates()
    with pytest.raises(EngineError, match=words):
        Certificate(["a.test"], chain, key)
    assert live_certificates() == before


# --- what links are shown ---------------------------------------------------------------------------------------------


def shown(pair: Pair, name: str, alpn: tuple[str, ...] = ("http/1.1",)) -> bytes:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(alpn)
    with (
        socket.create_connection(("127.0.0.1", pair.ports["tls"]), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname=name) as tls,
    ):
        return tls.getpeercert(binary_form=True)


def outcome(pair: Pair, **trust: object) -> EventKind:
    pair.client.connect_link("127.0.0.1", pair.ports["tls"], server_name=DOMAIN, **trust)
    return wait_events(pair.client, lambda e: e.kind in (EventKind.LINK_UP, EventKind.LINK_DOWN))


def test_certificate_that_was_not_tried_can_be_tried_out_later():
    Certificate(["a.test"], CHAIN_PEM, KEY_PEM, is_tried=False).try_out()
    other = Certificate(["a.test"], CHAIN_PEM, OTHER[2], is_tried=False)
    with pytest.raises(EngineError, match="does not belong"):
        other.try_out()
    with pytest.raises(EngineError, match="no certificate found"):
        Certificate(["a.test"], b"", KEY_PEM, is_tried=False)


def test_link_that_pins_is_shown_the_links_key_and_one_that_verifies_the_names(pair, tmp_path):
    chain, key, _ = make_certificate(DOMAIN, f"*.{DOMAIN}")
    terminate(pair.server, [DOMAIN, f"*.{DOMAIN}"], chain, key)
    pair.publish()
    links_own, visitors = tmp_path / "link.pem", tmp_path / "visitors.pem"
    links_own.write_bytes(CHAIN_PEM)
    visitors.write_bytes(chain)
    assert outcome(pair, pin_sha256=PIN).kind == EventKind.LINK_UP
    assert outcome(pair, ca_file=str(visitors)).kind == EventKind.LINK_UP
    refused = outcome(pair, ca_file=str(links_own))
    assert (refused.kind, refused.code) == (EventKind.LINK_DOWN, LinkDown.TLS)
    assert shown(pair, "unknown.test", ("spokes/1", "spokes-ca/1")) == ssl.PEM_cert_to_DER_cert(CHAIN_PEM.decode())


def test_link_certificate_is_renewed_under_links_that_stand(pair):
    renewed = renew(CHAIN_PEM, KEY_PEM)
    pair.server.set_link_certificate(Certificate([DOMAIN], renewed, KEY_PEM))
    pair.publish()
    assert shown(pair, DOMAIN, ("spokes/1",)) == ssl.PEM_cert_to_DER_cert(renewed.decode())
    assert outcome(pair, pin_sha256=PIN).kind == EventKind.LINK_UP
    eventually(lambda: pair.server.stats()["links_open"] == 2)


def renew(chain_pem: bytes, key_pem: bytes) -> bytes:
    old = x509.load_pem_x509_certificate(chain_pem)
    key = serialization.load_pem_private_key(key_pem, None)
    new = (
        x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return new.public_bytes(serialization.Encoding.PEM)


def test_links_without_a_certificate_get_an_alert():
    server = Engine(workers=1, memory_limit_bytes=64 << 20, accepting=True)
    pair = Pair(server, Engine(workers=1, memory_limit_bytes=64 << 20, accepting=False))
    try:
        server.start()
        pair.client.start()
        pair.listen("tls", 2)
        pair.publish()
        assert outcome(pair, pin_sha256=PIN).kind == EventKind.LINK_DOWN
    finally:
        pair.client.stop()
        server.stop()


# --- OCSP -------------------------------------------------------------------------------------------------------------


def test_ocsp_response_beside_the_certificate_is_stapled(pair, tmp_path: Path):
    chain, key, _ = make_certificate("a.test")
    certificate = x509.load_pem_x509_certificate(chain)
    now = dt.datetime.now(dt.UTC)
    response = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate, issuer=certificate, algorithm=hashes.SHA1(), cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=now, next_update=now + dt.timedelta(days=1), revocation_time=None, revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, certificate)
        .sign(serialization.load_pem_private_key(key, None), hashes.SHA256())
    )
    staple = response.public_bytes(serialization.Encoding.DER)
    pair.server.set_certificate("a.test", Certificate(["a.test"], chain, key, staple=staple))
    pair.publish()
    for version in ("-tls1_2", "-tls1_3"):
        assert "Cert Status: good" in asked(pair, "a.test", version)
        assert "no response sent" in asked(pair, DOMAIN, version)
    assert shown(pair, "a.test")                # who does not ask is served as well


def asked(pair: Pair, name: str, version: str) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-status", version, "-connect", f"127.0.0.1:{pair.ports['tls']}", "-servername", name],
        input="", capture_output=True, text=True, timeout=20, check=False,
    )
    return done.stdout
