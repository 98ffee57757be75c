"""Configured rules of a running client: those of its configuration file and temporary ones, merged with the server's.

A command such as `spoke http 8080` adds a temporary rule that is served for as long as the command runs. The server
stores what is announced, so the file lists temporary rules among those agreed on (`synced`) and not among its own: the
next session then withdraws them (see rule_merge.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from spokes.client.config import ClientConfig
from spokes.client.config_edit import HeldConfig
from spokes.client.remote_targets import RemoteTargets
from spokes.client.rule_merge import merge_rules
from spokes.client.rule_parsing import (
    Json,
    domain_key,
    parse_port,
    parse_site,
    port_key,
    portmap_key,
    site_key,
)
from spokes.errors import NameRefusedError, RuleError, TakenError
from spokes.wire.messages import Accepted, Ready, Services
from spokes.wire.rules import Port, Site, TunConfig

log = logging.getLogger(__name__)

Rule = TypeVar("Rule", Site, Port)
Key = TypeVar("Key", bound=Hashable)


class Rules(Protocol):
    def hostname(self) -> str:
        """The tunnel's own name, as far as it is known."""
        ...

    def services(self) -> Services:
        """What to serve now."""
        ...

    def take_ready(self, ready: Ready) -> None:
        """The server's view at the start of a session."""
        ...

    def take_remote(self, remote: TunConfig) -> None:
        """Rules that were changed at the server."""
        ...

    def take_accepted(self, services: Services, accepted: Accepted) -> None:
        """What the server put in force of the list that was announced."""
        ...


class ConfiguredRules:
    """The configuration file's rules. Where the file cannot be written (disk full), the rules in memory go on."""

    def __init__(
        self, file: HeldConfig | Path, *, temporary_sites: Sequence[Site] = (), temporary_ports: Sequence[Port] = ()
    ) -> None:
        self._file = HeldConfig(file) if isinstance(file, Path) else file
        self._temporary_sites = {site_key(site): site for site in temporary_sites}  # for this run only
        self._temporary_ports = {port_key(port): port for port in temporary_ports}
        self._announced = False  # the temporary rules were announced

    def services(self) -> Services:
        config = self._file.read()
        sites, ports = self._served(config)
        return Services(https=sites, ports=ports, unmanaged=config.unmanaged)

    def _served(self, config: ClientConfig) -> tuple[tuple[Site, ...], tuple[Port, ...]]:
        sites = {site_key(site): site for site in config.sites()} | self._temporary_sites
        ports = {port_key(port): port for port in config.ports()} | self._temporary_ports
        return tuple(sites.values()), tuple(ports.values())

    def take_ready(self, ready: Ready) -> None:
        def taken(config: ClientConfig) -> None:
            config.document.update(hostname=ready.hostname, name=ready.name, tunnel=ready.tunnel)
            self._merge(config, ready.config)

        self._update(taken)

    def take_remote(self, remote: TunConfig) -> None:
        self._update(lambda config: self._merge(config, remote))

    def take_accepted(self, services: Services, accepted: Accepted) -> None:
        refused_sites = {domain_key(result.domain) for result in accepted.https if result.error}
        refused_ports = {result.port for result in accepted.ports if result.error}

        def taken(config: ClientConfig) -> None:
            config.mark_synced(
                [site for site in services.https if site_key(site) not in refused_sites],
                [port for port in services.ports if port_key(port) not in refused_ports],
            )

        self._update(taken)
        self._announced = True

    def _merge(self, config: ClientConfig, remote: TunConfig) -> None:
        if config.unmanaged:
            return
        local_sites, local_ports = self._served(config)
        targets = config.remote_targets()
        sites = _usable("https", remote.https, parse_site)
        sites = _permitted("https", sites, site_key, local_sites, config.synced_sites(), targets)
        ports = _usable("ports", remote.ports, parse_port)
        ports = _permitted("ports", ports, port_key, local_ports, config.synced_ports(), targets)
        said_sites, said_ports = sites, ports
        if not self._announced:  # typed just now, so later than whatever the server has
            sites = [site for site in sites if site_key(site) not in self._temporary_sites]
            ports = [port for port in ports if port_key(port) not in self._temporary_ports]
            sites += self._temporary_sites.values()
            ports += self._temporary_ports.values()
        # A port that was allocated and never forwarded is no rule of the server's: it must not undo a forwarding here.
        known = {port_key(port) for port in local_ports}
        bare = [port for port in ports if port_key(port) in known and not port.destination and not port.dst_port]
        synced_ports = {port_key(port): port for port in (*bare, *config.synced_ports())}
        merged_sites = merge_rules(site_key, synced=config.synced_sites(), local=list(local_sites), remote=sites)
        merged_ports = merge_rules(
            port_key, synced=list(synced_ports.values()), local=list(local_ports), remote=ports
        )
        config.set_sites(_saved_part(merged_sites, site_key, self._temporary_sites, config.sites()))
        config.set_ports(_saved_part(merged_ports, port_key, self._temporary_ports, config.ports()))
        portmaps: list[Json] = [msgspec.to_builtins(portmap) for portmap in remote.portmaps]
        config.set_portmaps(merge_rules(
            portmap_key, synced=config.synced_portmaps(), local=config.portmaps(), remote=portmaps
        ))
        # The base of the next merge is what the server said last: what it adds and removes again is not ours.
        config.mark_synced(said_sites, said_ports)
        config.mark_portmaps_synced(portmaps)

    # temporary rules

    def add_temporary(self, rule: Site | Port) -> None:
        """Serve this rule too. It hides a rule of the file that has the same name or port."""
        if isinstance(rule, Site):
            if site_key(rule) in self._temporary_sites:
                raise TakenError(f"another command serves {rule.domain} already", hint="end it first")
            self._temporary_sites[site_key(rule)] = rule
        else:
            if port_key(rule) in self._temporary_ports:
                raise TakenError(f"another command serves port {rule.port} already", hint="end it first")
            self._temporary_ports[port_key(rule)] = rule

    def remove_temporary(self, rule: Site | Port) -> None:
        if isinstance(rule, Site):
            self._temporary_sites.pop(site_key(rule), None)
        else:
            self._temporary_ports.pop(port_key(rule), None)

    def hostname(self) -> str:
        return self._file.read().hostname

    def free_port(self) -> int:
        """A port of the tunnel that leads nowhere yet; 0 for none."""
        ports = self._file.read().ports()
        free = (port.port for port in ports if not port.dst_port and not port.destination)
        return next((number for number in free if number not in self._temporary_ports), 0)

    def _update(self, change: Callable[[ClientConfig], None]) -> None:
        with self._file.edit() as config:
            change(config)


def _usable(kind: str, rules: Iterable[Rule], parse: Callable[[Json], Rule]) -> list[Rule]:
    """Those that this version can serve: one that it cannot must not make the file unreadable."""
    usable = []
    for rule in rules:
        try:
            usable.append(parse(msgspec.to_builtins(rule)))
        except (RuleError, NameRefusedError) as error:
            log.warning("rule of the server not taken", extra={"kind": kind, "reason": error.line()})
    return usable


def _permitted(
    kind: str, rules: list[Rule], key_of: Callable[[Rule], Key], local: Iterable[Rule], synced: Iterable[Rule],
    targets: RemoteTargets | None,
) -> list[Rule]:
    """Those that name only what this side lets the server name; in place of another the one last agreed on, as if the
    server had changed nothing. The next announcement tells the server."""
    if targets is None:
        return rules
    own = {key_of(rule): rule for rule in local}
    agreed = {key_of(rule): rule for rule in synced}
    permitted = []
    for rule in rules:
        key = key_of(rule)
        refused = targets.refused(rule, own.get(key))
        if not refused:
            permitted.append(rule)
            continue
        log.warning(
            "rule of the server not taken",
            extra={"kind": kind, "rule": str(key), "reason": f"remoteTargets does not name {refused}"},
        )
        if key in agreed:
            permitted.append(agreed[key])
    return permitted


def _saved_part(
    rules: Iterable[Rule], key_of: Callable[[Rule], Key], temporary: dict[Key, Rule], saved: Iterable[Rule]
) -> list[Rule]:
    """The file's part of the rules; `temporary` keeps what is left of its own, as it is among them.

    A rule of the file that a temporary one hides for this run stays in the file as it is.
    """
    merged = {key_of(rule): rule for rule in rules}
    hidden = {key_of(rule): rule for rule in saved if key_of(rule) in temporary}
    for key in list(temporary):
        if key in merged:
            temporary[key] = merged.pop(key)
            if key in hidden:
                merged[key] = hidden[key]
        else:
            del temporary[key]
    return list(merged.values())
