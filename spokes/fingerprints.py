"""Fingerprints of keys: how a server shows its key, and how a client is told which one to expect.

A fingerprint is the SHA-256 of the certificate's SubjectPublicKeyInfo: it names the key, so it outlives certificates.
"""

from __future__ import annotations

import hashlib
import re

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from spokes.errors import ConfigError

PREFIX = "sha256:"
_DIGITS = re.compile(r"[0-9a-f]{64}|[0-9a-f]{2}(?::[0-9a-f]{2}){31}")


def fingerprint(certificate: x509.Certificate) -> str:
    """As shown to people: `sha256:` and 64 hexadecimal digits."""
    return _fingerprint(certificate.public_key())


def fingerprint_of_key(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """That of every certificate made for this key."""
    return _fingerprint(key.public_key())


def _fingerprint(key: CertificatePublicKeyTypes) -> str:
    return PREFIX + hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def parse_fingerprint(text: str) -> bytes:
    """The 32 bytes of a fingerprint as people type it: prefix, colons between bytes and upper case are optional."""
    digits = text.strip().lower().removeprefix(PREFIX)
    if not _DIGITS.fullmatch(digits):
        raise ConfigError(
            "that is no key fingerprint",
            hint=f"it is {PREFIX} and 64 hexadecimal digits, as `spokes server` prints it when it starts",
        )
    return bytes.fromhex(digits.replace(":", ""))
