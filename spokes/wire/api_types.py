"""The types of the Admin API's members, used by every struct that it takes or answers, and by webhooks.

Owns: their limits and their form, both ways. An answer's number is always an int, a time always has an offset.
Source: the Admin API's data types, docs/admin-api.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

INT64_MAX = 2**63 - 1
COUNT_MAX = 2**31 - 1                    # what both database engines hold in a plain integer column
PASSWORD_CHARS_MIN = 10
PASSWORD_CHARS_MAX = 512                 # argon2 has no limit; how long hashing takes is not for the caller to say
HOST_CHARS_MAX = 254                     # 253 bytes and the dot that may end it
TEXT_CHARS_MAX = 255                     # a name or description; the store refuses more
ZERO_TIME = "0001-01-01T00:00:00Z"       # "never"
FAR_TIME = "9999-12-31T23:59:59Z"
TIME_S_MAX = 253_402_300_799             # FAR_TIME
SECOND_COUNT_MAX = 16_384                # whose texts are remembered: some 3 MB
_DIGITS = len("9999-12-31T23:59:59")

_SEEN = r"[^\u0000-\u001f\u007f-\u009f\u2028\u2029]"
_ADDRESS = r"[^\s@\u0000-\u001f\u007f-\u009f]"
_LETTER = r"[^\u0000-/:-@\[-^`{-\u007f]"       # of a label: letters of all scripts, digits, underscores
_LABEL = rf"{_LETTER}([^\u0000-,./:-@\[-^`{{-\u007f]{{0,61}}{_LETTER})?"
_HOST = rf"(?=[^*]{{1,253}}\.?$)({_LABEL}\.)*{_LABEL}\.?"

# `uid` is what dispatch.py looks for: upper case is folded, "" and null are the zero UID.
UID_FORMAT = "uid"

Uid = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{32}$", min_length=32, max_length=32, extra_json_schema={"format": UID_FORMAT},
        description="32 hex digits; 32 zeros are the system, or none",
    ),
]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339 with an offset")]
Text = Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
# What these mean is checked where it is stored, or used, which takes some more kindly; their patterns and limits tell
# it, so that requests made from the description are taken. What no pattern can say stands in words.
Name = Annotated[
    str,
    Meta(
        max_length=TEXT_CHARS_MAX, extra_json_schema={"pattern": rf"^{_SEEN}*$"},
        description="for one line: no control characters, and none that are not seen",
    ),
]
Email = Annotated[
    str,
    Meta(
        max_length=TEXT_CHARS_MAX, extra_json_schema={"pattern": rf"^({_ADDRESS}+@{_ADDRESS}+)?$"},
        description="an e-mail address, another for each user; empty: none",
    ),
]
Hostname = Annotated[
    str,
    Meta(
        max_length=HOST_CHARS_MAX, extra_json_schema={"pattern": rf"^({_HOST})?$"},
        description="a host name as DNS or IDNA 2008 has it; empty: the server chooses",
    ),
]
Domain = Annotated[
    str,
    Meta(
        min_length=1, max_length=len("*.") + HOST_CHARS_MAX, extra_json_schema={"pattern": rf"^(\*\.)?{_HOST}$"},
        description="a host name as DNS or IDNA 2008 has it, or `*.` and one: every name below it",
    ),
]
Secret = Annotated[str, Meta(max_length=1024)]
NewPassword = Annotated[str, Meta(max_length=PASSWORD_CHARS_MAX, extra_json_schema={"minLength": PASSWORD_CHARS_MIN})]
KeyValue = Annotated[str, Meta(max_length=128, description="64 lower-case hex digits")]
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
Bytes = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Seconds = Annotated[int, Meta(ge=0, le=INT64_MAX)]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]
Enum16 = Annotated[int, Meta(ge=0, le=65535)]


def time_text(unix_s: float | None) -> str:
    """RFC 3339 in UTC, whole seconds; the zero time for a moment that never was."""
    if not unix_s or unix_s <= 0:
        return ZERO_TIME
    if unix_s >= TIME_S_MAX:
        return FAR_TIME
    return _second_text(int(unix_s))


# A complete list holds tens of thousands of these, most of them the same as the last time.
@lru_cache(maxsize=SECOND_COUNT_MAX)
def _second_text(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:_DIGITS] + "Z"      # a third of strftime's time
