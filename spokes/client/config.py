"""The client's configuration file: the Admin API's TunConfig object as JSON, owned by the user alone (mode 0600).

Owns: finding, reading and checking the file; changing it is config_edit.py's. A key this version does not know is kept
as it was, so an older client never damages what a newer one wrote. docs/client.md lists the keys.
Fails: ConfigError names the file and the key; a half-understood file is never used.
"""

from __future__ import annotations

import errno
import json
import os
import pwd
import shlex
from pathlib import Path
from typing import Any

import msgspec

from spokes import file_edit
from spokes.client.remote_targets import RemoteTargets
from spokes.client.rule_parsing import (
    Json,
    overlay,
    parse_port,
    parse_ports,
    parse_site,
    parse_sites,
    port_key,
    site_key,
)
from spokes.config_values import Address, parse_resolver
from spokes.errors import ConfigError, NameRefusedError, RuleError
from spokes.wire.rules import Port, Site, TunConfig

DEFAULT_SERVER_PORT = 443
REMOVED_DRAIN_S_MAX = 86_400
SERVER_KEY_COUNT_MAX = 16
ACTIVE_ACTIVE, MASTER_ONLY = HA_MODES = ("active-active", "master-only")
SYSTEM_PATH = Path("/etc/spoke/config.json")
UNIT_USER = "spoke"

_STRING_KEYS = ("hostname", "name", "tunnel", "serverHost", "serverKey", "serverCA", "key", "ha")
KNOWN_MEMBERS = frozenset(
    (*_STRING_KEYS, "serverKeys", "unmanaged", "synced", "remoteTargets", "removedDrain", "resolver",
     *(field.encode_name for field in msgspec.structs.fields(TunConfig)))
)  # fmt: skip


def user_path() -> Path:
    return Path("~/.spoke/config.json").expanduser()


def find_path(given: str | Path | None) -> Path:
    """The file to use: the given one, else the user's, else the system's where this user may read it."""
    if given:
        return Path(given).expanduser()
    own = user_path()
    return SYSTEM_PATH if not own.exists() and os.access(SYSTEM_PATH, os.R_OK) else own


def _configure_line(path: Path) -> str:
    """What makes the configuration that is missing, where it was looked for."""
    return "spoke configure" if path == user_path() else f"spoke configure --config {shlex.quote(str(path))}"


def give_to_unit(path: Path) -> None:
    """The system's configuration, written by root, is for the user that the systemd unit runs as, its folder too."""
    if os.geteuid() != 0 or path.absolute() != SYSTEM_PATH:
        return
    try:
        unit = pwd.getpwnam(UNIT_USER)
    except KeyError:  # no package is installed
        return
    try:
        for owned in (path.parent, path):
            if owned.stat().st_uid == 0:
                os.chown(owned, unit.pw_uid, unit.pw_gid)
    except OSError as error:
        raise ConfigError(
            f"cannot give {path} to the user {UNIT_USER}: {_reason(error)}", hint=f"chown {UNIT_USER} {path}"
        ) from None


def split_host_port(text: str, default_port: int = DEFAULT_SERVER_PORT) -> tuple[str, int]:
    """Take "host", "host:port", "[v6]" or "[v6]:port" apart."""
    host, port_text = text.strip(), ""
    if host.endswith(":"):
        raise ConfigError(f"{text!r} is no address", hint="write HOST or HOST:PORT")
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ConfigError(f"{text!r} is no address", hint="write HOST or HOST:PORT")
        port_text = rest[1:]
    elif host.count(":") == 1:
        host, _, port_text = host.partition(":")
    if not host or (port_text and not (port_text.isascii() and port_text.isdigit())):
        raise ConfigError(f"{text!r} is no address", hint="write HOST or HOST:PORT")
    port = int(port_text) if port_text else default_port
    if not 1 <= port <= 65535:
        raise ConfigError(f"port {port} is out of range", hint="ports are 1-65535")
    return host, port


def join_host_port(host: str, port: int) -> str:
    """The shortest form that split_host_port reads back."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == DEFAULT_SERVER_PORT else f"{shown}:{port}"


class ClientConfig:
    """One configuration file in memory; `document` is the JSON object itself."""

    def __init__(self, path: Path, document: Json, *, seen: bytes | None = None) -> None:
        self.path = path
        self.document = document
        self.seen = seen  # what the file held; None: not read from a file
        self._check()

    @classmethod
    def load(cls, path: Path) -> ClientConfig:
        try:
            seen = path.read_bytes()
            text = seen.decode("utf-8")
        except FileNotFoundError:
            raise ConfigError(f"no configuration at {path}", hint=f"type: {_configure_line(path)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {path}: {_reason(error)}", hint="check its owner and mode") from None
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is no JSON: {error}", hint="repair it or type: spoke configure") from None
        if not isinstance(document, dict):
            raise ConfigError(f"{path} must hold one JSON object", hint="repair it or type: spoke configure")
        return cls(path, document, seen=seen)

    def _check(self) -> None:
        wanted: dict[str, tuple[type, str]] = {key: (str, "a string") for key in _STRING_KEYS}
        wanted |= {"unmanaged": (bool, "true or false"), "synced": (dict, "an object")}
        for key, (kind, words) in wanted.items():
            if not isinstance(self.document.get(key), kind | None):
                raise ConfigError(f"{self.path}: {key} must be {words}")
        drain = self.document.get("removedDrain")
        if drain is not None and (
            isinstance(drain, bool) or not isinstance(drain, int | float) or not 0 <= drain <= REMOVED_DRAIN_S_MAX
        ):
            raise ConfigError(f"{self.path}: removedDrain must be a number of seconds from 0 to {REMOVED_DRAIN_S_MAX}")
        if not isinstance(self.document.get("remoteTargets"), list | None):
            raise ConfigError(f"{self.path}: remoteTargets must be a list")
        self.name_servers(), self.server_keys()
        if self.ha_mode not in HA_MODES:
            raise ConfigError(f"{self.path}: ha must be {' or '.join(HA_MODES)}")
        try:
            self.remote_targets()
        except ConfigError as error:
            raise ConfigError(f"{self.path}: {error}", hint=error.hint) from None
        try:
            self.sites(), self.ports(), self.portmaps()
            self.synced_sites(), self.synced_ports(), self.synced_portmaps()
        except (RuleError, NameRefusedError) as error:
            raise ConfigError(f"{self.path}: {error}", hint="correct the file") from None

    def _objects(self, holder: Json, key: str) -> list[Json]:
        """A list of objects; absent, null and null elements are read as nothing."""
        value = holder.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(item is None or isinstance(item, dict) for item in value):
            raise ConfigError(f"{self.path}: {key} must be a list of objects")
        return [item for item in value if item is not None]

    # identity

    def _text(self, key: str) -> str:
        return self.document.get(key) or ""

    @property
    def hostname(self) -> str:
        return self._text("hostname")

    @property
    def name(self) -> str:
        return self._text("name")

    @property
    def key(self) -> str:
        return self._text("key")

    @property
    def server_host(self) -> str:
        return self._text("serverHost")

    @property
    def server_key(self) -> str:
        return self._text("serverKey")

    @property
    def server_ca(self) -> str:
        return self._text("serverCA")

    @property
    def unmanaged(self) -> bool:
        return bool(self.document.get("unmanaged"))

    @property
    def removed_drain_s(self) -> float:
        """How long what a removed rule has open may go on."""
        return float(self.document.get("removedDrain") or 0)

    def remote_targets(self) -> RemoteTargets | None:
        """None: rules of the server may name anything."""
        entries = self.document.get("remoteTargets")
        return None if entries is None else RemoteTargets(entries)

    def server_keys(self) -> list[str]:
        """Fingerprints of which the server's key, or that of any node of a cluster, has one: `serverKey` first, then
        `serverKeys`. None: authorities vouch for it."""
        more = self.document.get("serverKeys") or []
        if not isinstance(more, list) or not all(isinstance(text, str) for text in more):
            raise ConfigError(f"{self.path}: serverKeys must be a list of strings")
        if len(more) > SERVER_KEY_COUNT_MAX:
            raise ConfigError(f"{self.path}: serverKeys has more than {SERVER_KEY_COUNT_MAX} fingerprints")
        return list(dict.fromkeys(text for text in (self.server_key, *more) if text))

    @property
    def ha_mode(self) -> str:
        """Which nodes of a cluster get a session."""
        return self._text("ha") or HA_MODES[0]

    def name_servers(self) -> tuple[Address, ...]:
        """Name servers to ask in place of the system's: member `resolver`, `ADDR[:PORT]` or a list of them."""
        value = self.document.get("resolver") or []
        texts = [value] if isinstance(value, str) else value
        try:
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError("must be a string or a list of strings")
            return tuple(dict.fromkeys(parse_resolver(text) for text in texts))
        except ValueError as error:
            raise ConfigError(
                f"{self.path}: resolver: {error}", hint="write the address of a name server, ADDR or ADDR:PORT"
            ) from None

    def server_address(self) -> tuple[str, int]:
        return split_host_port(self.server_host)

    def require_identity(self) -> None:
        """Raise unless the file says which server and which tunnel."""
        for key in ("serverHost", "key"):
            if not self._text(key):
                raise ConfigError(f"{self.path}: {key} is missing", hint="type: spoke configure")

    # rules

    def sites(self) -> list[Site]:
        return parse_sites(self._objects(self.document, "https"))

    def ports(self) -> list[Port]:
        return parse_ports(self._objects(self.document, "ports"))

    def synced_sites(self) -> list[Site]:
        return parse_sites(self._objects(self.document.get("synced") or {}, "https"))

    def synced_ports(self) -> list[Port]:
        return parse_ports(self._objects(self.document.get("synced") or {}, "ports"))

    def portmaps(self) -> list[Json]:
        """As they stand there: they are kept, and not served yet."""
        return self._objects(self.document, "portmaps")

    def synced_portmaps(self) -> list[Json]:
        return self._objects(self.document.get("synced") or {}, "portmaps")

    def set_sites(self, sites: list[Site]) -> None:
        stored = {site_key(parse_site(rule)): rule for rule in self._objects(self.document, "https")}
        self.document["https"] = [overlay(stored.get(site_key(site), {}), site) for site in sites]

    def set_ports(self, ports: list[Port]) -> None:
        stored = {port_key(parse_port(rule)): rule for rule in self._objects(self.document, "ports")}
        self.document["ports"] = [overlay(stored.get(port_key(port), {}), port) for port in ports]

    def set_portmaps(self, portmaps: list[Json]) -> None:
        if portmaps or "portmaps" in self.document:
            self.document["portmaps"] = portmaps

    def mark_synced(self, sites: list[Site], ports: list[Port]) -> None:
        """What server and client agree on from now on (see rule_merge.py)."""
        self._note_synced(https=sites, ports=ports)

    def mark_portmaps_synced(self, portmaps: list[Json]) -> None:
        if portmaps or self.synced_portmaps():
            self._note_synced(portmaps=portmaps)

    def _note_synced(self, **lists: list[Any]) -> None:
        noted = {key: msgspec.to_builtins(rules) for key, rules in lists.items()}
        self.document["synced"] = {**(self.document.get("synced") or {}), **noted}

    # the file

    def require_writable(self) -> None:
        """Raise where save() would, before anything is done that only the saved file makes good."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file_edit.require_writable(self.path)
        except OSError as error:
            raise self._write_fault(error) from None

    def save(self, *, seen: bytes | None = None) -> bool:
        """Rewrite the file; with `seen` not over a newer edit, then False (see file_edit.py)."""
        data = json.dumps(self.document, indent=2, ensure_ascii=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return file_edit.write_file(self.path, data, seen=seen)
        except OSError as error:
            raise self._write_fault(error) from None

    def _write_fault(self, error: OSError) -> ConfigError:
        hint = "make room on the disk" if error.errno == errno.ENOSPC else "check owner, mode and mount"
        return ConfigError(f"cannot write {self.path}: {_reason(error)}", hint=hint)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
