"""What leaves the server or is written down for people holds no secret: one list of names for every way out.

Owns: SECRET_FIELDS. A new secret member of a row or a rule is named here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONCEALED = "…"
# Wherever one of these names stands, in a row or deep in a rule, its text is concealed.
SECRET_FIELDS = frozenset(
    {"value", "value_hash", "password_hash", "totp_secret", "secret", "password", "basicHttpAuth", "privateKey"}
)


def concealed(value: Any) -> Any:
    """The same JSON without its secrets; that one is empty may be seen."""
    if isinstance(value, Mapping):
        return {
            name: CONCEALED if name in SECRET_FIELDS and inner else concealed(inner) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [concealed(inner) for inner in value]
    return value
