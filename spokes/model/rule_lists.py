"""Rule lists: the operation by which a client replaces all its rules in one transaction, if it knew the latest ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spokes.errors import NotFoundError, PeerError, RulesChangedError
from spokes.model.operation import USERS_AND_CLIENTS, Operation, Work
from spokes.model.ports import put_port_rule
from spokes.model.rule_state import RULES_BYTES_MAX, check_revision, too_many_bytes
from spokes.model.rules import check_port_rule
from spokes.model.sites import checked_list, joined_results, replace_sites
from spokes.store import PrincipalKind, SiteResult
from spokes.store.models import canonical_json
from spokes.store.rows import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesReplaced:
    """What became of an announced list; `port_errors` names the ports that were refused."""

    rev: int
    sites: list[SiteResult]
    own_ports: tuple[int, ...]
    port_errors: Mapping[int, PeerError] = field(default_factory=dict)


class ReplaceRules(Operation[RulesReplaced], frozen=True, tag="rules.replace"):
    """Makes these the tunnel's sites and forwardings, rule by rule: what cannot be is refused alone.

    Own ports that are not named stay allocated and are not forwarded. Nothing is written, and RulesChangedError
    raised, unless the rules still stand at `base_rev` (None: wherever they stand). A list that changes nothing, as
    after every reconnect, writes nothing.
    """

    callers = USERS_AND_CLIENTS

    tunnel_uid: str
    sites: Sequence[Json]
    ports: Mapping[int, Json]
    domain: str | None = None
    base_rev: int | None = None
    unmanaged: bool = False

    def apply(self, work: Work) -> RulesReplaced:
        store, uid = work.store, self.tunnel_uid
        known = store.rules.read(uid)
        room_bytes = RULES_BYTES_MAX - sum(len(canonical_json(rule)) for rule in known.portmaps)
        refused_ports: dict[int, PeerError] = {}
        for number, rule in self.ports.items():
            try:
                size_bytes = len(canonical_json(rule))
                check_port_rule(rule)
                if size_bytes > room_bytes:
                    raise too_many_bytes()
            except PeerError as error:
                refused_ports[number] = error
            else:
                room_bytes -= size_bytes
        ports = {number: {} if number in refused_ports else rule for number, rule in self.ports.items()}
        is_client = work.principal.kind == PrincipalKind.CLIENT      # which may name files of its own
        results, rules = checked_list(self.sites, self.domain, room_bytes, from_client=is_client)
        if self.base_rev is not None and known.rev != self.base_rev:
            raise RulesChangedError("the rules were changed at the server meanwhile")
        own_ports = {rule["port"]: rule for rule in known.ports}
        wanted = {port: {**ports.get(port, {}), "port": port} for port in own_ports}
        if (
            is_client and work.principal.uid == uid
            and rules                        # none may mean an unknown tunnel: look properly
            and wanted.keys() >= ports.keys()
            and known.unmanaged == self.unmanaged
            and canonical_json({rule["domain"]: rule for rule in known.sites}) == canonical_json(rules)
            and canonical_json(list(wanted.values())) == canonical_json(list(own_ports.values()))
        ):
            return RulesReplaced(rev=known.rev, sites=results, own_ports=tuple(own_ports), port_errors=refused_ports)
        with work.transaction() as tx:
            tunnel = work.tunnel(tx, uid)
            rev = check_revision(store, tx, uid, self.base_rev)
            before = tx.seq
            refused = replace_sites(store, tx, tunnel, rules, self.domain)
            own = {port.port: port for port in store.ports.select(uid, tx)}
            for number, port in own.items():
                put_port_rule(tx, port, {**ports.get(number, {}), "port": number})
            store.rules.note_unmanaged(tx, uid, self.unmanaged)
            if tx.seq != before:
                rev = tx.seq
        return RulesReplaced(
            rev=rev,
            sites=joined_results(results, refused),
            own_ports=tuple(own),
            port_errors=refused_ports | {
                number: NotFoundError(f"port {number} is not allocated to this tunnel")
                for number in ports if number not in own
            },
        )
