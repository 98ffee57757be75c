"""Operations as a test asks for them: on the server's own account unless it says on whose behalf."""

from spokes.model.operation import SYSTEM, perform
from spokes.password_hash import MEMORY_KIB, ROUND_COUNT

TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


def password_hash(word):
    """What has the form of a password's hash and is none: operations take no other form. `word`: letters to tell it."""
    return f"$argon2id$v=19$m={MEMORY_KIB},t={ROUND_COUNT},p=1${word.ljust(22, 'x')}${'y' * 43}"


def do(store, operation, principal=SYSTEM):
    return perform(store, principal, operation)
