"""A service's name looked up as this host would, and for how long the answer holds: its hosts file first, then DNS.

The order is that of `hosts:` in nsswitch.conf. DNS is asked by ourselves, as resolv.conf says, because the system's
resolver tells no lifetime and holds a thread while it waits; whatever else is named there (mDNS, systemd-resolved,
LDAP) is the system's to ask.
Bound: SYSTEM_COUNT_MAX look-ups by the system at once, DNS_DEADLINE_S for one by DNS.
Fails: OSError where the name has no address or nobody could say.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import zip_longest
from pathlib import Path

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

HOSTS_PATH = Path("/etc/hosts")
RESOLV_PATH = Path("/etc/resolv.conf")
NSSWITCH_PATH = Path("/etc/nsswitch.conf")

LIFETIME_S_MAX = 30.0  # an answer that says a day may still be about a container of this minute
LIFETIME_S_UNKNOWN = 5.0  # of an answer by the system, which does not say
DNS_DEADLINE_S = 5.0
DNS_SERVER_DEADLINE_S = 2.0
SYSTEM_DEADLINE_S = 10.0
SYSTEM_COUNT_MAX = 2  # the event loop has few threads for this, and dialling the server needs one

_DEFAULT_ORDER = ("files", "dns")


@dataclass(frozen=True, slots=True)
class Answer:
    addresses: tuple[str, ...]
    lifetime_s: float = LIFETIME_S_UNKNOWN


class NameLookup:
    """`await lookup(host)`; `changed()` says whether a file that decides was written since the last call."""

    def __init__(
        self, *, hosts: Path = HOSTS_PATH, resolv: Path = RESOLV_PATH, nsswitch: Path = NSSWITCH_PATH
    ) -> None:
        self._paths = (hosts, resolv, nsswitch)
        self._state = self._look()
        self._system = asyncio.Semaphore(SYSTEM_COUNT_MAX)
        self._read()

    def changed(self) -> bool:
        """Reads the files again where they are others than before."""
        state = self._look()
        if state == self._state:
            return False
        self._state = state
        self._read()
        return True

    async def __call__(self, host: str) -> Answer:
        name = host.lower().rstrip(".")
        for source in self._order:
            if source == "files":
                if found := self._hosts.get(name):
                    return Answer(found, LIFETIME_S_MAX)
            elif source == "dns" and self._resolver is not None:
                if answer := await _ask_dns(self._resolver, host):
                    return answer
            elif _may_know(source, name):
                return await self._ask_system(host)
        raise OSError(errno.ENOENT, "name or service not known")

    def _look(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_identity(path) for path in self._paths)

    def _read(self) -> None:
        hosts, resolv, nsswitch = self._paths
        self._hosts = read_hosts(_text(hosts))
        self._order = read_order(_text(nsswitch))
        try:
            self._resolver: dns.asyncresolver.Resolver | None = _make_resolver(resolv)
        except (dns.exception.DNSException, OSError, ValueError):
            self._resolver = None
            self._order = tuple("system" if source == "dns" else source for source in self._order)

    async def _ask_system(self, host: str) -> Answer:
        loop = asyncio.get_running_loop()
        async with self._system, asyncio.timeout(SYSTEM_DEADLINE_S):
            try:
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except UnicodeError as error:
                raise OSError(f"{host!r} is no host name") from error
        return Answer(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))


def read_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Names in lower case, each with the addresses of all its lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            shown = str(ip_address(address))
        except ValueError:
            continue
        for name in names:
            found.setdefault(name.lower().rstrip("."), []).append(shown)
    return {name: tuple(dict.fromkeys(addresses)) for name, addresses in found.items()}


def read_order(text: str) -> tuple[str, ...]:
    """The sources of `hosts:`; what shall happen after each ([NOTFOUND=return]) is left out."""
    for line in text.splitlines():
        database, colon, sources = line.partition("#")[0].partition(":")
        if colon and database.strip() == "hosts":
            while "[" in sources:
                before, _, rest = sources.partition("[")
                sources = f"{before} {rest.partition(']')[2]}"
            return tuple(sources.split()) or _DEFAULT_ORDER
    return _DEFAULT_ORDER


def _may_know(source: str, name: str) -> bool:
    """mDNS and the host's own name are asked for names of theirs alone: all others would lose their lifetime."""
    if source.startswith("mdns"):
        return name.endswith(".local")
    if source == "myhostname":
        return name in (socket.gethostname().lower(), "_gateway", "_outbound")
    return source not in ("files", "dns")


def _make_resolver(resolv: Path) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(str(resolv))
    resolver.lifetime = DNS_DEADLINE_S
    resolver.timeout = DNS_SERVER_DEADLINE_S
    return resolver


async def _ask_dns(resolver: dns.asyncresolver.Resolver, host: str) -> Answer | None:
    """None: no such name, or one without an address. OSError: no server said either."""
    try:
        dns.name.from_text(host)
    except (dns.exception.DNSException, UnicodeError, ValueError) as error:
        raise OSError(f"{host!r} is no host name") from error
    kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
    results = await asyncio.gather(*(_ask_dns_for(resolver, host, kind) for kind in kinds), return_exceptions=True)
    answers = [result for result in results if isinstance(result, Answer)]
    if not answers:
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return None
    # Each family's first address comes before any second one: eight are tried at most, and one family may lead nowhere.
    mixed = [address for pair in zip_longest(*(answer.addresses for answer in answers)) for address in pair if address]
    ranked = sorted(mixed, key=lambda address: not has_route(address))
    return Answer(tuple(ranked), min(answer.lifetime_s for answer in answers))


async def _ask_dns_for(
    resolver: dns.asyncresolver.Resolver, host: str, kind: dns.rdatatype.RdataType
) -> Answer | None:
    backend = dns.asyncbackend.get_backend("asyncio")
    try:
        answer = await resolver.resolve(host, kind, raise_on_no_answer=False, search=True, backend=backend)
    except dns.resolver.NXDOMAIN:
        return None
    except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
        raise OSError(errno.EAGAIN, f"DNS: {error}") from error
    if answer.rrset is None:
        return None
    lifetime_s = float(answer.chaining_result.minimum_ttl)
    return Answer(tuple(dict.fromkeys(str(record) for record in answer.rrset)), lifetime_s)


def has_route(address: str) -> bool:
    """Whether the kernel knows a way there; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


def _identity(path: Path) -> tuple[int, ...]:
    try:
        info = path.stat()
    except OSError:
        return ()
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
