"""Certificates for what is measured: ECDSA P-256 from an authority with an intermediate one, as public ones are."""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LIFETIME = dt.timedelta(days=90)
# wrk names in its hello whatever its URL has, and what that is has to be found without DNS.
HTTPS_NAMES = ("bench.localhost", "127.0.0.1")
CHAIN_NAME, KEY_NAME = "fullchain.pem", "privkey.pem"


class Authority:
    """A root, and an intermediate that signs. Each one that it issues ends an hour later than the one before."""

    def __init__(self) -> None:
        self._now = dt.datetime.now(dt.UTC)
        self._count = itertools.count(1)
        root_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        intermediate = self._unsigned("benchmark intermediate", "benchmark root", self._key, dt.timedelta(days=3650))
        self.intermediate_pem = intermediate.sign(root_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(self, *names: str) -> tuple[bytes, bytes]:
        """(chain, key) as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        lifetime = LIFETIME + dt.timedelta(hours=next(self._count))
        certificate = (
            self._unsigned(names[0], "benchmark intermediate", key, lifetime)
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM) + self.intermediate_pem, key_pem

    def put(self, folder: Path, *names: str) -> bytes:
        """A pair as operators leave it, each file there whole or not at all; the chain."""
        chain, key = self.issue(*names)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in ((KEY_NAME, key), (CHAIN_NAME, chain)):
            temporary = folder / f".{name}"
            temporary.touch(mode=0o600)
            temporary.write_bytes(data)
            temporary.replace(folder / name)
        return chain

    def _unsigned(
        self, subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, lifetime: dt.timedelta
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            _named(issuer), _named(subject), key.public_key(), x509.random_serial_number(),
            self._now - dt.timedelta(days=1), self._now + lifetime,
        )


def leaf_der(chain_pem: bytes) -> bytes:
    """Its first certificate, as a TLS visitor sees it."""
    return x509.load_pem_x509_certificates(chain_pem)[0].public_bytes(Encoding.DER)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
