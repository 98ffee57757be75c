"""Fingerprints: what is accepted, what is not."""

from __future__ import annotations

import pytest

from spokes.errors import ConfigError
from spokes.fingerprints import parse_fingerprint

DIGEST = bytes(range(200, 232))
DIGITS = DIGEST.hex()


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        f"sha256:{DIGITS}",
        f"SHA256:{DIGITS.upper()}",
        DIGEST.hex(":"),
        f"sha256:{DIGEST.hex(':').upper()}",
        f"  sha256:{DIGITS}\n",
    ],
)
def test_fingerprint_however_written_is_the_same_bytes(text: str) -> None:
    assert parse_fingerprint(text) == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        DIGITS[:-1],
        DIGITS + "0",
        DIGITS[:-1] + "g",
        DIGITS[:-1] + "٣",  # a digit, but not of ours
        f"sha1:{DIGITS}",
        f"sha256:sha256:{DIGITS}",
        DIGEST.hex(":") + ":",
        DIGITS[:32] + ":" + DIGITS[32:],
        f"{DIGITS[:10]} {DIGITS[10:]}",
    ],
)
def test_fingerprint_malformed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_fingerprint(text)
