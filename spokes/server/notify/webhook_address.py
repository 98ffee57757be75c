"""The address of a webhook: its URL parsed, its name resolved once, and every address that is not public refused.

What is checked is what is connected to: the name is not asked for again, so a second answer cannot lead inside.
Fails: WebhookAddressError says what is wrong with the target.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from spokes.errors import NameRefusedError, WebhookAddressError, WebhookUnresolvedError
from spokes.ids import canonical_host

Lookup = Callable[[str], Awaitable[list[str]]]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291 §2.5.5.1
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # RFC 5214: the upper half of an interface identifier, before an IPv4 address
# What the standard library still takes for global, depending on its release.
_NOT_PUBLIC = (
    ipaddress.IPv4Network("192.88.99.0/24"),  # RFC 7526: relays of 6to4, given up
    ipaddress.IPv6Network("fec0::/10"),  # RFC 3879: site-local, given up and still routed inside
    ipaddress.IPv6Network("3fff::/20"),  # RFC 9637: documentation
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # RFC 8215: translation inside one network
)


class Target(NamedTuple):
    """What is asked of whom."""

    secure: bool
    host: str  # a canonical name, or a literal address
    port: int
    path: str  # with its query

    @property
    def authority(self) -> str:
        """For the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """http or https, no user in it; everything that could change the request line is quoted."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookAddressError("the URL is malformed") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == 0:
        raise WebhookAddressError("the URL is not of the form https://host/path")
    if parts.username is not None or parts.password is not None:
        raise WebhookAddressError("the URL holds a user name")
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        path += "?" + urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._")
    return Target(parts.scheme == "https", _host(parts.hostname), port or _DEFAULT_PORTS[parts.scheme], path)


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return canonical_host(text)
    except NameRefusedError as error:
        raise WebhookAddressError(f"the URL's host is refused: {error}") from None


async def resolve(target: Target, *, allow_private: bool, lookup: Lookup) -> list[str]:
    """Literal addresses in the order to try. One address inside is enough to refuse the name: who mixes them is not
    to be trusted with the order."""
    try:
        addresses = await lookup(target.host)
    except OSError as error:
        raise WebhookUnresolvedError(f"{target.host} cannot be resolved: {error.strerror or error}") from None
    if not allow_private:
        for text in addresses:
            if not is_public(ipaddress.ip_address(text)):
                # Which one is not said: tenants read this, and it would tell them of names inside.
                raise WebhookAddressError(
                    f"{target.host} leads to an address that is not a public address; an administrator may allow it"
                )
    return addresses


def is_public(address: IpAddress) -> bool:
    """Whether a server of the Internet may have it; an IPv4 address inside an IPv6 one counts as itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
