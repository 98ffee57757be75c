"""Names resolved as this host would, for both programs: its hosts file, DNS, and what only its system knows.

The order is that of `hosts:` in nsswitch.conf. DNS is asked by ourselves (dns_client.py), as resolv.conf says or at the
name servers given, because the system's resolver tells no lifetime and holds a thread while it waits; whatever else is
named there (mDNS, systemd-resolved, LDAP) is the system's to ask (system_names.py). A source that cannot say leaves the
name to the next one.
Bound: what those two are bound to; nothing is kept.
Fails: OSError (TimeoutError included) where the name has no address or nobody could say.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spokes.config_values import Address
from spokes.system_names import SystemNames

if TYPE_CHECKING:
    from spokes.dns_client import DnsClient

HOSTS_PATH = Path("/etc/hosts")
RESOLV_PATH = Path("/etc/resolv.conf")
NSSWITCH_PATH = Path("/etc/nsswitch.conf")

LIFETIME_S_MAX = 30.0  # an answer that says a day may still be about a container of this minute
LIFETIME_S_UNKNOWN = 5.0  # of an answer by the system, which does not say
LOCALHOST_ADDRESSES = ("127.0.0.1", "::1")  # both, in turn: a service may listen on either

_DEFAULT_ORDER = ("files", "dns")


@dataclass(frozen=True, slots=True)
class Answer:
    addresses: tuple[str, ...]
    lifetime_s: float = LIFETIME_S_UNKNOWN


Resolve = Callable[[str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, order=True)
class ServiceRecord:
    """One SRV record (RFC 2782): the lowest priority comes first; among equals, more weight means more often."""

    priority: int
    weight: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """`records` by priority; none: there is no such service at this name. `is_unavailable`: a record says so."""

    records: tuple[ServiceRecord, ...]
    lifetime_s: float = LIFETIME_S_UNKNOWN
    is_unavailable: bool = False


class Resolver:
    """Of one event loop. The files that decide are read again as they are written."""

    def __init__(
        self,
        *,
        servers: Sequence[Address] = (),
        hosts: Path = HOSTS_PATH,
        resolv: Path = RESOLV_PATH,
        nsswitch: Path = NSSWITCH_PATH,
    ) -> None:
        """`servers`: the name servers to ask, in place of the system's."""
        self._servers = tuple(servers)
        self._paths = (hosts, resolv, nsswitch)
        self._system = SystemNames()
        self._files_version = 0
        self._state = self._files_state()
        self._dns: DnsClient | None = None
        self._dns_failure = ""
        self._read()

    def use_servers(self, servers: Sequence[Address]) -> None:
        """Ask these name servers from now on; none: the system's."""
        if tuple(servers) != self._servers:
            self._servers = tuple(servers)
            self._read()
            self._files_version += 1

    def files_version(self) -> int:
        """Another number each time that a file which decides was written; what it says counts from now on."""
        state = self._files_state()
        if state != self._state:
            self._state = state
            self._read()
            self._files_version += 1
        return self._files_version

    async def addresses(self, host: str) -> Answer:
        """In the order to try. At least one."""
        if literal := literal_addresses(host):
            return Answer(literal, LIFETIME_S_MAX)
        self.files_version()
        name = host.lower().rstrip(".")
        failure: OSError | None = None
        for source in self._order:
            try:
                if answer := await self._ask(source, host, name):
                    return answer
            except OSError as error:
                failure = failure or error
        raise failure or OSError(errno.ENOENT, "name or service not known")

    async def services(self, name: str) -> ServiceAnswer:
        """SRV records of this name, as `_spokes._tcp.example.org`."""
        self.files_version()
        found = await self._require_dns().records(name, "SRV")
        records = [
            ServiceRecord(one.priority, one.weight, one.target.to_text(omit_final_dot=True), one.port)
            for one in found.records
            if len(one.target) > 1  # the root: decidedly not available (RFC 2782)
        ]
        return ServiceAnswer(
            tuple(sorted(records)), found.lifetime_s, is_unavailable=bool(found.records) and not records
        )

    async def texts(self, name: str, count_max: int) -> list[str]:
        """TXT records of exactly this name, each in one piece."""
        self.files_version()
        found = await self._require_dns().records(name, "TXT")
        return [b"".join(one.strings).decode("ascii", "replace") for one in found.records[:count_max]]

    async def _ask(self, source: str, host: str, name: str) -> Answer | None:
        """None: not known there."""
        if source == "files":
            found = self._hosts.get(name)
            return Answer(found, LIFETIME_S_MAX) if found else None
        if source == "dns" and (client := self._dns_client()) is not None:
            records = await client.addresses(host)
            return Answer(tuple(records.records), records.lifetime_s) if records.records else None
        if source == "dns" or _may_know(source, name):
            return Answer(tuple(await self._system(host)))
        return None

    def _dns_client(self) -> DnsClient | None:
        """Made when the first name needs it: dnspython is large, and many a client dials literal addresses alone. None:
        resolv.conf names no server, or cannot be read."""
        if self._dns is None and not self._dns_failure:
            from spokes.dns_client import DnsClient

            try:
                self._dns = DnsClient(servers=self._servers, resolv=self._paths[1])
            except OSError as error:
                self._dns_failure = error.strerror or str(error)
        return self._dns

    def _require_dns(self) -> DnsClient:
        client = self._dns_client()
        if client is None:
            raise OSError(errno.EINVAL, self._dns_failure)
        return client

    def _files_state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(_identity(path) for path in self._paths)

    def _read(self) -> None:
        hosts, _, nsswitch = self._paths
        self._hosts = read_hosts(_text(hosts))
        order = read_order(_text(nsswitch))
        if self._servers:
            order = tuple(dict.fromkeys("dns" if source == "resolve" else source for source in order))
        self._order = order
        self._dns, self._dns_failure = None, ""


def literal_addresses(host: str) -> tuple[str, ...]:
    """Addresses that need no look-up: () for a name."""
    bare = host.strip("[]")
    if bare.lower().rstrip(".").rpartition(".")[2] == "localhost":  # and all below it: RFC 6761, 6.3
        return LOCALHOST_ADDRESSES
    try:
        return (str(ipaddress.ip_address(bare)),)
    except ValueError:
        return ()


def read_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Names in lower case, each with the addresses of all its lines."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            shown = str(ipaddress.ip_address(address))
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
