"""Bodies of webhooks: a service that goes up or down as the contract has it, every other event in one envelope.

Source: the contract of the Admin API, sections 6 and 8 (api_objects.py); docs/webhooks.md for the envelope and
the kinds of events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from spokes.model.api_objects import HttpService, PortService, Tunnel

SERVICE_KIND = "service"
ALERT_KIND = "alert"
TEST_KIND = "test"
# First words of the kinds of events: `tunnel.created`, `service.up`, `alert.raised`.
SUBJECTS = (
    SERVICE_KIND, ALERT_KIND, "token", "tunnel", "auth_token", "site", "port", "portmap", "user", "api_key", "webhook",
)  # fmt: skip
EVERYTHING = "*"


class ServiceEvent(Struct, frozen=True, kw_only=True):
    """A service came up or went down; exactly one of `http` and `port` is there."""

    tunnel: Tunnel
    http: HttpService | UnsetType = UNSET
    port: PortService | UnsetType = UNSET
    available: bool
    timestamp: datetime


class Event(Struct, frozen=True, kw_only=True):
    """Any other event. The same event has the same id, also when it is sent twice."""

    id: str
    kind: str
    time: datetime
    object: Mapping[str, Any]


def encode(body: ServiceEvent | Event) -> str:
    return msgspec.json.encode(body).decode()


def wants(kinds: Iterable[str], kind: str) -> bool:
    """Whether a webhook with these kinds is told of an event: by its whole kind or its first word; `*` or none at
    all means every event."""
    chosen = set(kinds) or {EVERYTHING}
    return not chosen.isdisjoint({kind, kind.partition(".")[0], EVERYTHING})
