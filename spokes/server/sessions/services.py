"""Services that a client announces, against the store: each rule in force or refused. On the store's thread."""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec

from spokes.errors import LimitError, PeerError
from spokes.model.operation import client_of, perform
from spokes.model.rule_lists import ReplaceRules
from spokes.model.rules import HASH_COUNT_MAX, sealed_site
from spokes.server.sessions.password_seals import Seals
from spokes.store import Store
from spokes.wire.messages import Accepted, Fault, PortResult, Services, SiteResult
from spokes.wire.rules import Port, Site

NO_SEALS: Seals = {}


class Applied(NamedTuple):
    """The answer, and the rules that are in force at both ends after it, with their revision."""

    accepted: Accepted
    revision: int
    https: tuple[Site, ...]
    ports: tuple[Port, ...]
    is_rewritten: bool  # a rule is stored in other words than the client's, such as a password's hash


def apply_services(
    store: Store, tunnel_uid: str, services: Services, domain: str, seals: Seals = NO_SEALS
) -> Applied:
    """Makes the tunnel's sites these; ports must be its own. What is refused is refused alone. `seals`: the hashes of
    passwords that are none.

    Fails: RulesChangedError when the list was made from older rules than the stored ones, InactiveError when the tunnel
    may not log in any longer.
    """
    site_faults: dict[int, PeerError] = {}
    sites: list[Site] = []
    for index, site in enumerate(services.https):
        try:
            sites.append(sealed_site(site, functools.partial(_sealed, seals, site.domain)))
        except PeerError as error:
            site_faults[index] = error
    ports = {port.port: port for port in services.ports}
    replaced = perform(store, client_of(tunnel_uid), ReplaceRules(
        tunnel_uid,
        [msgspec.to_builtins(site) for site in sites],
        {number: msgspec.to_builtins(port) for number, port in ports.items()},
        domain=domain,
        base_rev=None if services.unmanaged else services.rules_rev,
        unmanaged=services.unmanaged,
    ))
    stored = zip(sites, replaced.sites, strict=True)
    site_results: list[SiteResult] = []
    https: dict[str, Site] = {}
    is_rewritten = False
    for index, site in enumerate(services.https):
        if index in site_faults:
            site_results.append(SiteResult(domain=site.domain, error=Fault.of(site_faults[index])))
            continue
        checked, result = next(stored)
        site_results.append(SiteResult(domain=result.domain, error=Fault.of(result.error) if result.error else None))
        if result.error is None:
            https[result.domain] = msgspec.structs.replace(checked, domain=result.domain)
            is_rewritten |= https[result.domain] != msgspec.structs.replace(site, domain=result.domain)
    port_errors = replaced.port_errors
    port_results = tuple(
        PortResult(
            port=port.port, error=Fault.of(port_errors[port.port]) if port.port in port_errors else None
        )
        for port in services.ports
    )
    in_force = {
        number: Port(port=number) if number in port_errors else ports.get(number, Port(port=number))
        for number in replaced.own_ports
    }
    return Applied(
        Accepted(https=tuple(site_results), ports=port_results, rules_rev=replaced.rev),
        replaced.rev,
        tuple(https[name] for name in sorted(https)),
        tuple(in_force[number] for number in sorted(in_force)),
        is_rewritten,
    )


def _sealed(seals: Seals, domain: str, text: str) -> str:
    try:
        return seals[domain, text]
    except KeyError:
        raise LimitError(f"one list sets at most {HASH_COUNT_MAX} new passwords", hint="set the others later") from None
