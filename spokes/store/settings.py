"""What the operator set that holds for operations of this process; set once by who opens the store."""

from __future__ import annotations

from dataclasses import dataclass

TUNNELS_PER_USER_MAX = 100


@dataclass(slots=True)
class Settings:
    tunnels_per_user_max: int = TUNNELS_PER_USER_MAX   # of a basic user without a maximum of their own; 0: none
    verified_domains_only: bool = False  # users whose domains are checked may serve only what they have verified
