"""A folder's pair: found by content under any names, in order; each way in which it can be bad has its words."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509 import ocsp

from spokes._fastpath.engine import Certificate
from spokes.errors import CertificateError
from spokes.server.certificates.certificate_files import FILE_COUNT_MAX, Pair, read_pair, signature
from tests.support.certificate_pairs import Authority, write

NAMES = ("*.example.net", "example.net")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "certs-extra" / "wildcard_.example.net"
    folder.mkdir(parents=True)
    return folder


def read(folder: Path, *, now: dt.datetime | None = None) -> Pair:
    return read_pair(folder, folder.parent, now or dt.datetime.now(dt.UTC))


def chain_of(pair: Pair) -> list[bytes]:
    found = x509.load_pem_x509_certificates(pair.chain_pem)
    return [one.public_bytes(serialization.Encoding.PEM) for one in found]


@pytest.mark.parametrize(
    "files",
    [
        {"fullchain.pem": "leaf chain", "privkey.pem": "key"},
        {"cert.pem": "leaf", "chain.pem": "chain", "fullchain.pem": "leaf chain", "privkey.pem": "key"},
        {"all-in-one": "key chain root leaf"},
        {"a.crt": "root chain", "b.crt": "leaf", "c": "key"},
        {"x": "words leaf words chain", "y": "words key", "README": "words", "empty": ""},
    ],
)  # fmt: skip
def test_pair_is_found_by_content_and_put_in_order(authority: Authority, folder: Path, files: dict[str, str]) -> None:
    leaf, key = authority.issue(*NAMES)
    parts = {
        "leaf": leaf, "key": key, "chain": authority.intermediate, "root": authority.root,
        "words": b"subject=/CN=example\n",
    }  # fmt: skip
    for name, content in files.items():
        write(folder / name, b"".join(parts[part] for part in content.split()))
    pair = read(folder)
    assert sorted(pair.names) == sorted(NAMES)
    assert chain_of(pair) == [leaf, authority.intermediate]
    Certificate(pair.names, pair.chain_pem, pair.key_pem)


def test_links_within_the_tree_are_followed(authority: Authority, folder: Path) -> None:
    leaf = authority.put(folder.parent / "archive", *NAMES)
    for name in ("fullchain.pem", "privkey.pem"):
        (folder / name).symlink_to(f"../archive/{name}")
    assert chain_of(read(folder))[0] == leaf


def test_longer_lived_pair_of_a_folder_is_taken(authority: Authority, folder: Path) -> None:
    authority.put(folder, *NAMES, days=10)
    leaf, key = authority.issue(*NAMES, days=80)
    write(folder / "new.pem", leaf + key)
    assert chain_of(read(folder))[0] == leaf


def test_rsa_and_addresses_are_taken(authority: Authority, folder: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    leaf, key_pem = authority.issue("192.0.2.7", "2001:db8::7", "a.example.net", key=key)
    write(folder / "pair.pem", leaf + key_pem)
    pair = read(folder)
    assert set(pair.names) == {"192.0.2.7", "2001:db8::7", "a.example.net"}
    Certificate(pair.names, pair.chain_pem, pair.key_pem)


def test_valid_response_for_the_leaf_is_its_staple(authority: Authority, folder: Path) -> None:
    leaf, key = authority.issue(*NAMES)
    other, _ = authority.issue(*NAMES)
    write(folder / "pair.pem", leaf + key)
    write(folder / "noise.der", b"\x30\x03abc")
    good = response(authority, leaf, hours=2)
    for name, data in (("other.ocsp", response(authority, other, hours=9)), ("good.ocsp", good),
                       ("old.ocsp", response(authority, leaf, hours=-1))):
        write(folder / name, data)
    assert read(folder).staple == good
    assert read(folder, now=dt.datetime.now(dt.UTC) + dt.timedelta(hours=3)).staple == b""


def response(authority: Authority, leaf: bytes, *, hours: float) -> bytes:
    certificate, issuer = x509.load_pem_x509_certificate(leaf), x509.load_pem_x509_certificate(authority.intermediate)
    now = dt.datetime.now(dt.UTC)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=certificate, issuer=issuer, algorithm=hashes.SHA1(), cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=now - dt.timedelta(days=1), next_update=now + dt.timedelta(hours=hours),
        revocation_time=None, revocation_reason=None,
    )  # fmt: skip
    signed = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, issuer).sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


# --- what cannot be used ----------------------------------------------------------------------------------------------


def spoil(authority: Authority, folder: Path, how: str) -> None:
    leaf, key = authority.issue(*NAMES)
    match how:
        case "empty":
            return
        case "no key":
            write(folder / "a", leaf)
        case "no certificate":
            write(folder / "a", key)
        case "two pairs":
            write(folder / "a", leaf + authority.issue(*NAMES)[1])
        case "cut":
            write(folder / "a", leaf[:-40])
            write(folder / "b", key)
        case "garbled":
            write(folder / "a", leaf[:100] + b"AAAA" + leaf[104:])
            write(folder / "b", key)
        case "open":
            write(folder / "a", leaf + key)
            (folder / "a").chmod(0o604)
        case "fifo":
            write(folder / "a", leaf + key)
            os.mkfifo(folder / "z")
        case "link out":
            write(folder / "a", leaf)
            (folder.parent.parent / "key").write_bytes(key)
            (folder / "b").symlink_to("../../key")
        case "dangling":
            (folder / "a").symlink_to("nothing")
        case "large":
            write(folder / "a", leaf + key)
            write(folder / "b", bytes(300_000))
        case "gigabytes":
            write(folder / "a", leaf + key)
            with (folder / "b").open("wb") as file:     # sparse
                file.truncate(5_000_000_000)
        case "many":
            write(folder / "a", leaf + key)
            for number in range(FILE_COUNT_MAX):
                write(folder / f"b{number}", b"")
        case "ended":
            authority.put(folder, *NAMES, days=-1)
        case "nameless":
            write(folder / "a", b"".join(authority.issue()))
        case "short":
            write(folder / "a", b"".join(authority.issue(*NAMES, key=rsa.generate_private_key(65537, 1024))))
        case "kind":
            pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write(folder / "a", leaf + pem)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("empty", "holds no certificate"), ("no key", "holds no private key"),
        ("no certificate", "holds no certificate"),
        ("two pairs", "no key in .* belongs"), ("cut", "cut off"), ("garbled", "cannot be read"),
        ("open", "read by everybody"), ("fifo", "no regular file"), ("link out", "leads out of"),
        ("dangling", "cannot be read"), ("large", "larger than"),
        ("gigabytes", "larger than"), ("many", "more than"), ("ended", "ended on"),
        ("nameless", "names no host"), ("short", "1024 bits"), ("kind", "kind not used"),
    ],
)  # fmt: skip
def test_folder_that_cannot_be_used_says_why(authority: Authority, folder: Path, how: str, words: str) -> None:
    spoil(authority, folder, how)
    with pytest.raises(CertificateError, match=words) as caught:
        read(folder)
    assert str(folder) in str(caught.value)


def test_signature_changes_with_any_file(authority: Authority, folder: Path) -> None:
    authority.put(folder, *NAMES)
    seen = {signature(folder)}
    write(folder / "privkey.pem", b"x")
    seen.add(signature(folder))
    (folder / "link").symlink_to("privkey.pem")
    seen.add(signature(folder))
    (folder / "fullchain.pem").unlink()
    seen.add(signature(folder))
    assert len(seen) == 4
