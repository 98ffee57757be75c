"""The modules that define operations, imported together where an operation is looked up by its name."""

from spokes.model import (
    api_keys,
    domains,
    passwords,
    portmaps,
    ports,
    rule_lists,
    sites,
    tokens,
    tunnels,
    users,
    webhooks,
)

__all__ = [
    "api_keys", "domains", "passwords", "portmaps", "ports", "rule_lists", "sites", "tokens", "tunnels", "users",
    "webhooks",
]
