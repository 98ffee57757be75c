"""Values of settings, read from text: addresses, port ranges, sizes, names, networks, mail.

Fails: ValueError that says why, and never repeats a password.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from spokes.errors import NameRefusedError
from spokes.ids import canonical_host

NETWORK_COUNT_MAX = 32
MEMORY_LIMIT_BYTES_MIN = 16 * 1024 * 1024
DNS_PORT = 53
DOMAIN_BYTES_MAX = 200  # leaves room for the labels of tunnels below it
_SIZE = re.compile(r"(\d{1,15})\s*([kmgt]?)(i?b)?", re.IGNORECASE)
_SIZE_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. An empty host means every address of both families."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Both ends belong to it."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.begin}-{self.end}"

    def __contains__(self, port: int) -> bool:
        return self.begin <= port <= self.end

    def __len__(self) -> int:
        return self.end - self.begin + 1


def parse_address(text: str) -> Address:
    """`ADDR:PORT`, `[IPV6]:PORT` or `:PORT`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("no port between 0 and 65535")
    if host in ("", "*"):
        return Address("", int(port))
    return Address(str(ipaddress.ip_address(host)), int(port))


def parse_port_range(text: str) -> PortRange:
    begin, dash, end = text.partition("-")
    if not dash or not all(part.isascii() and part.isdigit() for part in (begin, end)):
        raise ValueError("not BEGIN-END")
    if not 1 <= int(begin) <= int(end) <= 65535:
        raise ValueError("not an ascending range within 1-65535")
    return PortRange(int(begin), int(end))


def parse_size(value: str | int) -> int:
    """Bytes of `512M`, `1GiB`, `1073741824`; units are powers of 1024."""
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("not a size")
    return int(match[1]) << _SIZE_SHIFT[match[2].lower()]


def parse_domain(text: str) -> str:
    try:
        name = canonical_host(text)
    except NameRefusedError as error:
        raise ValueError(str(error)) from None
    if len(name) > DOMAIN_BYTES_MAX:
        raise ValueError("too long for names below it")
    return name


def parse_addresses(value: str | list[str]) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(parse_address(text) for text in texts))


def parse_resolvers(value: str | list[str]) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(parse_resolver(text) for text in texts if text))


def parse_resolver(text: str) -> Address:
    """A name server: `ADDR`, `ADDR:PORT` or `[IPV6]:PORT`."""
    try:
        return Address(str(ipaddress.ip_address(text)), DNS_PORT)
    except ValueError:
        address = parse_address(text)
    if not address.host:
        raise ValueError("no address")
    return address


def parse_https(value: str | list[str]) -> tuple[Address, ...]:
    addresses = parse_addresses(value)
    if not addresses:
        raise ValueError("clients would find no way in")
    return addresses


def parse_ip_address(text: str) -> str:
    return "" if text in ("", "*") else str(ipaddress.ip_address(text.strip("[]")))


def parse_memory_limit(value: str | int) -> int:
    size_bytes = parse_size(value)
    if 0 < size_bytes < MEMORY_LIMIT_BYTES_MIN:
        raise ValueError("too small")
    return size_bytes


def parse_store(text: str) -> str:
    if text and not re.match(r"(sqlite|postgres|postgresql)://", text):
        raise ValueError("not a store URL")  # the text may hold a password: not repeated
    return text


def parse_networks(texts: list[str]) -> tuple[str, ...]:
    if len(texts) > NETWORK_COUNT_MAX:
        raise ValueError("too many")
    return tuple(dict.fromkeys(str(ipaddress.ip_network(text)) for text in texts))


def parse_optional_address(text: str) -> Address | None:
    if not text:
        return None
    address = parse_address(text)
    if not address.host:
        raise ValueError("no IP address")  # whoever reaches it needs no key: every address must be meant
    return address


def parse_smtp(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if text and (parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.port == 0):
        raise ValueError("not an SMTP server's URL")
    if parts.password is not None:
        raise ValueError("the password goes by smtp_password_file or SPOKES_SMTP_PASSWORD")  # and is not repeated here
    return text


def parse_mail_address(text: str) -> str:
    if text and not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", text):
        raise ValueError("not an e-mail address")
    return text


def parse_mail_addresses(value: str | list[str]) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(address for text in texts if (address := parse_mail_address(text))))


def parse_switch(value: bool | str) -> bool:
    """The option and the variable give words."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("neither true nor false")
        return value == "true"
    return value


def parse_path_prefix(text: str) -> str:
    text = text.rstrip("/")
    if text and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise ValueError("not a path")
    return text


def parse_path(text: str) -> Path:
    if not text:
        raise ValueError("empty")
    return Path(text)
