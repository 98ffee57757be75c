"""Decisions for clients: what a change of configuration means, decided once by the follower of the change log.

Each value holds all that its receiver needs to act: it neither reads the log nor compares what was with what is.
"""

from __future__ import annotations

from dataclasses import dataclass

from spokes.errors import SpokesError
from spokes.server.routing.stored_config import StoredConfig


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """The tunnel's rules are in force as they are here: its client is sent them."""

    tunnel_uid: str
    stored: StoredConfig


@dataclass(frozen=True, slots=True)
class RulesUnreadable:
    """The tunnel's rules changed, and cannot be read: its client's session fails with this."""

    tunnel_uid: str
    error: Exception


@dataclass(frozen=True, slots=True)
class TunnelBlocked:
    """The tunnel may not be here any longer; its client is told the reason."""

    tunnel_uid: str
    reason: SpokesError


@dataclass(frozen=True, slots=True)
class TunnelDeleted:
    """The tunnel is gone for good, and with it what is known of it."""

    tunnel_uid: str
    reason: SpokesError


Decision = RulesChanged | RulesUnreadable | TunnelBlocked | TunnelDeleted
