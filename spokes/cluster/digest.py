"""A digest of a set of objects that does not depend on their order and follows a change in constant time.

Each object has an element, a keyed hash of (kind, uid, rev, body); the digest is the sum of all elements modulo 2**256.
Adding an object adds its element, removing one subtracts it. The key keeps whoever chooses bodies from choosing
elements; 256 bits keep sums of different sets apart.
"""

from __future__ import annotations

import hashlib
import hmac

DIGEST_BYTES = 32
EMPTY = 0                                # of no objects

_MODULUS = 1 << (8 * DIGEST_BYTES)


def digest_key(cluster_key: bytes) -> bytes:
    """The key of a cluster's digests."""
    return hmac.digest(cluster_key, b"spokes cluster digest 1", "sha256")


def element(key: bytes, kind: str, uid: str, rev: int, body: str) -> int:
    """Of one object; `body` is its canonical JSON."""
    # Kind and uid hold no NUL and rev is a number, so no two objects are written alike.
    text = f"{kind}\0{uid}\0{rev}\0{body}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=DIGEST_BYTES, key=key).digest(), "big")


def added(digest: int, one: int) -> int:
    return (digest + one) % _MODULUS


def removed(digest: int, one: int) -> int:
    return (digest - one) % _MODULUS


def to_hex(digest: int) -> str:
    return f"{digest:0{2 * DIGEST_BYTES}x}"


def from_hex(text: str) -> int:
    return int(text, 16)
