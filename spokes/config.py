"""The server's configuration: file, environment and command line become one frozen value, checked once.

Owns: every setting of the server, each declared once, as a field of ServerConfig; options, variables, keys of the file,
`check-config` and what a reload changes derive from it (setting.py). Fails: ConfigError that names where the value came
from (file and line, option or variable), the key and what is allowed. Source: docs/operations.md lists them.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from spokes.config_values import (
    NETWORK_COUNT_MAX,
    Address,
    PortRange,
    parse_addresses,
    parse_domain,
    parse_https,
    parse_ip_address,
    parse_mail_address,
    parse_mail_addresses,
    parse_memory_limit,
    parse_networks,
    parse_optional_address,
    parse_path,
    parse_path_prefix,
    parse_port_range,
    parse_resolvers,
    parse_smtp,
    parse_store,
)
from spokes.errors import ConfigError
from spokes.machine import processor_limit, worker_count
from spokes.setting import number, one_of, setting, settings_of, switch

DEFAULT_CONFIG_PATH = Path("/etc/spokes/spokes.toml")
CONFIG_BYTES_MAX = 1024 * 1024
WORKER_COUNT_MAX = 56  # as _fastpath/route/tunnel.pxd has it
_ADDRESSES = 'ADDR:PORT, [IPV6]:PORT or :PORT, or a list of them; e.g. "0.0.0.0:443"'
_TEXTS = str | list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything `spokes server` is told. A new setting is one more field here, and the code that uses it."""

    domain: str = setting(
        "localhost",
        parse_domain,
        help="The server's own name; tunnels get names under it.",
        allowed='a domain name; e.g. "tun.example.net"',
        metavar="NAME",
    )
    data: Path = setting(
        Path("/var/lib/spokes"), parse_path, help="Data directory.", allowed="a directory", metavar="DIR"
    )
    store: str = setting(
        "",
        parse_store,
        help="Database, instead of SQLite in the data directory.",
        allowed="sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        metavar="URL",
    )
    http: tuple[Address, ...] = setting(
        (Address("", 80),),
        parse_addresses,
        type=_TEXTS,
        reloadable=True,
        help="Where plain HTTP is served.",
        allowed=_ADDRESSES,
        metavar="ADDR:PORT",
    )
    https: tuple[Address, ...] = setting(
        (Address("", 443),),
        parse_https,
        type=_TEXTS,
        reloadable=True,
        help="Where TLS is served: visitors and links.",
        allowed=_ADDRESSES,
        metavar="ADDR:PORT",
    )
    public_http_port: int = number(
        0, 0, 65535, zero="as in http", reloadable=True, help="Port that visitors know; 0 = as in --http."
    )
    public_https_port: int = number(
        0, 0, 65535, zero="as in https", reloadable=True, help="Port that visitors know; 0 = as in --https."
    )
    tcp_address: str = setting(
        "",
        parse_ip_address,
        help="Address that allocated ports listen on.",
        allowed='an IP address, or "" for all',
        metavar="ADDR",
    )
    tcp_ports: PortRange = setting(
        PortRange(22000, 22999),
        parse_port_range,
        reloadable=True,
        help="Range that TCP and UDP ports are allocated from.",
        allowed='BEGIN-END within 1-65535; e.g. "22000-22999"',
        metavar="BEGIN-END",
    )
    workers: int = number(
        0, 0, WORKER_COUNT_MAX, zero="one for each CPU", help="Threads of the engine; 0 = one for each CPU."
    )
    memory_limit_bytes: int = setting(
        0,
        parse_memory_limit,
        type=str | int,
        unit="bytes",
        help="All buffers together, e.g. 512M; 0 = from the machine.",
        allowed='a size of at least 16M, e.g. "512M"; 0 = from the machine',
        metavar="SIZE",
    )
    link_count_max: int = number(4, 1, 16, help="Links that one session may have.")
    handshakes_per_s: int = number(
        500, 1, 100_000, unit="1/s", reloadable=True, help="Logins of clients that are worked off in a second."
    )
    visitors_per_address: int = number(
        0,
        0,
        1_000_000,
        zero="three quarters of what all may open",
        help="Open connections of one visitor address; 0 = three quarters of what all may open.",
    )
    visitors_per_tunnel: int = number(
        0,
        0,
        1_000_000,
        zero="half of what all may open",
        help="Open connections and UDP flows of visitors through one tunnel; 0 = half of what all may open.",
    )
    handshakes_per_address_per_s: int = number(
        50,
        0,
        100_000,
        unit="1/s",
        zero="any number",
        help="TLS handshakes that one visitor address may begin in a second; 0 = any number.",
    )
    unmetered_networks: tuple[str, ...] = setting(
        ("127.0.0.0/8", "::1/128"),
        parse_networks,
        type=list[str],
        help="Networks whose handshakes are not counted, and that may fill a tunnel alone, such as a proxy in front.",
        allowed=f'at most {NETWORK_COUNT_MAX} networks; e.g. ["192.0.2.0/24"]',
        metavar="CIDR",
    )
    ha_mode: bool = switch(
        False, help="Be the standby of a server whose data directory this one shares; serve once it is gone."
    )
    ha_interval_s: float = number(5.0, 0.1, 3600, unit="s", help="How often a standby probes the primary.")
    ha_failures: int = number(3, 1, 1000, help="Failed probes in a row after which a standby takes over.")
    ha_timeout_s: float = number(3.0, 0.1, 600, unit="s", help="How long a probe waits for an answer.")
    drain_timeout_s: float = number(
        30.0, 0, 3600, unit="s", reloadable=True, help="How long streams may go on after SIGTERM."
    )
    removed_drain_s: float = number(
        0.0,
        0,
        86_400,
        unit="s",
        reloadable=True,
        help="How long what visitors have open may go on where it was removed.",
    )
    presence_interval_s: float = number(
        5.0, 0.1, 60, unit="s", reloadable=True, help="How often it is written which tunnels are on-line."
    )
    admin: bool = switch(True, help="Serve the administration under the server's own name.")
    admin_workers: int = number(1, 1, 16, help="Processes of the administration.")
    admin_threads: int = number(8, 1, 64, help="Requests that one process of the administration works on at once.")
    path_prefix: str = setting(
        "",
        parse_path_prefix,
        help="What a proxy in front puts before the path of requests to the server's own name.",
        allowed='a path such as "/spokes"; "" = none',
        metavar="PATH",
    )
    tunnels_per_user_max: int = number(
        100, 0, 2**31 - 1, zero="no maximum", help="Tunnels of a basic user without a maximum of their own; 0 = any."
    )
    resolver: tuple[Address, ...] = setting(
        (),
        parse_resolvers,
        type=_TEXTS,
        help="Where names are asked, SRV included; default: the system's name servers.",
        allowed="ADDR[:PORT] of a name server, or a list of them; none: the system's",
        metavar="ADDR:PORT",
    )
    domain_proof: bool = switch(False, help="Domains that are allowed to a user count once a TXT record verifies them.")
    domain_proof_resolvers: tuple[Address, ...] = setting(
        (),
        parse_resolvers,
        type=_TEXTS,
        help="Name servers that are asked for those records; none: as all other names.",
        allowed="ADDR[:PORT] of a name server, or a list of them; none: as in resolver",
        metavar="ADDR:PORT",
    )
    traffic_interval_s: float = number(
        5.0,
        0.1,
        60,
        unit="s",
        reloadable=True,
        help="How often traffic is counted into the store, and limits are checked.",
    )
    # Off by default: the records hold visitors' addresses, and there is a row for each of their conns.
    connection_metrics: bool = switch(False, help="Keep an access record of every visitor's connection.")
    connection_metrics_days: float = number(
        30.0, 0.01, 3650, unit="days", reloadable=True, help="How long access records are kept."
    )
    connection_metrics_count_max: int = number(
        1_000_000, 1000, 100_000_000, reloadable=True, help="How many access records are kept."
    )
    metrics: Address | None = setting(
        None,
        parse_optional_address,
        help="Where /metrics is served without a key.",
        allowed='IP:PORT, e.g. "127.0.0.1:9464"; "" = none',
        metavar="IP:PORT",
    )
    certs_extra_interval_s: float = number(
        60.0, 1, 86_400, unit="s", reloadable=True, help="How often all of certs-extra is checked."
    )
    alert_offline_s: float = number(
        0.0,
        0,
        31_536_000,
        unit="s",
        zero="never",
        reloadable=True,
        help="A tunnel that is off-line for so long is an alert; 0 = never.",
    )
    smtp: str = setting(
        "",
        parse_smtp,
        help="Mail server for alerts.",
        allowed="smtp://USER@HOST:PORT or smtps://…, without the password",
        metavar="URL",
    )
    smtp_password_file: str = setting(
        "",
        str,
        help="File that holds the password for it.",
        allowed="a file that holds the password",
        metavar="FILE",
    )
    mail_from: str = setting(
        "", parse_mail_address, help="Sender of alerts by e-mail.", allowed="an e-mail address", metavar="ADDRESS"
    )
    mail_to: tuple[str, ...] = setting(
        (),
        parse_mail_addresses,
        type=_TEXTS,
        help="Receivers of alerts by e-mail.",
        allowed="an e-mail address, or a list of them",
        metavar="ADDRESS",
    )
    log_format: str = one_of("text", ("text", "json"), metavar="FORMAT", reloadable=True)
    log_level: str = one_of("info", ("debug", "info", "warning", "error"), metavar="LEVEL", reloadable=True)

    @property
    def store_url(self) -> str:
        return self.store or "sqlite:///" + urllib.parse.quote(str(self.data.absolute() / "spokes.db"))

    @property
    def domain_resolvers(self) -> tuple[Address, ...]:
        """Name servers that are asked when a domain is verified; none: the system's."""
        return self.domain_proof_resolvers or self.resolver

    @property
    def worker_count(self) -> int:
        return self.workers or min(worker_count(processor_limit()), WORKER_COUNT_MAX)


SETTINGS = settings_of(ServerConfig)


class Given(NamedTuple):
    """A value and where it was written."""

    value: Any
    origin: str


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
    declared = SETTINGS[key]
    try:
        return declared.parse(msgspec.convert(given.value, declared.type))
    except msgspec.ValidationError as error:
        why = str(error)
    except ValueError as error:
        why = str(error)
    raise ConfigError(f"{given.origin}: {key}: {why}", hint=f"allowed: {declared.allowed}")


def changed_settings(old: ServerConfig, new: ServerConfig) -> frozenset[str]:
    """Names of the settings in which the two differ."""
    return frozenset(one.name for one in SETTINGS.values() if getattr(old, one.field) != getattr(new, one.field))


def reloaded(running: ServerConfig, new: ServerConfig) -> ServerConfig:
    """The settings in force after a reload: the new ones as far as they can change while the server runs."""
    return replace(running, **{one.field: getattr(new, one.field) for one in SETTINGS.values() if one.reloadable})
