"""Parsing of traffic rules: from JSON objects to Site and Port of wire.rules, their keys, and the places they lead to.

A member this version does not know stays in its JSON object, whatever else changes in the rule.
Fails: RuleError names the rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from spokes.errors import NameRefusedError, RuleError
from spokes.ids import canonical_host
from spokes.wire.rules import UNIX_PREFIX, Port, Site, check_limit, check_port, check_site

Json = dict[str, Any]
Place = tuple[str, int]  # destination and port there; "unix:/path" has port 0
Rule = TypeVar("Rule", bound=Site | Port)



def parse_site(rule: Json) -> Site:
    site = _convert(rule, Site, f"https {rule.get('domain')}")
    check_site(site)
    canonical_host(site.domain)
    return site


def parse_port(rule: Json) -> Port:
    port = _convert(rule, Port, f"ports {rule.get('port')}")
    if port.destination.startswith(UNIX_PREFIX):
        check_limit(f"port {port.port}: ", "udpTimeout", port.udp_timeout)
    else:
        check_port(port)
    return port


def parse_sites(rules: Iterable[Json]) -> list[Site]:
    return [parse_site(rule) for rule in rules]


def parse_ports(rules: Iterable[Json]) -> list[Port]:
    return [parse_port(rule) for rule in rules]


def site_key(site: Site) -> str:
    """Sites are told apart by their domain in its canonical form."""
    return domain_key(site.domain)


def domain_key(domain: str) -> str:
    """Never fails: what a newer server calls a domain may be no host name here."""
    try:
        return canonical_host(domain)
    except NameRefusedError:
        return domain.lower()


def port_key(port: Port) -> int:
    return port.port


def portmap_key(rule: Json) -> tuple[str, str]:
    """Of its JSON object: port maps are kept and not served yet."""
    return str(rule.get("listenPort")), str(rule.get("transport") or "tcp")


def http_place(site: Site) -> Place | None:
    """Where the site's plain HTTP is answered; None where no service does."""
    if site.web_root:
        return None
    if site.upstream_url:
        url = urlsplit(site.upstream_url)
        return (url.hostname or "", url.port or 80) if url.scheme == "http" else None
    if site.destination.startswith(UNIX_PREFIX):
        return site.destination, 0
    return (site.destination or "localhost", site.port) if site.port else None


def tls_place(site: Site) -> Place | None:
    """Where visitors' TLS is passed through to; None where the site has no TLS port."""
    return (site.destination or "localhost", site.tls) if site.tls else None


def tcp_place(port: Port) -> Place | None:
    if port.destination.startswith(UNIX_PREFIX):
        return port.destination, 0
    return (port.destination or "localhost", port.dst_port) if port.dst_port else None


def place_text(place: Place | None) -> str:
    """A place for people: "127.0.0.1:8080", "[::1]:80", "unix:/run/app.sock"; "" for none."""
    if place is None:
        return ""
    host, port = place
    if host.startswith(UNIX_PREFIX):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def overlay(stored: Json, rule: Site | Port) -> Json:
    """`rule` as JSON, with the members of `stored` that this version does not know."""
    known = {field.encode_name for field in msgspec.structs.fields(type(rule))}
    unknown = {key: value for key, value in stored.items() if key not in known}
    return {**msgspec.to_builtins(rule), **unknown}


def _convert(rule: Json, kind: type[Rule], where: str) -> Rule:
    try:
        return msgspec.convert({key: value for key, value in rule.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise RuleError(f"{where}: {error}") from None
