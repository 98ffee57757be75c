"""All rules that a client announces, in one transaction: in force or refused, and only if it knew the latest ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spokes.errors import NotFoundError, PeerError, RulesChangedError
from spokes.store.changes import ChangeLog
from spokes.store.models import canonical_json
from spokes.store.ports import Ports
from spokes.store.rows import Json, SiteResult
from spokes.store.rulestate import RULES_BYTES_MAX, RuleStates, too_many_bytes
from spokes.store.sites import Sites, joined_results
from spokes.store.tunnels import Tunnels


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesReplaced:
    """What became of an announced list; `port_errors` names the ports that were refused."""

    rev: int
    sites: list[SiteResult]
    own_ports: tuple[int, ...]
    port_errors: Mapping[int, PeerError] = field(default_factory=dict)


class RuleLists:
    def __init__(self, changes: ChangeLog, tunnels: Tunnels, rules: RuleStates, sites: Sites, ports: Ports) -> None:
        self._changes = changes
        self._tunnels = tunnels
        self._rules = rules
        self._sites = sites
        self._ports = ports

    def replace(
        self,
        tunnel_uid: str,
        sites: Iterable[Json],
        ports: Mapping[int, Json],
        *,
        domain: str | None = None,
        base_rev: int | None = None,
        unmanaged: bool = False,
    ) -> RulesReplaced:
        """Make these the tunnel's sites and forwardings, rule by rule: what cannot be is refused alone.

        Own ports that are not named stay allocated and are not forwarded. Nothing is written, and RulesChangedError
        raised, unless the rules still stand at `base_rev` (None: wherever they stand). A list that changes nothing, as
        after every reconnect, writes nothing.
        """
        known = self._rules.read(tunnel_uid)
        room_bytes = RULES_BYTES_MAX - sum(len(canonical_json(rule)) for rule in known.portmaps)
        heavy: dict[int, PeerError] = {}
        for number, rule in ports.items():
            size_bytes = len(canonical_json(rule))
            if size_bytes > room_bytes:
                heavy[number] = too_many_bytes()
            else:
                room_bytes -= size_bytes
        ports = {number: {} if number in heavy else rule for number, rule in ports.items()}
        results, rules = self._sites.checked_list(sites, domain, room_bytes)
        if base_rev is not None and known.rev != base_rev:
            raise RulesChangedError("the rules were changed at the server meanwhile")
        own_ports = {rule["port"]: rule for rule in known.ports}
        wanted = {port: {**ports.get(port, {}), "port": port} for port in own_ports}
        if (
            rules                            # none may mean an unknown tunnel: look properly
            and wanted.keys() >= ports.keys()
            and known.unmanaged == unmanaged
            and canonical_json({rule["domain"]: rule for rule in known.sites}) == canonical_json(rules)
            and canonical_json(list(wanted.values())) == canonical_json(list(own_ports.values()))
        ):
            return RulesReplaced(rev=known.rev, sites=results, own_ports=tuple(own_ports), port_errors=heavy)
        with self._changes.transaction() as tx:
            tunnel = self._tunnels.live(tx.rows, tunnel_uid)
            rev = self._rules.require_rev(tx, tunnel_uid, base_rev)
            before = tx.seq
            refused = self._sites.replace_all(tx, tunnel, rules, domain)
            own = {port.port: port for port in self._ports.own(tx.read, tunnel_uid)}
            for number, port in own.items():
                self._ports.put_rule(tx, port, {**ports.get(number, {}), "port": number})
            self._rules.note_unmanaged(tx, tunnel_uid, unmanaged)
            if tx.seq != before:
                rev = tx.seq
        return RulesReplaced(
            rev=rev,
            sites=joined_results(results, refused),
            own_ports=tuple(own),
            port_errors=heavy | {
                number: NotFoundError(f"port {number} is not allocated to this tunnel")
                for number in ports if number not in own
            },
        )
