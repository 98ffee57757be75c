"""Which certificates the engine shows: to visitors by the name that they ask for, to links the link's own.

Owns: the engine's certificates by name. A name that several cover gets the one that lives longest, and one that we made
ourselves only where there is no other; that is said once.
Fails: EngineError for a pair that the TLS library refuses; then nothing has changed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from spokes._fastpath import engine as fastpath
from spokes.server.certificates import Certificate

OWN = "server.crt"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One certificate that may be shown."""

    names: tuple[str, ...]
    expires_at: float  # Unix seconds
    certificate: fastpath.Certificate
    source: str
    is_self_made: bool = False


class ShownCertificates:
    """In force for who comes from now on; conns that stand keep theirs."""

    def __init__(self, engine: fastpath.Engine) -> None:
        self._engine = engine
        self._own: Shown | None = None
        self._extra: list[Shown] = []
        self._by_name: dict[str, Shown] = {}
        self._said: set[tuple[str, ...]] = set()

    def show(self, visitors: Certificate, link: Certificate) -> None:
        """The server's own pairs; the first is shown as well to who names no host."""
        own = Shown(
            names=visitors.names,
            expires_at=visitors.expires_at,
            certificate=fastpath.Certificate(visitors.names, visitors.chain_pem, visitors.key_pem),
            source=OWN,
            is_self_made=visitors.is_self_made,
        )
        for_links = own.certificate
        if link is not visitors:
            for_links = fastpath.Certificate(link.names, link.chain_pem, link.key_pem)
        self._own = own
        self._engine.set_link_certificate(for_links)
        self._publish()

    def set_extra(self, extra: list[Shown]) -> None:
        """All others; those that are not among them any more are shown no longer."""
        self._extra = extra
        self._publish()

    def leads_to(self, shown: Shown) -> bool:
        """Is it the one that is shown for at least one of its names?"""
        return any(self._by_name.get(name) is shown for name in shown.names)

    def leads_to_name(self, name: str) -> bool:
        """Has it, exactly so, a certificate?"""
        return name in self._by_name

    def ends(self) -> dict[str, float]:
        """When those end that visitors are shown, by their first name."""
        return {one.names[0]: one.expires_at for one in set(self._by_name.values())}

    def own(self) -> dict[str, Any] | None:
        """The server's own pair, for `spokes cert ls`."""
        if self._own is None:
            return None
        return {
            "source": "self-made" if self._own.is_self_made else OWN,
            "names": list(self._own.names),
            "expires": self._own.expires_at,
            "state": "in use" if self.leads_to(self._own) else "covered by another",
            "cause": "",
            "hint": "",
        }

    def _publish(self) -> None:
        best: dict[str, Shown] = {}
        everything = [*self._extra, self._own] if self._own is not None else self._extra
        for shown in everything:
            for name in shown.names:
                other = best.get(name)
                if other is None or _rank(shown) > _rank(other):
                    best[name] = shown
                if other is not None and not (shown.is_self_made or other.is_self_made):
                    self._say_covered(name, shown, other)
        for name in self._by_name.keys() - best.keys():
            self._engine.drop_certificate(name)
        for name, shown in best.items():
            if self._by_name.get(name) is not shown:
                self._engine.set_certificate(name, shown.certificate)
        if self._own is not None:
            # To who names no host: the best for the server's own name.
            self._engine.set_certificate("", best[self._own.names[0]].certificate)
        self._by_name = best
        self._engine.publish()

    def _say_covered(self, name: str, one: Shown, other: Shown) -> None:
        key = (name, *sorted((one.source, other.source)))
        if key not in self._said:
            self._said.add(key)
            longer = max(one, other, key=_rank)
            facts = {"host": name, "sources": ",".join(key[1:]), "used": longer.source}
            log.info("two certificates cover a name; the longer-lived one is used", extra=facts)


def _rank(shown: Shown) -> tuple[bool, float, str]:
    return not shown.is_self_made, shown.expires_at, shown.source
