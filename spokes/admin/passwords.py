"""Passwords and second factors of people.

Bound: one hash at once for logins and one for all other work, because each takes MEMORY_KIB (hash_slots.py). Slots for
logins are taken by nothing else, so that who sets passwords in a loop shuts nobody out.
Source: TOTP is RFC 6238, 30 s, six digits; how passwords are kept: password_hash.py.
"""

from __future__ import annotations

import hmac

from spokes import clock
from spokes.admin.hash_slots import HashSlots, Rank
from spokes.errors import ValueRefusedError
from spokes.password_hash import fits, hash_of
from spokes.wire.api_types import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN

LOGIN_WAITING_MAX = 4                    # some tens of logins a second pass, more than people make
WORK_WAITING_MAX = 2
TOTP_STEP_S = 30
TOTP_DRIFT_STEPS = 1                     # clocks of telephones are a little off

_logins = HashSlots(LOGIN_WAITING_MAX)
_work = HashSlots(WORK_WAITING_MAX)


def hash_password(password: str, *, owner: str = "") -> str:
    """Its argon2id hash; ValueRefusedError if it is too short or too long to be one. `owner`: for whom it is done."""
    if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
        raise ValueRefusedError(f"a password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")
    return hash_text(password, owner=owner)


def hash_text(text: str, *, owner: str = "") -> str:
    """The argon2id hash of any text, as the passwords of pages are: those are as good as whoever sets them wants."""
    with _work.slot(owner):
        return hash_of(text)


def verify_login(password_hash: str, password: str, *, source: str = "", rank: Rank = Rank.UNKNOWN) -> bool:
    """As verify_password, in the slots that are for logins. `source`: from where it comes."""
    with _logins.slot(source, rank):
        return fits(password_hash, password[:PASSWORD_CHARS_MAX])


def verify_password(password_hash: str, password: str, *, owner: str = "") -> bool:
    """Whether it is this password; with an empty hash False, after as long a time. `owner`: for whom it is done."""
    with _work.slot(owner):
        return fits(password_hash, password[:PASSWORD_CHARS_MAX])


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


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
