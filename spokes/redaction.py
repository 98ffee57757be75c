"""What leaves the server or is written down for people holds no secret: one list of names for every way out.

Owns: SECRET_FIELDS. A new secret member of a row or a rule is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REDACTED = "…"
# Wherever one of these names stands, in a row or deep in a rule, its text is redacted.
SECRET_FIELDS = frozenset(
    {"value", "value_hash", "password_hash", "totp_secret", "secret", "password", "basicHttpAuth", "privateKey"}
)


def redacted(value: Any) -> Any:
    """The same JSON without its secrets; that one is empty may be seen."""
    if isinstance(value, Mapping):
        return {
            name: REDACTED if name in SECRET_FIELDS and inner else redacted(inner) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return value
