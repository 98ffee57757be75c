"""Public ports of tunnels: operations that allocate, release and forward them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, ValueRefusedError
from spokes.ids import new_uid
from spokes.model.limits import check_port_count, owner_of
from spokes.model.operation import USERS_AND_CLIENTS, Operation, Work
from spokes.model.rule_state import check_managed, check_rule_bytes
from spokes.model.rules import check_port_rule
from spokes.store import Port
from spokes.store.changes import Writer
from spokes.store.models import canonical_json
from spokes.store.rows import Json

PORT_COUNT_MAX = 100                     # of one tunnel, so that it cannot use up the range by itself


class AllocatePort(Operation[int], frozen=True, tag="port.allocate"):
    """The lowest free port of `begin`..`end`, both inclusive, but none of `without`; the tunnel's until released.

    LimitError when the range is used up or the tunnel has PORT_COUNT_MAX, PolicyError when the owner has all the
    ports they may have.
    """

    callers = USERS_AND_CLIENTS

    tunnel_uid: str
    begin: int
    end: int
    without: Collection[int] = ()

    def apply(self, work: Work) -> int:
        store, uid = work.store, self.tunnel_uid
        with work.transaction() as tx:
            tunnel = work.tunnel(tx, uid)
            if (owner := owner_of(store, tx, tunnel.user_uid)) is not None:
                check_port_count(store, tx, owner)
            if len(store.ports.select(uid, tx)) >= PORT_COUNT_MAX:
                raise LimitError(f"a tunnel has at most {PORT_COUNT_MAX} ports", hint="release one")
            used = store.ports.allocated(tx, self.begin, self.end) | set(self.without)
            free = next((port for port in range(self.begin, self.end + 1) if port not in used), None)
            if free is None:
                raise LimitError(
                    f"all ports of {self.begin}-{self.end} are allocated", hint="release one, or widen the range"
                )
            tx.insert(Port(
                uid=new_uid(), tunnel_uid=uid, port=free, rule={"port": free}, created=tx.now, modified=tx.now
            ))
            return free


class ReleasePort(Operation[None], frozen=True, tag="port.release"):
    """The port is free for anyone; its forwarding goes with it."""

    callers = USERS_AND_CLIENTS

    tunnel_uid: str
    port: int

    def apply(self, work: Work) -> None:
        with work.transaction() as tx:
            port = work.store.ports.get(tx, self.tunnel_uid, self.port)
            work.tunnel(tx, self.tunnel_uid)
            tx.delete(port)


class PutPortRules(Operation[list[Port]], frozen=True, tag="port.put_rules"):
    """Replaces the forwarding of the ports named, all or none; `{}` clears one, and those not named stay."""

    tunnel_uid: str
    rules: Mapping[int, Json]

    def apply(self, work: Work) -> list[Port]:
        wholes = {port: _whole(rule, port) for port, rule in self.rules.items()}
        store, uid = work.store, self.tunnel_uid
        with work.transaction() as tx:
            work.tunnel(tx, uid)
            check_managed(store, uid, tx)
            own = [(store.ports.get(tx, uid, port), whole) for port, whole in wholes.items()]
            put = [put_port_rule(tx, port, whole) for port, whole in own]
            check_rule_bytes(store, uid)
            return put


def put_port_rule(tx: Writer, own: Port, rule: dict[str, Any]) -> Port:
    if canonical_json(own.rule) == canonical_json(rule):
        return own
    return tx.update(replace(own, rule=rule, modified=tx.now))


def _whole(rule: Json, port: int) -> dict[str, Any]:
    try:
        canonical_json(whole := {**rule, "port": port})
    except (TypeError, ValueError, RecursionError):
        raise ValueRefusedError(f"the rule of port {port} is not plain JSON") from None
    check_port_rule(rule)
    return whole
