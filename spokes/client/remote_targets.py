"""Which services and directories of this side the server's rules may name: `remoteTargets` of the configuration file.

Without that member all of them: a server that is trusted administrates. With it a server that fell into other hands, or
whoever holds a key of its Admin API, reaches nothing that the user did not name.
Fails: ConfigError names the entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from spokes.client.rule_parsing import Place, place_text, tcp_place, tls_place
from spokes.errors import ConfigError
from spokes.wire.rules import UNIX_PREFIX, Port, Site

ANY_PORT = "*"


class RemoteTargets:
    """Entries are compared as they are written: a name is not resolved, a path is not followed."""

    def __init__(self, entries: Iterable[object]) -> None:
        self._entries = {_checked(entry) for entry in entries}

    def refused(self, rule: Site | Port, own: Site | Port | None = None) -> str:
        """What the rule names and may not, for the log; "" where it names nothing of the kind. The rule that this side
        has under the same name, `own`, names what it may."""
        allowed = self._entries | (set(targets_of(own)) if own is not None else set())
        for target in targets_of(rule):
            host, _, _ = target.rpartition(":")
            if target not in allowed and not (_is_place(target) and f"{host}:{ANY_PORT}" in allowed):
                return target
        return ""


def targets_of(rule: Site | Port) -> list[str]:
    """Everything of this side that the rule names, used or not: `HOST:PORT`, `unix:/path`, or a directory."""
    if isinstance(rule, Port):
        return [_text(place) for place in [tcp_place(rule)] if place is not None]
    places: list[Place | None] = [tls_place(rule)]
    if rule.destination.startswith(UNIX_PREFIX):
        places = [(rule.destination, 0)]
    elif rule.port:
        places.append((rule.destination or "localhost", rule.port))
    if rule.upstream_url:
        url = urlsplit(rule.upstream_url)
        places.append((url.hostname or "", url.port or (443 if url.scheme == "https" else 80)))
    named = [_text(place) for place in places if place is not None]
    return [*named, _directory(rule.web_root)] if rule.web_root else named


def _checked(entry: object) -> str:
    if isinstance(entry, str):
        if entry.startswith("/"):
            return _directory(entry)
        if entry.startswith(UNIX_PREFIX + "/"):
            return entry
        host, _, port = entry.rpartition(":")
        is_number = port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535
        if host and (is_number or port == ANY_PORT):
            return f"{host.lower()}:{int(port) if is_number else ANY_PORT}"
    raise ConfigError(
        f"remoteTargets: {entry!r} names no service or directory",
        hint="write HOST:PORT, HOST:*, unix:/path or the absolute path of a directory",
    )


def _text(place: Place) -> str:
    host, port = place
    if host.startswith(UNIX_PREFIX):
        return host
    return place_text((host.strip("[]").lower(), port))


def _is_place(target: str) -> bool:
    return not target.startswith(("/", "./", UNIX_PREFIX))


def _directory(path: str) -> str:
    """A relative one is never served, and must not pass for a place."""
    return path.rstrip("/") or "/" if path.startswith("/") else f"./{path}"
