"""The server, or a node of it: where it is, and what proves that it is the right one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from spokes.client.config import ClientConfig, join_host_port
from spokes.fingerprints import parse_fingerprint


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pinned key proves that it is the right one, else authorities (given or the system's)."""

    host: str
    port: int
    pin_sha256: bytes = b""
    ca_file: str = ""
    other_pins: tuple[bytes, ...] = ()  # keys of a cluster's other nodes
    server_name: str = ""  # what the certificate must be of where no key is pinned; "": `host`

    @classmethod
    def of(cls, config: ClientConfig) -> Endpoint:
        host, port = config.server_address()
        pins = [parse_fingerprint(text) for text in config.server_keys()]
        return cls(
            host=host, port=port, pin_sha256=pins[0] if pins else b"", ca_file=config.server_ca,
            other_pins=tuple(pins[1:]),
        )

    def nodes_at(self, host: str, port: int) -> tuple[Endpoint, ...]:
        """A node of this server, with each key that may be its own; tried in turn.

        Without pins the certificate must be of the server's own name, whatever name DNS gave for the node: whoever
        forges an answer of DNS has certificates for names of theirs.
        """
        node = dataclasses.replace(self, host=host, port=port, other_pins=())
        if not self.pin_sha256:
            return (dataclasses.replace(node, server_name=self.host),)
        return tuple(dataclasses.replace(node, pin_sha256=pin) for pin in (self.pin_sha256, *self.other_pins))

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)
