"""Certificates in rules: base64 of PEM text whose key must be the certificate's.

Fails: RuleError names the rule and the member.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from spokes.errors import RuleError

T = TypeVar("T")


def check_pair(where: str, ca: str, private_key: str) -> None:
    """Refuses a chain and a key that cannot be read or do not belong together. `where` names the rule in the error."""
    if not ca or not private_key:
        raise RuleError(f"{where}: a certificate needs both ca and privateKey")
    certificates = _read(f"{where}: ca", ca, x509.load_pem_x509_certificates)
    key = _read(f"{where}: privateKey", private_key, lambda pem: load_pem_private_key(pem, password=None))
    try:
        own = certificates[0].public_key()
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        matches = own.public_bytes(*spki) == key.public_key().public_bytes(*spki)
    except (ValueError, UnsupportedAlgorithm):
        raise RuleError(f"{where}: the certificate has a key of an unknown kind") from None
    if not matches:
        raise RuleError(f"{where}: privateKey does not belong to the first certificate of ca")


def _read(where: str, text: str, load: Callable[[bytes], T]) -> T:
    try:
        pem = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RuleError(f"{where} is not base64 of PEM text") from None
    try:
        return load(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RuleError(f"{where} holds no PEM that can be read, or it has a password") from None
