"""Proof that a domain is its user's: a TXT record that only who holds the domain can put there.

The record's value belongs to one user and one domain, so no other user can point at it. Which resolver is asked is the
operator's choice; none means the system's.
Bound: DEADLINE_S a look-up, RECORD_COUNT_MAX records of an answer are read.
Fails: VerificationLookupError when no name server gives an answer; a name without the record is an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from spokes.config_values import Address
from spokes.errors import VerificationLookupError
from spokes.ids import verification_record
from spokes.resolver import Resolver

DEADLINE_S = 5.0
RECORD_COUNT_MAX = 64


def has_record(domain: str, value: str, resolvers: Sequence[Address] = ()) -> bool:
    """Whether the record is there. For threads without an event loop."""
    return asyncio.run(find_record(domain, value, resolvers))


async def find_record(domain: str, value: str, resolvers: Sequence[Address] = ()) -> bool:
    """Whether the record is there."""
    name = verification_record(domain)
    try:
        async with asyncio.timeout(DEADLINE_S):
            return value in await Resolver(servers=resolvers).texts(name, RECORD_COUNT_MAX)
    except OSError as error:
        reason = type(error.__cause__ or error).__name__  # and no more: which name servers are asked is the operator's
        raise VerificationLookupError(
            f"the TXT records of {name} cannot be asked for: {reason}", hint="try again in a while"
        ) from None
