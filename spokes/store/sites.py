"""HTTP services of tunnels: who serves which domain, by which rule."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, NameRefusedError, NotFoundError, PeerError, ValueRefusedError
from spokes.ids import canonical_host, is_reserved, new_uid
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.hostnames import Asker, Hostnames
from spokes.store.limits import owner_of, refused_domains
from spokes.store.logged import SITES, RowsOfTunnels
from spokes.store.models import SiteModel, canonical_json
from spokes.store.proofs import Proofs
from spokes.store.rows import Json, Site, SiteResult, Tunnel
from spokes.store.rulestate import RuleStates, too_many_bytes
from spokes.store.tunnels import Tunnels

SITE_COUNT_MAX = 1_000                   # of one tunnel: bounds the length of one writing transaction

_OF = RowsOfTunnels(SITES, SiteModel.domain)


class Sites:
    def __init__(
        self, db: Database, changes: ChangeLog, hostnames: Hostnames, tunnels: Tunnels, rules: RuleStates,
        verifications: Proofs,
    ) -> None:
        self._db = db
        self._changes = changes
        self._hostnames = hostnames
        self._tunnels = tunnels
        self._rules = rules
        self._verifications = verifications

    def put(self, tunnel_uid: str, sites: Iterable[Json], *, domain: str | None = None) -> list[Site]:
        """Add or replace the rules of the domains named, all or none; the others stay.

        With `domain`, the server's own, names reserved under it are refused.
        """
        rules = dict(_keyed(rule, domain) for rule in sites)
        if len(rules) > SITE_COUNT_MAX:
            raise LimitError(f"a tunnel may have {SITE_COUNT_MAX} HTTP services")
        with self._changes.transaction() as tx:
            tunnel = self._tunnels.live(tx.rows, tunnel_uid)
            self._rules.managed_or_raise(tx.read, tunnel_uid)
            own = self._own_sites(tx, tunnel_uid)
            if len(own.keys() | rules.keys()) > SITE_COUNT_MAX:
                raise LimitError(f"a tunnel may have {SITE_COUNT_MAX} HTTP services", hint="remove some first")
            for error in self._refused(tx, tunnel, rules, own, domain).values():
                raise error
            put = [self._put_site(tx, tunnel_uid, host, rule, own.get(host)) for host, rule in rules.items()]
            self._rules.check_bytes(tunnel_uid)
            return put

    def remove(self, tunnel_uid: str, domains: Iterable[str]) -> None:
        """All or none: a domain that is not this tunnel's is NotFoundError."""
        hosts = dict.fromkeys(canonical_host(host) for host in domains)
        with self._changes.transaction() as tx:
            self._tunnels.live(tx.rows, tunnel_uid)
            self._rules.managed_or_raise(tx.read, tunnel_uid)
            own = self._own_sites(tx, tunnel_uid)
            for host in hosts:
                if host not in own:
                    raise NotFoundError(f"{host} is no HTTP service of this tunnel")
                tx.delete(own[host])

    def select(self, tunnel_uid: str | Iterable[str] | None = None) -> list[Site]:
        """By domain: all, a tunnel's, or those of several tunnels."""
        return [SITES.read(row) for row in self._db.rows(_OF(tunnel_uid))]

    # --- below -----------------------------------------------------------------------------------------------------

    @staticmethod
    def checked_list(
        sites: Iterable[Json], domain: str | None, room_bytes: int
    ) -> tuple[list[SiteResult], dict[str, dict[str, Any]]]:
        """One result per element, and the rules that may be written if nobody else holds their domains. What is too
        many or takes more than `room_bytes` is refused alone."""
        results: list[SiteResult] = []
        rules: dict[str, dict[str, Any]] = {}
        for rule in sites:
            try:
                host, keyed = _keyed(rule, domain)
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

    def replace_all(
        self, tx: Writer, tunnel: Tunnel, rules: dict[str, dict[str, Any]], domain: str | None
    ) -> dict[str, PeerError]:
        """The domains that are refused; the others are the tunnel's list now."""
        own = self._own_sites(tx, tunnel.uid)
        refused = self._refused(tx, tunnel, rules, own, domain)
        for host, site in own.items():
            if host not in rules:
                tx.delete(site)
        for host, rule in rules.items():
            if host not in refused:
                self._put_site(tx, tunnel.uid, host, rule, own.get(host))
        return refused

    def _refused(
        self, tx: Writer, tunnel: Tunnel, rules: Mapping[str, Json], own: Mapping[str, Site], domain: str | None
    ) -> dict[str, PeerError]:
        """The names among `rules` that the owner may not serve, that another tunnel holds, or that lie under its
        hostname: www.HOSTNAME would be believed to be that tunnel's too.

        A rule that stands as it is needs no permission again: taking one away ends nothing, also not when the client
        comes back and says its list.
        """
        hosts = list(rules)
        new = [
            host for host, rule in rules.items()
            if host not in own or canonical_json(own[host].rule) != canonical_json(rule)
        ]
        asker = Asker.of(tunnel)
        owner = owner_of(tx, tunnel.user_uid)
        refused: dict[str, PeerError] = {}
        if owner is not None:
            refused |= refused_domains(
                owner,
                {tunnel.hostname} | self._hostnames.former(tx.rows, new, tunnel),
                new,
                challenge=functools.partial(self._verifications.challenge, owner.uid),
                proved=self._verifications.proved(tx.read, owner.uid) if self._verifications.required else None,
            )
        refused |= self._hostnames.taken(self._hostnames.holders(tx.rows, hosts, asker), hint="remove it there first")
        return refused | (self._hostnames.under_others(tx, hosts, domain, asker) if domain is not None else {})

    @staticmethod
    def _put_site(tx: Writer, tunnel_uid: str, host: str, rule: dict[str, Any], old: Site | None) -> Site:
        if old is None:
            return tx.insert(Site(
                uid=new_uid(), tunnel_uid=tunnel_uid, domain=host, rule=rule, created=tx.now, modified=tx.now
            ))
        if canonical_json(old.rule) == canonical_json(rule):
            return old
        return tx.update(replace(old, rule=rule, modified=tx.now))

    @staticmethod
    def _own_sites(tx: Writer, tunnel_uid: str) -> dict[str, Site]:
        """By domain."""
        return {site.domain: site for site in map(SITES.read, tx.rows(_OF(tunnel_uid)))}


def joined_results(results: list[SiteResult], refused: Mapping[str, PeerError]) -> list[SiteResult]:
    return [result if result.error else SiteResult(result.domain, refused.get(result.domain)) for result in results]


def _keyed(rule: Json, domain: str | None) -> tuple[str, dict[str, Any]]:
    """(canonical domain, the rule with that domain); ValueRefusedError if it is no JSON object with a domain."""
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
    return host, dict(rule)
