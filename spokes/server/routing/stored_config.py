"""A tunnel's rules as the store holds them, in the form of its client's configuration. Runs on the store's thread.

Bound: RULES_BYTES_MAX a tunnel, which every operation that changes rules keeps.
"""

from __future__ import annotations

from typing import NamedTuple

from spokes.store import Store, Tunnel
from spokes.wire.rules import TunConfig, with_rules


class StoredConfig(NamedTuple):
    """A configuration with the stored rules, and their revision."""

    config: TunConfig
    revision: int


def read_config(store: Store, tunnel_uid: str, domain: str) -> StoredConfig:
    """Fails: NotFoundError when the tunnel was deleted, StoreError."""
    return config_of(store, store.tunnels.get(tunnel_uid), domain)


def config_of(store: Store, tunnel: Tunnel, domain: str) -> StoredConfig:
    """`domain`: the server's own name, which clients of the tunnel connect to."""
    rules = store.rules.read(tunnel.uid)
    config = TunConfig(
        hostname=tunnel.hostname,
        server_host=domain,
        version=tunnel.version,
        os=tunnel.os,
        arch=tunnel.arch,
    )
    config = with_rules(config, sites=rules.sites, ports=rules.ports, portmaps=rules.portmaps)
    return StoredConfig(config, rules.rev)
