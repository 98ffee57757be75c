"""The server's configuration: file, environment and command line become one frozen value, checked once.

Owns: names, defaults and allowed values of every setting. Fails: ConfigError that names where the value came from
(file and line, option or variable), the key and what is allowed. Source: docs/operations.md lists them for operators.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from spokes.errors import ConfigError, NameRefusedError
from spokes.ids import canonical_host
from spokes.machine import processor_limit, worker_count

DEFAULT_CONFIG_PATH = Path("/etc/spokes/spokes.toml")
CONFIG_BYTES_MAX = 1024 * 1024
NETWORK_COUNT_MAX = 32
MEMORY_LIMIT_BYTES_MIN = 16 * 1024 * 1024
DNS_PORT = 53
WORKER_COUNT_MAX = 64
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything `spokes server` is told. Sizes and counts of 0 mean: decide from the machine."""

    domain: str = "localhost"
    data: Path = Path("/var/lib/spokes")
    store: str = ""  # "" = SQLite in the data directory
    http: tuple[Address, ...] = (Address("", 80),)
    https: tuple[Address, ...] = (Address("", 443),)
    public_http_port: int = 0  # of the address that visitors know; 0 = the port that is listened on
    public_https_port: int = 0
    tcp_address: str = ""
    tcp_ports: PortRange = PortRange(22000, 22999)
    workers: int = 0
    memory_limit_bytes: int = 0
    link_count_max: int = 4
    handshakes_per_s: int = 500
    visitors_per_address: int = 0
    visitors_per_tunnel: int = 0
    handshakes_per_address_per_s: int = 50
    unmetered_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    drain_timeout_s: float = 30.0
    removed_drain_s: float = 0.0
    presence_interval_s: float = 5.0
    admin: bool = True
    admin_workers: int = 1
    admin_threads: int = 8
    path_prefix: str = ""
    tunnels_per_user_max: int = 100  # of a basic user without a maximum of their own; 0 = none
    domain_proof: bool = False
    domain_proof_resolvers: tuple[Address, ...] = ()  # none: the system's
    traffic_interval_s: float = 5.0
    connection_metrics: bool = False  # off: they hold visitors' addresses, and a row for each of their conns
    connection_metrics_days: float = 30.0
    connection_metrics_count_max: int = 1_000_000
    metrics: Address | None = None
    certs_extra_interval_s: float = 60.0
    alert_offline_s: float = 0.0
    smtp: str = ""
    smtp_password_file: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    log_format: str = "text"
    log_level: str = "info"

    @property
    def store_url(self) -> str:
        return self.store or "sqlite:///" + urllib.parse.quote(str(self.data.absolute() / "spokes.db"))

    @property
    def worker_count(self) -> int:
        return self.workers or min(worker_count(processor_limit()), WORKER_COUNT_MAX)


class Setting(NamedTuple):
    """One key: its field, the types TOML may hold, how it is read, and what is allowed in words."""

    field: str
    raw_type: Any
    parse: Callable[[Any], Any]
    allowed: str


class Given(NamedTuple):
    """A value and where it was written."""

    value: Any
    origin: str


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


def _parse_addresses(value: str | list[str]) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(parse_address(text) for text in texts))


def _parse_resolvers(value: str | list[str]) -> tuple[Address, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(_parse_resolver(text) for text in texts if text))


def _parse_resolver(text: str) -> Address:
    try:
        return Address(str(ipaddress.ip_address(text)), DNS_PORT)
    except ValueError:
        address = parse_address(text)
    if not address.host:
        raise ValueError("no address")
    return address


def _parse_https(value: str | list[str]) -> tuple[Address, ...]:
    addresses = _parse_addresses(value)
    if not addresses:
        raise ValueError("clients would find no way in")
    return addresses


def _parse_ip(text: str) -> str:
    return "" if text in ("", "*") else str(ipaddress.ip_address(text.strip("[]")))


def _parse_memory_limit(value: str | int) -> int:
    size_bytes = parse_size(value)
    if 0 < size_bytes < MEMORY_LIMIT_BYTES_MIN:
        raise ValueError("too small")
    return size_bytes


def _parse_store(text: str) -> str:
    if text and not re.match(r"(sqlite|postgres|postgresql)://", text):
        raise ValueError("not a store URL")  # the text may hold a password: not repeated
    return text


def _parse_networks(texts: list[str]) -> tuple[str, ...]:
    if len(texts) > NETWORK_COUNT_MAX:
        raise ValueError("too many")
    return tuple(dict.fromkeys(str(ipaddress.ip_network(text)) for text in texts))


def _within(low: float, high: float) -> Callable[[float], float]:
    def parse(value: float) -> float:
        if not low <= value <= high:
            raise ValueError("out of range")
        return value

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError("unknown word")
        return value

    return parse


def _parse_optional_address(text: str) -> Address | None:
    if not text:
        return None
    address = parse_address(text)
    if not address.host:
        raise ValueError("no IP address")  # whoever reaches it needs no key: every address must be meant
    return address


def _parse_smtp(text: str) -> str:
    parts = urllib.parse.urlsplit(text)
    if text and (parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.port == 0):
        raise ValueError("not an SMTP server's URL")
    if parts.password is not None:
        raise ValueError("the password goes by smtp_password_file or SPOKES_SMTP_PASSWORD")  # and is not repeated here
    return text


def _parse_mail_address(text: str) -> str:
    if text and not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", text):
        raise ValueError("not an e-mail address")
    return text


def _parse_mail_addresses(value: str | list[str]) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(address for text in texts if (address := _parse_mail_address(text))))


def _parse_switch(value: bool | str) -> bool:
    """The option and the variable give words."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("neither true nor false")
        return value == "true"
    return value


def _parse_path_prefix(text: str) -> str:
    text = text.rstrip("/")
    if text and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text):
        raise ValueError("not a path")
    return text


def _parse_path(text: str) -> Path:
    if not text:
        raise ValueError("empty")
    return Path(text)


_ADDRESSES = 'ADDR:PORT, [IPV6]:PORT or :PORT, or a list of them; e.g. "0.0.0.0:443"'
SETTINGS: Mapping[str, Setting] = {
    "domain": Setting("domain", str, parse_domain, 'a domain name; e.g. "tun.example.net"'),
    "data": Setting("data", str, _parse_path, "a directory"),
    "store": Setting("store", str, _parse_store, "sqlite:///PATH or postgresql://USER@HOST/DATABASE"),
    "http": Setting("http", str | list[str], _parse_addresses, _ADDRESSES),
    "https": Setting("https", str | list[str], _parse_https, _ADDRESSES),
    "public_http_port": Setting("public_http_port", int, _within(0, 65535), "1 to 65535; 0 = as in http"),
    "public_https_port": Setting("public_https_port", int, _within(0, 65535), "1 to 65535; 0 = as in https"),
    "tcp_address": Setting("tcp_address", str, _parse_ip, 'an IP address, or "" for all'),
    "tcp_ports": Setting("tcp_ports", str, parse_port_range, 'BEGIN-END within 1-65535; e.g. "22000-22999"'),
    "workers": Setting("workers", int, _within(0, WORKER_COUNT_MAX), "0 (one for each CPU) to 64"),
    "memory_limit": Setting(
        "memory_limit_bytes",
        str | int,
        _parse_memory_limit,
        'a size of at least 16M, e.g. "512M"; 0 = from the machine',
    ),
    "link_count_max": Setting("link_count_max", int, _within(1, 16), "1 to 16"),
    "handshakes_per_s": Setting("handshakes_per_s", int, _within(1, 100_000), "1 to 100000"),
    "visitors_per_address": Setting(
        "visitors_per_address", int, _within(0, 1_000_000), "1 to 1000000; 0 = from the machine"
    ),
    "visitors_per_tunnel": Setting(
        "visitors_per_tunnel", int, _within(0, 1_000_000), "1 to 1000000; 0 = from the machine"
    ),
    "handshakes_per_address_per_s": Setting(
        "handshakes_per_address_per_s", int, _within(0, 100_000), "1 to 100000; 0 = any number"
    ),
    "unmetered_networks": Setting(
        "unmetered_networks", list[str], _parse_networks, f'at most {NETWORK_COUNT_MAX} networks; e.g. ["192.0.2.0/24"]'
    ),
    "drain_timeout_s": Setting("drain_timeout_s", float, _within(0, 3600), "0 to 3600 seconds"),
    "removed_drain_s": Setting("removed_drain_s", float, _within(0, 86_400), "0 to 86400 seconds"),
    "presence_interval_s": Setting("presence_interval_s", float, _within(0.1, 60), "0.1 to 60 seconds"),
    "admin": Setting("admin", bool | str, _parse_switch, "true or false"),
    "admin_workers": Setting("admin_workers", int, _within(1, 16), "1 to 16"),
    "admin_threads": Setting("admin_threads", int, _within(1, 64), "1 to 64"),
    "path_prefix": Setting("path_prefix", str, _parse_path_prefix, 'a path such as "/spokes"; "" = none'),
    "tunnels_per_user_max": Setting("tunnels_per_user_max", int, _within(0, 2**31 - 1), "a number; 0 = no maximum"),
    "domain_proof": Setting("domain_proof", bool | str, _parse_switch, "true or false"),
    "domain_proof_resolvers": Setting(
        "domain_proof_resolvers",
        str | list[str],
        _parse_resolvers,
        "ADDR[:PORT] of a name server, or a list of them; none: the system's",
    ),
    "traffic_interval_s": Setting("traffic_interval_s", float, _within(0.1, 60), "0.1 to 60 seconds"),
    "connection_metrics": Setting("connection_metrics", bool | str, _parse_switch, "true or false"),
    "connection_metrics_days": Setting("connection_metrics_days", float, _within(0.01, 3650), "0.01 to 3650 days"),
    "connection_metrics_count_max": Setting(
        "connection_metrics_count_max", int, _within(1000, 100_000_000), "1000 to 100000000"
    ),
    "metrics": Setting("metrics", str, _parse_optional_address, 'IP:PORT, e.g. "127.0.0.1:9464"; "" = none'),
    "certs_extra_interval_s": Setting("certs_extra_interval_s", float, _within(1, 86_400), "1 to 86400 seconds"),
    "alert_offline_s": Setting("alert_offline_s", float, _within(0, 31_536_000), "seconds; 0 = never"),
    "smtp": Setting("smtp", str, _parse_smtp, "smtp://USER@HOST:PORT or smtps://…, without the password"),
    "smtp_password_file": Setting("smtp_password_file", str, str, "a file that holds the password"),
    "mail_from": Setting("mail_from", str, _parse_mail_address, "an e-mail address"),
    "mail_to": Setting("mail_to", str | list[str], _parse_mail_addresses, "an e-mail address, or a list of them"),
    "log_format": Setting("log_format", str, _one_of("text", "json"), "text or json"),
    "log_level": Setting(
        "log_level", str, _one_of("debug", "info", "warning", "error"), "debug, info, warning or error"
    ),
}


_KNOWN_KEYS = f"known keys: {', '.join(SETTINGS)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, as the beginning of a hint; "" where nothing is like it."""
    by_lower = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, 1)
    return f"did you mean {by_lower[found[0]]!r}? " if found else ""


def load_server_config(path: Path | None, overrides: Mapping[str, Given]) -> ServerConfig:
    """`path` None = the default file where it is there and this user may read it. `overrides` win over the file."""
    given = given_settings(path, overrides)
    values = {SETTINGS[key].field: _parse(key, item) for key, item in given.items()}
    return ServerConfig(**values)


def given_settings(path: Path | None, overrides: Mapping[str, Given]) -> dict[str, Given]:
    """The settings that somebody set, each with where; what is not here is as by default."""
    given: dict[str, Given] = {}
    if path is not None or os.access(DEFAULT_CONFIG_PATH, os.R_OK):
        given.update(read_config_file(path or DEFAULT_CONFIG_PATH))
    given.update(overrides)
    return given


def read_config_file(path: Path) -> dict[str, Given]:
    """Every key of the file with its line; a key that is not a setting is refused."""
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX + 1)
        if len(data) > CONFIG_BYTES_MAX:
            raise ConfigError(f"{path}: longer than {CONFIG_BYTES_MAX} bytes")
        text = data.decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    given = {}
    for key, value in table.items():
        origin = f"{path}, line {_line_of(key, text)}"
        if key not in SETTINGS:
            raise ConfigError(f"{origin}: unknown key {key!r}", hint=f"{nearest(key, SETTINGS)}{_KNOWN_KEYS}")
        given[key] = Given(value, origin)
    return given


def _line_of(key: str, text: str) -> int:
    quoted = re.escape(key)
    pattern = re.compile(rf"""^\s*\[*\s*["']?{quoted}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _parse(key: str, given: Given) -> Any:
    setting = SETTINGS[key]
    try:
        return setting.parse(msgspec.convert(given.value, setting.raw_type))
    except msgspec.ValidationError as error:
        why = str(error)
    except ValueError as error:
        why = str(error)
    raise ConfigError(f"{given.origin}: {key}: {why}", hint=f"allowed: {setting.allowed}")


def changed_fields(old: ServerConfig, new: ServerConfig) -> frozenset[str]:
    return frozenset(
        field.name for field in fields(ServerConfig) if getattr(old, field.name) != getattr(new, field.name)
    )
