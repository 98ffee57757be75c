"""Traffic rules: what one must be beyond its types before it is stored, alike for the Admin API and a client's list.

Owns: certificates (base64 of PEM, the key must match), passwords (stored as hashes only).
Fails: RuleError names the rule and the member.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from spokes.errors import RuleError
from spokes.password_hash import is_own_hash
from spokes.store.rows import Json
from spokes.wire.rules import (
    Port,
    PortMap,
    Site,
    check_destination,
    check_port,
    check_portmap,
    check_site,
    check_upstream,
)

# Of a rule's members those that neither the server nor the client acts on.
NOT_IN_FORCE = (
    "firewall", "password", "requires2FA", "basicHttpAuth", "redirect", "redirectURL", "useLetsEnc", "ca", "privateKey"
)
PLAIN_PASSWORD_CHARS_MAX = 512
HASH_COUNT_MAX = 100                     # in one call or list: each takes tens of milliseconds, others wait

T = TypeVar("T", Site, Port, PortMap)

Seal = Callable[[str], str]              # the hash of a password; whoever gives it bounds how many are made at once


def check_hash_count(sites: Sequence[Site]) -> None:
    """Refuses more new passwords than one call may set, before any is hashed."""
    texts = [text for site in sites for text in plain_texts(site)]
    if len(texts) > HASH_COUNT_MAX:
        raise RuleError(f"https: {len(texts)} new passwords; one call sets at most {HASH_COUNT_MAX}")


def plain_texts(site: Site) -> list[str]:
    """Returns the passwords of the site that are not hashed yet."""
    return [text for text in (site.password, site.basic_http_auth) if text and not is_own_hash(text)]


def warning_of(rules: Iterable[Mapping[str, object]]) -> str | UnsetType:
    """Returns a warning that names the members which are stored and delivered but not in force."""
    named = {name for rule in rules for name in rule}
    idle = [name for name in NOT_IN_FORCE if name in named]
    return f"kept, but not in force in this version: {', '.join(idle)}" if idle else UNSET


def sealed_site(site: Site, seal: Seal) -> Site:
    """Returns the site with its passwords hashed by `seal`; a site without plain passwords is returned as it is.

    What is cheap to check is checked first, so that nothing is hashed for a rule that is refused anyhow.
    """
    if not plain_texts(site):
        return site
    where = _checked_form(site)
    return msgspec.structs.replace(
        site,
        password=_sealed(f"{where}: password", site.password, seal),
        basic_http_auth=_sealed(f"{where}: basicHttpAuth", site.basic_http_auth, seal),
    )


def check_site_rule(rule: Json, *, from_client: bool = False) -> None:
    """Refuses the rule of a site that must not be stored, one with a plain password among them.

    A client may name files of its own instead of a certificate and its key.
    """
    site = _converted(rule, Site, "https")
    where = _checked_form(site)
    if (site.ca or site.private_key) and not (from_client and _names_files(site)):
        # Few rules bring a certificate, and what reads one takes 8 MB.
        from spokes.model.certificates import check_pair

        check_pair(where, site.ca, site.private_key)
    if plain_texts(site):
        raise RuleError(f"{where}: a password that is not hashed is not stored")


def check_port_rule(rule: Json) -> None:
    """Refuses the forwarding of a port that must not be stored; whether the port is the tunnel's is not looked at."""
    port = _converted({"port": 1, **rule}, Port, "ports")
    check_port(port)
    if port.destination:
        check_destination(port.destination)


def check_portmap_rule(rule: Json) -> None:
    """Refuses a port map that must not be stored."""
    portmap = _converted({"dstPort": 0, "destination": "", **rule}, PortMap, "portmaps")
    check_portmap(portmap)
    if portmap.destination:
        check_destination(portmap.destination)


def _checked_form(site: Site) -> str:
    """Refuses a site whose members alone show that it cannot be served; returns how messages name it."""
    check_site(site)
    check_upstream(site)
    where = f"https {site.domain}"
    if site.basic_http_auth and not is_own_hash(site.basic_http_auth) and ":" not in site.basic_http_auth:
        raise RuleError(f"{where}: basicHttpAuth is user:password, or the hash of it")
    return where


def _converted(rule: Json, kind: type[T], what: str) -> T:
    """What this program knows of the rule; members of another version are stored and say nothing here."""
    try:
        return msgspec.convert({name: rule[name] for name in _names(kind) if name in rule}, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise RuleError(f"{what}: {error}") from None


@functools.cache
def _names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Its members as JSON has them."""
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


def _names_files(site: Site) -> bool:
    """PEM in base64 begins with neither and ends with none of them."""
    return all(
        text.startswith(("/", "./", "../", "~/")) or text.endswith((".pem", ".crt", ".cer", ".key"))
        for text in (site.ca, site.private_key)
    )


def _sealed(where: str, text: str, seal: Seal) -> str:
    """Returns a hash of ours unchanged, so that reading a rule and writing it back changes no password, and else the
    hash of the text."""
    if not text or is_own_hash(text):
        return text
    if len(text) > PLAIN_PASSWORD_CHARS_MAX:
        raise RuleError(f"{where} is longer than {PLAIN_PASSWORD_CHARS_MAX} characters")
    return seal(text)
