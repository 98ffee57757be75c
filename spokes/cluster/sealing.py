"""Secrets in what travels between nodes: each is encrypted by itself, with a key that only the cluster's nodes have.

A secret is whatever stands under a name of redaction.SECRET_FIELDS, in a row or deep in a rule. AES-256-GCM; the
associated data binds a sealed secret to its cluster, kind, object and place, so that it cannot be moved to another.
Fails: SealError.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from spokes.errors import SealError
from spokes.redaction import SECRET_FIELDS

PREFIX = "sealed.1."
NONCE_BYTES = 12


def cluster_id(cluster_key: bytes) -> str:
    """32 hex digits that say which cluster a message is of; the key cannot be worked out from them."""
    return hmac.digest(cluster_key, b"spokes cluster id 1", "sha256").hex()[:32]


class Sealer:
    """Seals and opens the secrets of one cluster's objects."""

    def __init__(self, cluster_key: bytes) -> None:
        self._cluster = cluster_id(cluster_key)
        self._cipher = AESGCM(
            HKDF(SHA256(), 32, salt=None, info=b"spokes cluster sealing 1").derive(cluster_key)
        )

    def seal(self, kind: str, uid: str, body: dict[str, Any]) -> dict[str, Any]:
        """The same object, its secrets encrypted. An empty one stays: that there is none is no secret."""
        return self._walk(kind, uid, body, self._encrypted)

    def open(self, kind: str, uid: str, body: dict[str, Any]) -> dict[str, Any]:
        """What seal() was given; SealError where a secret is not sealed, or for another place or cluster."""
        return self._walk(kind, uid, body, self._decrypted)

    def _walk(
        self, kind: str, uid: str, body: dict[str, Any], change: Callable[[Any, bytes], Any]
    ) -> dict[str, Any]:
        place = f"{self._cluster}\0{kind}\0{uid}"

        def walk(value: Any, path: str) -> Any:
            if isinstance(value, dict):
                return {
                    name: change(inner, f"{place}\0{path}{name}".encode()) if name in SECRET_FIELDS and inner
                    else walk(inner, f"{path}{name}.") if isinstance(inner, dict | list | tuple) else inner
                    for name, inner in value.items()
                }
            if isinstance(value, list | tuple):
                return [walk(inner, f"{path}{number}.") for number, inner in enumerate(value)]
            return value

        found: dict[str, Any] = walk(body, "")
        return found

    def _encrypted(self, value: Any, place: bytes) -> str:
        nonce = os.urandom(NONCE_BYTES)
        text = nonce + self._cipher.encrypt(nonce, json.dumps(value).encode(), place)
        return PREFIX + base64.b64encode(text).decode()

    def _decrypted(self, value: Any, place: bytes) -> Any:
        if not isinstance(value, str) or not value.startswith(PREFIX):
            raise SealError("a secret came from another node without encryption")
        try:
            text = base64.b64decode(value[len(PREFIX):], validate=True)
            return json.loads(self._cipher.decrypt(text[:NONCE_BYTES], text[NONCE_BYTES:], place))
        except (binascii.Error, InvalidTag, ValueError):
            raise SealError(
                "a secret that came from another node cannot be opened", hint="join this node to the cluster again"
            ) from None
