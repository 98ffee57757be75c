"""The server: where it is, and what proves that it is the right one."""

from __future__ import annotations

from dataclasses import dataclass

from spokes.client.config import ClientConfig, join_host_port
from spokes.fingerprints import parse_fingerprint


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server, and what proves that it is the right one: a pinned key, else authorities (given or the system's)."""

    host: str
    port: int
    pin_sha256: bytes = b""
    ca_file: str = ""

    @classmethod
    def of(cls, config: ClientConfig) -> Endpoint:
        host, port = config.server_address()
        pin = parse_fingerprint(config.server_key) if config.server_key else b""
        return cls(host=host, port=port, pin_sha256=pin, ca_file=config.server_ca)

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)
