"""The server's own certificate: made once, kept, renewed for the same key, refused when it cannot be trusted."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spokes.errors import CertificateError, ConfigError, DataDirError
from spokes.fingerprints import parse_fingerprint
from spokes.server.certificates import certificates
from spokes.server.certificates.certificates import (
    CHAIN_NAME,
    KEY_NAME,
    LINK_CHAIN_NAME,
    LINK_KEY_NAME,
    check_certificates,
    ensure_certificate,
    ensure_certificates,
)

DOMAIN = "tunnels.example"


def certificate_in(data_dir: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((data_dir / CHAIN_NAME).read_bytes())


def test_first_start_makes_a_pair_for_the_domain(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, DOMAIN)
    certificate = certificate_in(tmp_path)
    assert made.chain_pem == (tmp_path / CHAIN_NAME).read_bytes()
    assert made.key_pem == (tmp_path / KEY_NAME).read_bytes()
    assert made.names == (DOMAIN, f"*.{DOMAIN}")
    assert made.expires_at == certificate.not_valid_after_utc.timestamp()
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [DOMAIN, f"*.{DOMAIN}"]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert dt.timedelta(days=3650) < lifetime < dt.timedelta(days=3660)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHAIN_NAME, KEY_NAME]  # nothing temporary remains


def test_files_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        ensure_certificate(tmp_path, DOMAIN)
    finally:
        os.umask(previous)
    for name in (KEY_NAME, CHAIN_NAME):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_key_does_not_show_when_printed(tmp_path: Path) -> None:
    assert "PRIVATE KEY" not in repr(ensure_certificate(tmp_path, DOMAIN))


def test_fingerprint_is_what_openssl_says(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = ensure_certificate(tmp_path, DOMAIN)
    public = subprocess.run(
        ["openssl", "x509", "-in", made.chain_path, "-pubkey", "-noout"], check=True, capture_output=True
    ).stdout
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"], input=public, check=True, capture_output=True
    ).stdout
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-binary"], input=der, check=True, capture_output=True
    ).stdout
    assert made.fingerprint == f"sha256:{digest.hex()}"
    assert parse_fingerprint(made.fingerprint) == digest


@pytest.mark.parametrize("name", [DOMAIN, f"calm-otter-7.{DOMAIN}"])
def test_certificate_given_as_authority_is_accepted_by_python(tmp_path: Path, name: str) -> None:
    made = ensure_certificate(tmp_path, DOMAIN)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(made.chain_path, made.key_path)
    client_context = ssl.create_default_context(cafile=str(made.chain_path))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    client.do_handshake()
    server.do_handshake()
    assert client.version() == "TLSv1.3"


def test_second_start_changes_nothing(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, DOMAIN)
    times = [path.stat().st_mtime_ns for path in (first.key_path, first.chain_path)]
    assert ensure_certificate(tmp_path, DOMAIN) == first
    assert ensure_certificate(tmp_path, "Tunnels.Example.") == first  # the same name, written otherwise
    assert [path.stat().st_mtime_ns for path in (first.key_path, first.chain_path)] == times


def test_link_has_the_visitors_pair_as_long_as_the_key_is_the_same(tmp_path: Path) -> None:
    visitors, link = ensure_certificates(tmp_path, DOMAIN)
    assert link == visitors
    assert not (tmp_path / LINK_CHAIN_NAME).exists()


def test_key_of_a_server_from_before_stays_the_links(tmp_path: Path) -> None:
    before = ensure_certificate(tmp_path, DOMAIN)
    assert not (tmp_path / LINK_KEY_NAME).exists()
    _, link = ensure_certificates(tmp_path, DOMAIN)
    assert link.fingerprint == before.fingerprint
    assert (tmp_path / LINK_KEY_NAME).read_bytes() == before.key_pem
    assert stat.S_IMODE((tmp_path / LINK_KEY_NAME).stat().st_mode) == 0o600


def test_visitors_pair_with_another_key_leaves_the_link_its_own(tmp_path: Path) -> None:
    _, pinned = ensure_certificates(tmp_path, DOMAIN)
    for name in (KEY_NAME, CHAIN_NAME):
        (tmp_path / name).unlink()
    other = tmp_path / "other"
    other.mkdir()
    replaced = ensure_certificate(other, DOMAIN)
    for name in (KEY_NAME, CHAIN_NAME):
        (tmp_path / name).write_bytes((other / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    for _ in range(2):
        visitors, link = ensure_certificates(tmp_path, DOMAIN)
        assert (visitors.fingerprint, link.fingerprint) == (replaced.fingerprint, pinned.fingerprint)
        assert link.names == visitors.names
        check_certificates(tmp_path, DOMAIN)
    _, elsewhere = ensure_certificates(tmp_path, "other.example.net")
    assert elsewhere.names == ("other.example.net", "*.other.example.net")
    assert elsewhere.fingerprint == pinned.fingerprint


def test_link_key_lost_is_not_replaced_in_silence(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, DOMAIN)
    (tmp_path / LINK_CHAIN_NAME).write_bytes((tmp_path / CHAIN_NAME).read_bytes())
    (tmp_path / LINK_KEY_NAME).unlink()
    for step in (ensure_certificates, check_certificates):
        with pytest.raises(CertificateError, match=r"its key .*link\.key is not"):
            step(tmp_path, DOMAIN)


def test_key_that_cannot_be_used_is_not_made_the_links(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, DOMAIN)
    (tmp_path / KEY_NAME).write_bytes(b"garbage")
    with pytest.raises(CertificateError):
        ensure_certificates(tmp_path, DOMAIN)
    assert not (tmp_path / LINK_KEY_NAME).exists()


def test_another_domain_gets_a_certificate_for_the_same_key(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, DOMAIN)
    second = ensure_certificate(tmp_path, "other.example")
    assert second.names == ("other.example", "*.other.example")
    assert second.chain_pem != first.chain_pem
    assert second.key_pem == first.key_pem
    assert second.fingerprint == first.fingerprint


def test_certificate_about_to_expire_is_renewed_for_the_same_key(tmp_path: Path) -> None:
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=3640)
    first = ensure_certificate(tmp_path, DOMAIN, now=long_ago)
    second = ensure_certificate(tmp_path, DOMAIN)
    assert second.expires_at > first.expires_at
    assert second.fingerprint == first.fingerprint


def test_certificate_missing_is_made_for_the_key_that_is_there(tmp_path: Path) -> None:
    first = ensure_certificate(tmp_path, DOMAIN)
    first.chain_path.unlink()
    assert ensure_certificate(tmp_path, DOMAIN).fingerprint == first.fingerprint


def test_crash_between_the_two_files_is_healed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "_issue", crash)
        with pytest.raises(KeyboardInterrupt):
            ensure_certificate(tmp_path, DOMAIN)
    key_pem = (tmp_path / KEY_NAME).read_bytes()
    assert ensure_certificate(tmp_path, DOMAIN).key_pem == key_pem


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_address_as_domain_gets_a_certificate_for_it(tmp_path: Path, address: str) -> None:
    made = ensure_certificate(tmp_path, address)
    assert made.names == (address,)
    assert ensure_certificate(tmp_path, address) == made


def test_domain_of_full_length_gets_a_certificate(tmp_path: Path) -> None:
    domain = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 57])
    assert ensure_certificate(tmp_path, domain).names[0] == domain


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", "-a.b", "a b", "bücher.example", "a" * 64 + ".example", "x/y", "*.a"]
)
def test_domain_that_is_none_is_refused(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ConfigError, match="is no domain name"):
        ensure_certificate(tmp_path, domain)
    assert not list(tmp_path.iterdir())


# Refused, and nothing overwritten ------------------------------------------------------------------------------------


def snapshot(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.iterdir() if path.is_file()}


def refused(data_dir: Path, words: str, domain: str = DOMAIN) -> CertificateError:
    before = snapshot(data_dir)
    with pytest.raises(CertificateError, match=words) as caught:
        ensure_certificate(data_dir, domain)
    assert snapshot(data_dir) == before
    return caught.value


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
def test_key_open_to_everybody_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = ensure_certificate(tmp_path, DOMAIN).key_path
    path.chmod(mode)
    assert refused(tmp_path, "by everybody").hint == f"chmod 600 {path}"


def test_key_open_to_its_group_is_used(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, DOMAIN)
    made.key_path.chmod(0o640)
    assert ensure_certificate(tmp_path, DOMAIN) == made


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = ensure_certificate(tmp_path / "other", DOMAIN)
    ensure_certificate(tmp_path, DOMAIN).key_path.write_bytes(other.key_pem)
    refused(tmp_path, "is not the key of")


def test_key_lost_is_not_replaced_in_silence(tmp_path: Path) -> None:
    ensure_certificate(tmp_path, DOMAIN).key_path.unlink()
    assert "clients must then pin" in refused(tmp_path, "but its key").hint


def write_key(
    path: Path,
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> None:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            encryption or serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)


def test_key_with_a_password_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(tmp_path / KEY_NAME, key, serialization.BestAvailableEncryption(b"secret"))
    refused(tmp_path, "locked with a password")


def test_key_of_a_kind_not_used_is_refused(tmp_path: Path) -> None:
    write_key(tmp_path / KEY_NAME, ed25519.Ed25519PrivateKey.generate())
    refused(tmp_path, "of a kind not used")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_key_that_is_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    ensure_certificate(tmp_path, DOMAIN).key_path.write_bytes(content)
    refused(tmp_path, "holds no private key")


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_certificate_that_is_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    ensure_certificate(tmp_path, DOMAIN).chain_path.write_bytes(content)
    refused(tmp_path, "holds no certificate")


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, DOMAIN)
    made.chain_path.write_bytes(b"x" * (certificates.FILE_BYTES_MAX + 1))
    refused(tmp_path, "is larger than")


def test_file_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / KEY_NAME, 0o600)
    refused(tmp_path, "no regular file")


def test_file_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    made = ensure_certificate(tmp_path, DOMAIN)
    elsewhere = tmp_path / "elsewhere"
    made.key_path.rename(elsewhere)
    made.key_path.symlink_to(elsewhere)
    refused(tmp_path, "cannot be read")


def test_data_directory_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match="does not exist"):
        ensure_certificate(tmp_path / "nowhere", DOMAIN)


def test_disk_full_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataDirError, match="No space left on device"):
        ensure_certificate(tmp_path, DOMAIN)
    assert not list(tmp_path.iterdir())


# An operator's certificate in the same place -------------------------------------------------------------------------


def put_certificate_of_authority(data_dir: Path, name: str, *, days_valid: int = 90) -> None:
    authority = ec.generate_private_key(ec.SECP256R1())
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=200))
        .not_valid_after(now + dt.timedelta(days=days_valid))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(authority, hashes.SHA256())
    )
    write_key(data_dir / KEY_NAME, key)
    (data_dir / CHAIN_NAME).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


@pytest.mark.parametrize("days_valid", [90, 5, -1])
def test_certificate_of_an_authority_is_used_and_never_overwritten(tmp_path: Path, days_valid: int) -> None:
    put_certificate_of_authority(tmp_path, DOMAIN, days_valid=days_valid)
    before = snapshot(tmp_path)
    assert ensure_certificate(tmp_path, DOMAIN).names == (DOMAIN,)
    assert snapshot(tmp_path) == before


def test_certificate_of_an_authority_for_another_domain_is_refused(tmp_path: Path) -> None:
    put_certificate_of_authority(tmp_path, "other.example")
    refused(tmp_path, "is not for tunnels.example but for other.example")
