"""What a traffic rule must be beyond its types, before it is stored and sent to a client.

Owns: certificates (base64 of PEM, the key must match), passwords (stored as hashes only).
Fails: RuleError names the rule and the member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from spokes.admin.passwords import hash_text, is_own_hash
from spokes.admin.schema.rules import PortMapRule
from spokes.errors import RuleError
from spokes.ids import canonical_host
from spokes.wire.rules import Port, PortMap, Site, check_destination, check_port, check_portmap, check_site

# Of a rule's members those that neither the server nor the client acts on.
NOT_IN_FORCE = (
    "firewall", "password", "requires2FA", "basicHttpAuth", "redirect", "redirectURL", "useLetsEnc", "ca", "privateKey"
)
PLAIN_PASSWORD_CHARS_MAX = 512
HASH_COUNT_MAX = 100                     # in one call: each takes tens of milliseconds, and logins wait meanwhile


def check_hash_count(sites: Sequence[Site]) -> None:
    """Before anything is hashed."""
    texts = [text for site in sites for text in (site.password, site.basic_http_auth) if text and not is_own_hash(text)]
    if len(texts) > HASH_COUNT_MAX:
        raise RuleError(f"https: {len(texts)} new passwords; one call sets at most {HASH_COUNT_MAX}")


def warning_of(rules: Iterable[Mapping[str, object]]) -> str | UnsetType:
    """Says what of the rules is kept and delivered but acts on nobody yet: who closes a door has to know."""
    named = {name for rule in rules for name in rule}
    idle = [name for name in NOT_IN_FORCE if name in named]
    return f"kept, but not in force in this version: {', '.join(idle)}" if idle else UNSET


def checked_site(site: Site, *, owner: str = "") -> Site:
    """The site as it is stored: domain in canonical form, passwords hashed; `owner`: in whose turn."""
    check_site(site)
    site = msgspec.structs.replace(site, domain=canonical_host(site.domain))
    where = f"https {site.domain}"
    if site.destination:
        check_destination(site.destination)
    if site.ca or site.private_key:
        # Few rules bring a certificate, and what reads one takes 8 MB.
        from spokes.admin.certificates import check_pair

        check_pair(where, site.ca, site.private_key)
    if site.basic_http_auth and not is_own_hash(site.basic_http_auth) and ":" not in site.basic_http_auth:
        raise RuleError(f"{where}: basicHttpAuth is user:password, or the hash of it")
    return msgspec.structs.replace(
        site,
        password=_hashed(f"{where}: password", site.password, owner),
        basic_http_auth=_hashed(f"{where}: basicHttpAuth", site.basic_http_auth, owner),
    )


def checked_port(port: Port) -> Port:
    check_port(port)
    if port.destination:
        check_destination(port.destination)
    return port


def checked_portmap(rule: PortMapRule) -> PortMap:
    portmap = PortMap(
        listen_port=rule.listen_port, dst_port=rule.dst_port, destination=rule.destination,
        transport=rule.transport.lower() or "tcp", label=rule.label, http=rule.http,
    )
    check_portmap(portmap)
    if portmap.destination:
        check_destination(portmap.destination)
    return portmap


def _hashed(where: str, text: str, owner: str) -> str:
    """A hash of ours unchanged, so that reading a rule and writing it back changes no password; else the text's."""
    if not text or is_own_hash(text):
        return text
    if len(text) > PLAIN_PASSWORD_CHARS_MAX:
        raise RuleError(f"{where} is longer than {PLAIN_PASSWORD_CHARS_MAX} characters")
    return hash_text(text, owner=owner)
