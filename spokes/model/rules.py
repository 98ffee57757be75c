"""Traffic rules: what one must be beyond its types before it is stored, alike for the Admin API and a client's list.

Owns: certificates (base64 of PEM, the key must match), passwords (stored as hashes only).
Fails: RuleError names the rule and the member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from spokes.errors import RuleError
from spokes.ids import canonical_host
from spokes.password_hash import is_own_hash
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


def checked_site(site: Site, seal: Seal, *, from_client: bool = False) -> Site:
    """Returns the site as it is stored: domain in canonical form, passwords hashed. A client may name files of its own
    instead of a certificate and its key.
    """
    check_site(site)
    site = msgspec.structs.replace(site, domain=canonical_host(site.domain))
    where = f"https {site.domain}"
    check_upstream(site)
    if (site.ca or site.private_key) and not (from_client and _names_files(site)):
        # Few rules bring a certificate, and what reads one takes 8 MB.
        from spokes.model.certificates import check_pair

        check_pair(where, site.ca, site.private_key)
    if site.basic_http_auth and not is_own_hash(site.basic_http_auth) and ":" not in site.basic_http_auth:
        raise RuleError(f"{where}: basicHttpAuth is user:password, or the hash of it")
    if not plain_texts(site):
        return site
    return msgspec.structs.replace(
        site,
        password=_sealed(f"{where}: password", site.password, seal),
        basic_http_auth=_sealed(f"{where}: basicHttpAuth", site.basic_http_auth, seal),
    )


def _names_files(site: Site) -> bool:
    """PEM in base64 begins with neither and ends with none of them."""
    return all(
        text.startswith(("/", "./", "../", "~/")) or text.endswith((".pem", ".crt", ".cer", ".key"))
        for text in (site.ca, site.private_key)
    )


def checked_port(port: Port) -> Port:
    check_port(port)
    if port.destination:
        check_destination(port.destination)
    return port


def checked_portmap(portmap: PortMap) -> PortMap:
    check_portmap(portmap)
    if portmap.destination:
        check_destination(portmap.destination)
    return portmap


def _sealed(where: str, text: str, seal: Seal) -> str:
    """Returns a hash of ours unchanged, so that reading a rule and writing it back changes no password, and else the
    hash of the text."""
    if not text or is_own_hash(text):
        return text
    if len(text) > PLAIN_PASSWORD_CHARS_MAX:
        raise RuleError(f"{where} is longer than {PLAIN_PASSWORD_CHARS_MAX} characters")
    return seal(text)
