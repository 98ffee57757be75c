"""Certificates for tests: from an authority of their own, with names, dates and kinds of key as a test wants them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of_key(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@dataclass
class Authority:
    """A root, and an intermediate that signs."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=ec_key)
    key: ec.EllipticCurvePrivateKey = field(default_factory=ec_key)

    def __post_init__(self) -> None:
        self.root = self._sign("root", "root", self.root_key, self.root_key)
        self.intermediate = self._sign("intermediate", "root", self.key, self.root_key)

    def _sign(
        self, subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder(named(issuer), named(subject), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=400))
            .not_valid_after(now + dt.timedelta(days=4000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(by, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )

    def issue(self, *names: str, days: float = 90, key: Key | None = None) -> tuple[bytes, bytes]:
        """(the leaf, its key) as PEM."""
        key, now = key or ec_key(), dt.datetime.now(dt.UTC)
        leaf = (
            x509.CertificateBuilder(
                named("intermediate"), named("leaf"), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(now - dt.timedelta(days=300))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return leaf.public_bytes(Encoding.PEM), pem_of_key(key)

    def put(self, folder: Path, *names: str, days: float = 90) -> bytes:
        """A pair as operators leave it; the leaf."""
        leaf, key = self.issue(*names, days=days)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "privkey.pem", key)
        write(folder / "fullchain.pem", leaf + self.intermediate)
        return leaf


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
