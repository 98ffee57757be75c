"""The key by which a node shows the others which one it is, apart from the key that clients pin.

Owns: `node.key` of the data directory, an Ed25519 key, mode 0600. Others know its public half from the cluster's list
of nodes.
Fails: CertificateError where the file is there and cannot be used, DataDirError where it cannot be written.
Source: RFC 8032 (Ed25519); docs/protocol.md, "Links between nodes".
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from spokes.errors import CertificateError
from spokes.server.base.datadir import write_private

FILE_NAME = "node.key"
CONTEXT = b"spokes-node-link/1"


class NodeKey:
    """The private half."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> str:
        """In base64, as the list of nodes has it."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, nonce: str, dialler: str, acceptor: str) -> str:
        """Base64. `nonce`: of the acceptor's welcome; who was dialled is part of it, so that nobody can pass it on."""
        return base64.b64encode(self._key.sign(_statement(nonce, dialler, acceptor))).decode()


def is_signed(public: str, signature: str, nonce: str, dialler: str, acceptor: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signature, validate=True), _statement(nonce, dialler, acceptor))
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def load_node_key(data: Path) -> NodeKey:
    """Made where it is not there yet."""
    path = data / FILE_NAME
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}", hint="check its owner and mode") from None
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    else:
        if isinstance(key, Ed25519PrivateKey):
            return NodeKey(key)
    raise CertificateError(f"{path} holds no Ed25519 key", hint="put it back from a backup, or join again")


def _make(path: Path) -> NodeKey:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, pem)
    return NodeKey(key)


def _statement(nonce: str, dialler: str, acceptor: str) -> bytes:
    return b"\n".join((CONTEXT, nonce.encode(), dialler.encode(), acceptor.encode()))
