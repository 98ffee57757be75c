"""Port maps: operations on ports at a client that lead through the server to a service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.ids import new_uid
from spokes.model.operation import Operation, Work
from spokes.model.rule_state import check_managed, check_rule_bytes
from spokes.model.rules import check_portmap_rule
from spokes.store import PortMap
from spokes.store.models import canonical_json
from spokes.store.ports import PORT_MAX
from spokes.store.rows import Json

PORTMAP_COUNT_MAX = 1_000                # of one tunnel
TRANSPORTS = ("tcp", "udp")


class PutPortMaps(Operation[list[PortMap]], frozen=True, tag="portmap.put"):
    """Adds or replaces the maps named, all or none; the others stay."""

    tunnel_uid: str
    rules: Sequence[Json]

    def apply(self, work: Work) -> list[PortMap]:
        wanted = {_key(rule): dict(rule) for rule in self.rules}
        store, uid = work.store, self.tunnel_uid
        with work.transaction() as tx:
            work.tunnel(tx, uid)
            check_managed(store, uid, tx)
            own = {(old.listen_port, old.transport): old for old in store.portmaps.select(uid, tx)}
            if len(own.keys() | wanted.keys()) > PORTMAP_COUNT_MAX:
                raise LimitError(f"a tunnel may have {PORTMAP_COUNT_MAX} port maps", hint="remove some first")
            put = []
            for key, rule in wanted.items():
                old = own.get(key)
                if old is None:
                    put.append(tx.insert(PortMap(
                        uid=new_uid(), tunnel_uid=uid, listen_port=key[0], transport=key[1], rule=rule,
                        created=tx.now, modified=tx.now,
                    )))
                elif canonical_json(old.rule) == canonical_json(rule):
                    put.append(old)
                else:
                    put.append(tx.update(replace(old, rule=rule, modified=tx.now)))
            check_rule_bytes(store, uid)
            return put


class RemovePortMaps(Operation[None], frozen=True, tag="portmap.remove"):
    """Removes the maps of these ports and both transports, all or none; a port without a map is NotFoundError."""

    tunnel_uid: str
    listen_ports: Sequence[int]

    def apply(self, work: Work) -> None:
        wanted = dict.fromkeys(self.listen_ports)
        with work.transaction() as tx:
            work.tunnel(tx, self.tunnel_uid)
            check_managed(work.store, self.tunnel_uid, tx)
            own = work.store.portmaps.select(self.tunnel_uid, tx)
            for port in wanted.keys() - {old.listen_port for old in own}:
                raise NotFoundError(f"this tunnel has no port map that listens on {port}")
            for old in own:
                if old.listen_port in wanted:
                    tx.delete(old)


def _key(rule: Json) -> tuple[int, str]:
    port: Any = rule.get("listenPort")
    transport: Any = rule.get("transport")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= PORT_MAX:
        raise ValueRefusedError(f"a port map listens on a port of 1-{PORT_MAX}")
    if transport not in TRANSPORTS:
        raise ValueRefusedError(f"the transport of a port map is one of {', '.join(TRANSPORTS)}")
    try:
        canonical_json(rule)
    except (TypeError, ValueError, RecursionError):
        raise ValueRefusedError(f"the port map of {port} is not plain JSON") from None
    check_portmap_rule(rule)
    return port, transport
