"""Certificates that the engine shows: to visitors by the name that they ask for, to links the link's own.

Owns: the engine's certificates by name. A name that several cover gets the one that lives longest, and one that we made
ourselves only where there is no other; that is said once.
Fails: EngineError for a pair that the TLS library refuses; then nothing has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from spokes._fastpath import engine as fastpath
from spokes.server.certificates.certificates import Certificate

OWN = "server.crt"
CHANGES_AT_ONCE = 128  # others on the event loop have their turn in between

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
        self._nameless: Shown | None = None
        self._by_name: dict[str, tuple[Shown, ...]] = {}  # the one that is shown first
        self._said: set[tuple[str, ...]] = set()
        self._changed: set[str] = set()  # names that another one is shown for, not told yet
        self.on_change: Callable[[set[str]], None] = lambda _names: None

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
        before, self._own = self._own, own
        self._engine.set_link_certificate(for_links)
        self._add(own)
        if before is not None:
            self._remove(before)
        self._publish()

    async def change(self, gone: Iterable[Shown], come: Iterable[Shown]) -> None:
        """Of all others: what is to be shown no longer, and what from now on."""
        steps = [*((self._add, one) for one in come), *((self._remove, one) for one in gone)]
        for number, (step, one) in enumerate(steps, start=1):
            step(one)
            if number % CHANGES_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._publish()

    def leads_to(self, shown: Shown) -> bool:
        """Is it the one that is shown for at least one of its names?"""
        return any(self._shown_for(name) is shown for name in shown.certificate.names)

    def is_vouched_for(self, host: str) -> bool:
        """Is it shown a certificate that the server has not made by itself?"""
        shown = self._shown_for(host) or self._shown_for("*." + host.partition(".")[2])
        return shown is not None and not shown.is_self_made

    def leads_to_name(self, name: str) -> bool:
        """Has it, exactly so, a certificate?"""
        return name in self._by_name

    def ends(self) -> dict[str, float]:
        """When those end that visitors are shown, by their first name."""
        return {claims[0].names[0]: claims[0].expires_at for claims in self._by_name.values()}

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

    def _shown_for(self, name: str) -> Shown | None:
        claims = self._by_name.get(name)
        return claims[0] if claims else None

    def _add(self, shown: Shown) -> None:
        for name in shown.certificate.names:
            claims = self._by_name.get(name, ())
            if claims:
                self._say_covered(name, shown, claims[0])
            self._settle(name, claims, tuple(sorted((*claims, shown), key=_rank, reverse=True)))

    def _remove(self, shown: Shown) -> None:
        for name in shown.certificate.names:
            claims = self._by_name.get(name, ())
            self._settle(name, claims, tuple(one for one in claims if one is not shown))

    def _settle(self, name: str, before: tuple[Shown, ...], after: tuple[Shown, ...]) -> None:
        if not after:
            if self._by_name.pop(name, None):
                self._engine.drop_certificate(name)
                self._changed.add(name)
            return
        self._by_name[name] = after
        if not before or before[0] is not after[0]:
            self._engine.set_certificate(name, after[0].certificate)
            self._changed.add(name)

    def _publish(self) -> None:
        if self._own is not None:
            # To who names no host: the best for the server's own name.
            nameless = self._shown_for(self._own.names[0].lower())
            if nameless is not None and nameless is not self._nameless:
                self._nameless = nameless
                self._engine.set_certificate("", nameless.certificate)
        self._engine.publish()
        changed, self._changed = self._changed, set()
        if changed:
            self.on_change(changed)

    def _say_covered(self, name: str, one: Shown, other: Shown) -> None:
        if one.source == other.source or one.is_self_made or other.is_self_made:
            return
        key = (name, *sorted((one.source, other.source)))
        if key not in self._said:
            self._said.add(key)
            longer = max(one, other, key=_rank)
            facts = {"host": name, "sources": ",".join(key[1:]), "used": longer.source}
            log.info("two certificates cover a name; the longer-lived one is used", extra=facts)


def _rank(shown: Shown) -> tuple[bool, float, str]:
    return not shown.is_self_made, shown.expires_at, shown.source
