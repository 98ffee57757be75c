"""Which certificates the engine shows: to visitors by the name that they ask for, to links the link's own.

Owns: the engine's certificates by name.
Fails: EngineError for a pair that the TLS library refuses; then nothing has changed.
"""

from __future__ import annotations

from spokes._fastpath import engine as fastpath
from spokes.server.certificates import Certificate


class ShownCertificates:
    """In force for who comes from now on; conns that stand keep theirs."""

    def __init__(self, engine: fastpath.Engine) -> None:
        self._engine = engine
        self._names: set[str] = set()

    def show(self, visitors: Certificate, link: Certificate) -> None:
        for_visitors = fastpath.Certificate(visitors.names, visitors.chain_pem, visitors.key_pem)
        for_links = for_visitors
        if link is not visitors:
            for_links = fastpath.Certificate(link.names, link.chain_pem, link.key_pem)
        for name in self._names.difference(for_visitors.names):
            self._engine.drop_certificate(name)
        for name in for_visitors.names:
            self._engine.set_certificate(name, for_visitors)
        self._engine.set_link_certificate(for_links)
        self._names = set(for_visitors.names)
        self._engine.publish()
