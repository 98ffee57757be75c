"""The daily check of verified domains: a domain whose record is gone loses its verification after three days.

Bound: one query after the other, each domain once in RECHECK_S. Fails: a query that fails says nothing about the
record, so it changes nothing and is tried at the next check.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from spokes import clock
from spokes.config_values import Address
from spokes.domain_verification import find_record
from spokes.errors import SpokesError
from spokes.model.domains import NoteDomainCheck
from spokes.model.operation import SYSTEM, perform
from spokes.server.base.storethread import StoreThread
from spokes.store import DomainVerification as Verification

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 3600.0
RECHECK_S = 86_400.0


class DomainVerification:
    """run() for as long as the server runs."""

    def __init__(self, store: StoreThread, resolvers: Sequence[Address]) -> None:
        self._store = store
        self._resolvers = resolvers

    async def run(self) -> None:
        while True:
            try:
                await self.check(clock.wall_s())
            except SpokesError as error:
                log.warning("domain verifications not read", extra={"code": error.code, "detail": str(error)})
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def check(self, now: float) -> None:
        for verification in await self._store.run(self._store.store.domain_verifications.select):
            if verification.proved and verification.checked <= now - RECHECK_S:
                try:
                    await self._check(verification)
                except SpokesError:
                    raise
                except Exception:
                    log.exception("domain verification not checked", extra={"domain": verification.domain})

    async def _check(self, verification: Verification) -> None:
        store, facts = self._store.store, {"user_uid": verification.user_uid, "domain": verification.domain}
        value = await self._store.run(store.domain_verifications.challenge, verification.user_uid, verification.domain)
        try:
            seen = await find_record(verification.domain, value, self._resolvers)
        except SpokesError as error:
            log.warning("domain verification not checked", extra={**facts, "code": error.code, "detail": str(error)})
            return
        operation = NoteDomainCheck(verification.user_uid, verification.domain, seen=seen)
        noted = await self._store.run(perform, store, SYSTEM, operation)
        if not seen:
            what = "record of a domain verification not seen" if noted.proved else "domain verification lost"
            log.warning(what, extra=facts)
