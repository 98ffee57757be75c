"""Passwords that clients announce as they were typed, as hashes: the store keeps no others.

A client that takes rules from here is sent the hash and announces that from then on. One that does not says the
password at every login, so one that fits what is stored keeps its hash, and what was made lately is remembered.
Bound: one hash at a time, in turns; HASH_COUNT_MAX of one list; KNOWN_COUNT_MAX remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from spokes.errors import NameRefusedError
from spokes.ids import canonical_host
from spokes.model.rules import HASH_COUNT_MAX, PLAIN_PASSWORD_CHARS_MAX, plain_texts
from spokes.password_hash import fits, hash_of, is_own_hash
from spokes.store.rows import Json
from spokes.wire.rules import Site

KNOWN_COUNT_MAX = 10_000

Seals = Mapping[tuple[str, str], str]    # (domain as announced, password): its hash


class PasswordSeals:
    """One for a server."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore()
        self._key = secrets.token_bytes(32)  # of this process: what is remembered is of no use to anybody else
        self._known: OrderedDict[bytes, str] = OrderedDict()

    async def of(self, tunnel_uid: str, sites: Iterable[Site], stored: Iterable[Json]) -> Seals:
        """The hashes for a list. Those beyond HASH_COUNT_MAX are left out, and what cannot be a rule at all."""
        rules = {str(rule.get("domain")): rule for rule in stored}
        seals: dict[tuple[str, str], str] = {}
        made_count = 0
        for site in sites:
            for text in plain_texts(site):
                place = self._place(tunnel_uid, site.domain, text)
                sealed = self._known.get(place, "")
                if not sealed:
                    if made_count == HASH_COUNT_MAX or len(text) > PLAIN_PASSWORD_CHARS_MAX:
                        continue
                    made_count += 1
                    async with self._turn:
                        sealed = await asyncio.to_thread(_kept_or_made, text, _hashes(rules, site.domain))
                self._remember(place, sealed)
                seals[site.domain, text] = sealed
        return seals

    def _place(self, tunnel_uid: str, domain: str, text: str) -> bytes:
        words = "\0".join((tunnel_uid, domain, text)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, words, hashlib.sha256)

    def _remember(self, place: bytes, sealed: str) -> None:
        self._known[place] = sealed
        self._known.move_to_end(place)
        if len(self._known) > KNOWN_COUNT_MAX:
            self._known.popitem(last=False)


def _hashes(rules: Mapping[str, Json], domain: str) -> list[str]:
    try:
        rule = rules.get(canonical_host(domain), {})
    except NameRefusedError:
        return []
    texts = (str(rule.get(member, "")) for member in ("password", "basicHttpAuth"))
    return [text for text in texts if is_own_hash(text)]


def _kept_or_made(text: str, hashes: Iterable[str]) -> str:
    return next((one for one in hashes if fits(one, text)), "") or hash_of(text)
