"""Proof that a domain is its user's: a TXT record that only who holds the domain can put there.

The record's value belongs to one user and one domain, so no other user can point at it. Which resolver is asked is the
operator's choice; none means the system's.
Bound: DEADLINE_S a look-up, RECORD_COUNT_MAX records of an answer are read.
Fails: ProofLookupError when no name server gives an answer; a name without the record is an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import dns.exception
import dns.nameserver
import dns.resolver

from spokes.config import Address
from spokes.errors import ProofLookupError
from spokes.ids import proof_record

DEADLINE_S = 5.0
RECORD_COUNT_MAX = 64


def has_record(domain: str, value: str, resolvers: Sequence[Address] = ()) -> bool:
    """Whether the record is there. Asks the network: not for an event loop's thread."""
    return value in _read_txt(proof_record(domain), resolvers)


def _read_txt(name: str, resolvers: Sequence[Address]) -> list[str]:
    try:
        resolver = dns.resolver.Resolver(configure=not resolvers)
        if resolvers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(one.host, one.port) for one in resolvers]
        resolver.lifetime = DEADLINE_S
        # Absolute, so that no search domain of this host makes another name of it.
        answer = resolver.resolve(name + ".", "TXT", search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise ProofLookupError(
            f"the TXT records of {name} cannot be asked for: {type(error).__name__}", hint="try again in a while"
        ) from None
    return [b"".join(record.strings).decode("ascii", "replace") for record in islice(answer, RECORD_COUNT_MAX)]
