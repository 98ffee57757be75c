"""What a change of configuration means for a client, decided once by the follower of the change log.

Each value holds all that its receiver needs to act: it neither reads the log nor compares what was with what is.
"""

from __future__ import annotations

from dataclasses import dataclass

from spokes.errors import SpokesError


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """The tunnel's rules are in force at this revision: a client that has an older one is sent them."""

    tunnel_uid: str
    revision: int


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


Decision = RulesChanged | TunnelBlocked | TunnelDeleted
