"""Passwords and second factors of people.

Bound: HASH_COUNT_MAX hashes at once in a process, because each takes MEMORY_KIB; who has to wait longer than
QUEUE_TIMEOUT_S is refused, and so are more than QUEUE_COUNT_MAX: each waits in a thread that other calls need. Beside
them KNOWN_COUNT_MAX may wait who were let in before, so that a crowd of guessing strangers shuts nobody out.
Source: argon2id with OWASP's parameters for 19 MiB; TOTP is RFC 6238, 30 s, six digits.
"""

from __future__ import annotations

import hmac
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from spokes import clock
from spokes.errors import AdmissionRefusedError, ValueRefusedError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MEMORY_KIB = 19 * 1024
ROUND_COUNT = 2
HASH_COUNT_MAX = 1                       # some tens of logins a second, more than people make
QUEUE_TIMEOUT_S = 5.0
QUEUE_COUNT_MAX = 3
KNOWN_COUNT_MAX = 2
PASSWORD_CHARS_MIN = 10
PASSWORD_CHARS_MAX = 512                 # argon2 has no limit; how long hashing takes is not for the caller to say
TOTP_STEP_S = 30
TOTP_DRIFT_STEPS = 1                     # clocks of telephones are a little off

_OWN_HASH = re.compile(
    rf"\$argon2id\$v=19\$m={MEMORY_KIB},t={ROUND_COUNT},p=1\$[A-Za-z0-9+/]{{22}}\$[A-Za-z0-9+/]{{43}}"
)
_turns = threading.BoundedSemaphore(HASH_COUNT_MAX)
_places = threading.BoundedSemaphore(HASH_COUNT_MAX + QUEUE_COUNT_MAX)
_known_places = threading.BoundedSemaphore(KNOWN_COUNT_MAX)


def hash_password(password: str) -> str:
    """Its argon2id hash; ValueRefusedError if it is too short or too long to be one."""
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise ValueRefusedError(f"a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")
    return hash_text(password)


def hash_text(text: str) -> str:
    """The argon2id hash of any text, as the passwords of pages are: those are as good as whoever sets them wants."""
    with _turn():
        return _hasher().hash(_bytes(text))


def is_own_hash(text: str) -> bool:
    """Whether it is a hash as hash_text() makes them.

    Others, however they look, are texts: their parameters would say how long each check of a visitor's password takes.
    """
    return _OWN_HASH.fullmatch(text) is not None


def verify_password(password_hash: str, password: str, *, known: bool = False) -> bool:
    """Whether it is this password; with an empty hash False, after as long a time.

    `known`: somebody has a session from where this comes.
    """
    from argon2.exceptions import Argon2Error, InvalidHashError

    password = password[:PASSWORD_CHARS_MAX]
    with _turn(known=known):
        try:
            return _hasher().verify(password_hash or _unknown_hash(), _bytes(password)) and bool(password_hash)
        except (Argon2Error, InvalidHashError):
            return False


def new_totp_secret() -> str:
    import pyotp

    return pyotp.random_base32()


def provisioning_uri(secret: str, account: str, issuer: str) -> str:
    """What an authenticator's camera reads."""
    import pyotp

    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def totp_step(secret: str, code: str) -> int | None:
    """The time step whose code this is, of the present one and its neighbours; None if it is none of theirs.

    The caller must see that no step is used twice.
    """
    import pyotp

    totp = pyotp.TOTP(secret)
    code = "".join(code.split())
    now = int(clock.wall_s()) // TOTP_STEP_S
    for step in range(now - TOTP_DRIFT_STEPS, now + TOTP_DRIFT_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), _bytes(code)):
            return step
    return None


@contextmanager
def _turn(*, known: bool = False) -> Iterator[None]:
    places = _places
    if not places.acquire(blocking=False):
        places = _known_places
        if not known or not places.acquire(blocking=False):
            raise _busy()
    try:
        if not _turns.acquire(timeout=QUEUE_TIMEOUT_S):
            raise _busy()
        try:
            yield
        finally:
            _turns.release()
    finally:
        places.release()


def _busy() -> AdmissionRefusedError:
    return AdmissionRefusedError("too many logins at once; try again", retry_after_s=QUEUE_TIMEOUT_S)


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
