"""DNS asked by ourselves, over dnspython: addresses, SRV and TXT with their lifetimes, on the event loop alone.

A question that is given up closes its socket and leaves nothing. Sockets are connected: the kernel drops what comes
from anyone but the name server, and a name server that refuses is known at once.
Bound: DEADLINE_S a question, SERVER_DEADLINE_S of it for each name server's turn.
Fails: OSError where no name server gives an answer; no such name, and no such record, are answers.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from spokes.config_values import Address

DEADLINE_S = 5.0
SERVER_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Records:
    """What a name has of one type, as text or as dnspython's records, and for how many seconds that holds."""

    records: Sequence[Any]
    lifetime_s: float


class DnsClient:
    """Asks the name servers of resolv.conf, or those given: with these the host's search list does not count."""

    def __init__(self, *, servers: Sequence[Address] = (), resolv: Path) -> None:
        """Fails: OSError where resolv.conf names none that can be asked."""
        try:
            self._resolver = dns.asyncresolver.Resolver(str(resolv), configure=not servers)
            if servers:
                self._resolver.nameservers = [dns.nameserver.Do53Nameserver(one.host, one.port) for one in servers]
        except (dns.exception.DNSException, ValueError) as error:
            raise OSError(errno.EINVAL, f"{resolv}: {error}") from error
        self._searches = not servers
        self._resolver.lifetime = DEADLINE_S
        self._resolver.timeout = SERVER_DEADLINE_S
        self._backend = _ConnectingBackend(dns.asyncbackend.get_backend("asyncio"))

    async def addresses(self, host: str) -> Records:
        """Of both families, those with a route first."""
        kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
        results = await asyncio.gather(
            *(self._ask(host, kind, search=self._searches) for kind in kinds), return_exceptions=True
        )
        answers = [result for result in results if isinstance(result, Records)]
        found = [answer for answer in answers if answer.records]
        if not found:
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            return answers[0]
        # Each family's first address comes before any second one: eight are tried at most, and one family may lead
        # nowhere.
        families = [dict.fromkeys(str(record) for record in answer.records) for answer in found]
        mixed = [address for pair in zip_longest(*families) for address in pair if address]
        ranked = sorted(mixed, key=lambda address: not has_route(address))
        return Records(ranked, min(answer.lifetime_s for answer in found))

    async def records(self, name: str, kind: str) -> Records:
        """Of exactly this name: no search list makes another one of it."""
        return await self._ask(name.rstrip(".") + ".", dns.rdatatype.from_text(kind), search=False)

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType, *, search: bool) -> Records:
        try:
            dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError, ValueError) as error:
            raise OSError(errno.EINVAL, f"{name!r} is no host name") from error
        try:
            answer = await self._resolver.resolve(
                name, kind, raise_on_no_answer=False, search=search, backend=self._backend
            )
        except dns.resolver.NXDOMAIN:
            return Records((), 0.0)
        except dns.exception.Timeout as error:  # the exceptions' own words name servers, and are long
            raise OSError(errno.EAGAIN, "DNS: the name servers do not answer") from error
        except dns.resolver.NoNameservers as error:
            raise OSError(errno.EAGAIN, "DNS: the name servers cannot be reached, or cannot say") from error
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
            raise OSError(errno.EAGAIN, f"DNS: {error}") from error
        if answer.rrset is None:
            return Records((), 0.0)
        return Records(tuple(answer.rrset), float(answer.chaining_result.minimum_ttl))


class _ConnectingBackend(dns.asyncbackend.Backend):  # type: ignore[name-defined,misc]
    """asyncio's, with connected sockets for datagrams too. (Its base is public, and not in the module's list.)"""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def name(self) -> str:
        return str(self._inner.name())

    def datagram_connection_required(self) -> bool:
        return True

    async def make_socket(self, *args: Any, **more: Any) -> Any:
        return await self._inner.make_socket(*args, **more)

    async def sleep(self, interval: float) -> None:
        await self._inner.sleep(interval)

    async def wait_for(self, awaitable: Any, timeout: Any) -> Any:  # noqa: ASYNC109 (the library's signature)
        return await self._inner.wait_for(awaitable, timeout)


def has_route(address: str) -> bool:
    """Whether the kernel knows a way there; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True
