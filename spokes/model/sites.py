"""HTTP services of tunnels: operations that put and remove them by domain, and the checks of who may have a name."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, NameRefusedError, NotFoundError, PeerError, ValueRefusedError
from spokes.ids import canonical_host, is_reserved, new_uid
from spokes.model.hostnames import Claimant, holders, taken_names, under_others
from spokes.model.limits import owner_of, refused_domains
from spokes.model.operation import Operation, Work
from spokes.model.rule_state import check_managed, check_rule_bytes, too_many_bytes
from spokes.model.rules import check_site_rule
from spokes.store import Site, SiteResult, Store, Tunnel
from spokes.store.changes import Writer
from spokes.store.models import canonical_json
from spokes.store.rows import Json

SITE_COUNT_MAX = 1_000                   # of one tunnel: bounds the length of one writing transaction


class PutSites(Operation[list[Site]], frozen=True, tag="site.put"):
    """Adds or replaces the rules of the domains named, all or none; the others stay. Passwords in them are hashes.

    With `domain`, the server's own, names reserved under it are refused.
    """

    tunnel_uid: str
    sites: Sequence[Json]
    domain: str | None = None

    def apply(self, work: Work) -> list[Site]:
        rules = dict(_keyed(rule, self.domain) for rule in self.sites)
        if len(rules) > SITE_COUNT_MAX:
            raise LimitError(f"a tunnel may have {SITE_COUNT_MAX} HTTP services")
        store, uid = work.store, self.tunnel_uid
        with work.transaction() as tx:
            tunnel = work.tunnel(tx, uid)
            check_managed(store, uid, tx)
            own = own_sites(store, tx, uid)
            if len(own.keys() | rules.keys()) > SITE_COUNT_MAX:
                raise LimitError(f"a tunnel may have {SITE_COUNT_MAX} HTTP services", hint="remove some first")
            for error in _refused(store, tx, tunnel, rules, own, self.domain).values():
                raise error
            put = [_put_site(tx, uid, host, rule, own.get(host)) for host, rule in rules.items()]
            check_rule_bytes(store, uid)
            return put


class RemoveSites(Operation[None], frozen=True, tag="site.remove"):
    """Removes the rules of these domains, all or none; a domain that is not this tunnel's is NotFoundError."""

    tunnel_uid: str
    domains: Sequence[str]

    def apply(self, work: Work) -> None:
        hosts = dict.fromkeys(canonical_host(host) for host in self.domains)
        with work.transaction() as tx:
            work.tunnel(tx, self.tunnel_uid)
            check_managed(work.store, self.tunnel_uid, tx)
            own = own_sites(work.store, tx, self.tunnel_uid)
            for host in hosts:
                if host not in own:
                    raise NotFoundError(f"{host} is no HTTP service of this tunnel")
                tx.delete(own[host])


def checked_list(
    sites: Iterable[Json], domain: str | None, room_bytes: int, *, from_client: bool
) -> tuple[list[SiteResult], dict[str, dict[str, Any]]]:
    """Returns one result per element, and the rules that may be written if nobody else holds their domains. A rule
    beyond the count or beyond `room_bytes` is refused alone."""
    results: list[SiteResult] = []
    rules: dict[str, dict[str, Any]] = {}
    for rule in sites:
        try:
            host, keyed = _keyed(rule, domain, from_client=from_client)
        except PeerError as error:
            results.append(SiteResult(str(rule.get("domain", "")) if isinstance(rule, Mapping) else "", error))
        else:
            if host not in rules and len(rules) == SITE_COUNT_MAX:
                results.append(SiteResult(host, LimitError(f"a tunnel may have {SITE_COUNT_MAX} HTTP services")))
                continue
            room_bytes -= len(canonical_json(keyed))
            if room_bytes < 0:
                results.append(SiteResult(host, too_many_bytes()))
                continue
            rules[host] = keyed
            results.append(SiteResult(host))
    return results, rules


def replace_sites(
    store: Store, tx: Writer, tunnel: Tunnel, rules: dict[str, dict[str, Any]], domain: str | None
) -> dict[str, PeerError]:
    """Replaces the tunnel's list and returns the domains that are refused."""
    own = own_sites(store, tx, tunnel.uid)
    refused = _refused(store, tx, tunnel, rules, own, domain)
    for host, site in own.items():
        if host not in rules:
            tx.delete(site)
    for host, rule in rules.items():
        if host not in refused:
            _put_site(tx, tunnel.uid, host, rule, own.get(host))
    return refused


def own_sites(store: Store, tx: Writer, tunnel_uid: str) -> dict[str, Site]:
    """By domain."""
    return {site.domain: site for site in store.sites.select(tunnel_uid, tx)}


def joined_results(results: list[SiteResult], refused: Mapping[str, PeerError]) -> list[SiteResult]:
    return [result if result.error else SiteResult(result.domain, refused.get(result.domain)) for result in results]


def _refused(
    store: Store, tx: Writer, tunnel: Tunnel, rules: Mapping[str, Json], own: Mapping[str, Site], domain: str | None
) -> dict[str, PeerError]:
    """Returns the names among `rules` that the owner may not serve, that another tunnel holds, or that lie under its
    hostname.

    A rule that stands as it is needs no permission again: taking one away ends nothing, also not when the client
    comes back and says its list.
    """
    hosts = list(rules)
    new = [
        host for host, rule in rules.items()
        if host not in own or canonical_json(own[host].rule) != canonical_json(rule)
    ]
    claimant = Claimant.of(tunnel)
    owner = owner_of(store, tx, tunnel.user_uid)
    verifications = store.domain_verifications
    refused: dict[str, PeerError] = {}
    if owner is not None:
        refused |= refused_domains(
            owner,
            {tunnel.hostname} | store.hostnames.former(tx, new, tunnel),
            new,
            challenge=functools.partial(verifications.challenge, owner.uid),
            verified=verifications.proved(tx, owner.uid) if store.settings.verified_domains_only else None,
        )
    refused |= taken_names(holders(store, tx, hosts, claimant), hint="remove it there first")
    return refused | (under_others(store, tx, hosts, domain, claimant) if domain is not None else {})


def _put_site(tx: Writer, tunnel_uid: str, host: str, rule: dict[str, Any], old: Site | None) -> Site:
    if old is None:
        return tx.insert(Site(
            uid=new_uid(), tunnel_uid=tunnel_uid, domain=host, rule=rule, created=tx.now, modified=tx.now
        ))
    if canonical_json(old.rule) == canonical_json(rule):
        return old
    return tx.update(replace(old, rule=rule, modified=tx.now))


def _keyed(rule: Json, domain: str | None, *, from_client: bool = False) -> tuple[str, dict[str, Any]]:
    """Returns the canonical domain, and the rule with that domain; refuses a rule that must not be stored."""
    host = rule.get("domain") if isinstance(rule, Mapping) else None
    if not isinstance(host, str) or not host:
        raise ValueRefusedError("an HTTP rule needs a domain")
    host = canonical_host(host)
    if domain is not None and is_reserved(host, domain):
        raise NameRefusedError(f"{host} is reserved", hint="choose another name")
    try:
        canonical_json(rule := {**rule, "domain": host})
    except (TypeError, ValueError, RecursionError):
        raise ValueRefusedError(f"the rule of {host} is not plain JSON") from None
    check_site_rule(rule, from_client=from_client)
    return host, dict(rule)
