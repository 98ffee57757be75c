"""How passwords are kept: as argon2id hashes, of people and of pages alike.

Fails: never for what a password is; each call takes MEMORY_KIB and tens of milliseconds, so callers bound how many run
at once.
Source: argon2id with OWASP's parameters for 19 MiB.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MEMORY_KIB = 19 * 1024
ROUND_COUNT = 2

_OWN_HASH = re.compile(
    rf"\$argon2id\$v=19\$m={MEMORY_KIB},t={ROUND_COUNT},p=1\$[A-Za-z0-9+/]{{22}}\$[A-Za-z0-9+/]{{43}}"
)


def is_own_hash(text: str) -> bool:
    """Whether it is a hash as hash_of() makes them.

    Others, however they look, are texts: their parameters would say how long each check of a visitor's password takes.
    """
    return _OWN_HASH.fullmatch(text) is not None


def hash_of(text: str) -> str:
    return _hasher().hash(_bytes(text))


def fits(own_hash: str, text: str) -> bool:
    """Whether it is the hash of this text; after as long a time whatever stands in its place."""
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return _hasher().verify(own_hash or _unknown_hash(), _bytes(text)) and bool(own_hash)
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=ROUND_COUNT, memory_cost=MEMORY_KIB, parallelism=1)


@cache
def _unknown_hash() -> str:
    """What the password of somebody unknown is held against, so that their login takes as long."""
    return _hasher().hash("nobody's password")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
