"""Public ports: allocation and forwarding rules. A number belongs to one tunnel, for TCP and UDP alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.ids import is_uid, new_uid
from spokes.store.base import Read
from spokes.store.changes import ChangeLog, Writer
from spokes.store.db import Database
from spokes.store.limits import check_port_count, owner_of
from spokes.store.logged import PORTS, RowsOfTunnels
from spokes.store.models import PortModel, canonical_json
from spokes.store.rows import Json, Port
from spokes.store.rulestate import RuleStates
from spokes.store.statement import Statement
from spokes.store.tunnels import Tunnels

PORT_MAX = 65_535
PORT_COUNT_MAX = 100                     # of one tunnel, so that it cannot use up the range by itself

_OF = RowsOfTunnels(PORTS, PortModel.port)
_FIND = PORTS.where(PortModel.port, PortModel.tunnel_uid)
_ALLOCATED = Statement(lambda begin, end: PortModel.select(PortModel.port).where(PortModel.port.between(begin, end)))


class Ports:
    def __init__(self, db: Database, changes: ChangeLog, tunnels: Tunnels, rules: RuleStates) -> None:
        self._db = db
        self._changes = changes
        self._tunnels = tunnels
        self._rules = rules

    def allocate(self, tunnel_uid: str, begin: int, end: int, *, without: Collection[int] = ()) -> int:
        """The lowest free port of `begin`..`end`, both inclusive, but none of `without`; the tunnel's until released.

        LimitError when the range is used up or the tunnel has PORT_COUNT_MAX, PolicyError when the owner has all the
        ports they may have.
        """
        with self._changes.transaction() as tx:
            tunnel = self._tunnels.live(tx.rows, tunnel_uid)
            if (owner := owner_of(tx, tunnel.user_uid)) is not None:
                check_port_count(tx, owner)
            if len(self.own(tx.read, tunnel_uid)) >= PORT_COUNT_MAX:
                raise LimitError(f"a tunnel has at most {PORT_COUNT_MAX} ports", hint="release one")
            used = {port for (port,) in tx.rows(_ALLOCATED(begin, end))} | set(without)
            free = next((port for port in range(begin, end + 1) if port not in used), None)
            if free is None:
                raise LimitError(f"all ports of {begin}-{end} are allocated", hint="release one, or widen the range")
            tx.insert(Port(
                uid=new_uid(), tunnel_uid=tunnel_uid, port=free, rule={"port": free}, created=tx.now, modified=tx.now
            ))
            return free

    def release(self, tunnel_uid: str, port: int) -> None:
        """The port is free for anyone; its forwarding goes with it."""
        with self._changes.transaction() as tx:
            tx.delete(self._own_port(tx.read, tunnel_uid, port))

    def put_rules(self, tunnel_uid: str, rules: Mapping[int, Json]) -> list[Port]:
        """Replace the forwarding of the ports named, all or none; `{}` clears one, and those not named stay."""
        wholes = {port: _whole(rule, port) for port, rule in rules.items()}
        with self._changes.transaction() as tx:
            self._tunnels.live(tx.rows, tunnel_uid)
            self._rules.managed_or_raise(tx.read, tunnel_uid)
            own = [(self._own_port(tx.read, tunnel_uid, port), whole) for port, whole in wholes.items()]
            put = [self.put_rule(tx, port, whole) for port, whole in own]
            self._rules.check_bytes(tunnel_uid)
            return put

    def select(self, tunnel_uid: str | Iterable[str] | None = None) -> list[Port]:
        """By number: all, a tunnel's, or those of several tunnels."""
        return [PORTS.read(row) for row in self._db.rows(_OF(tunnel_uid))]

    @staticmethod
    def put_rule(tx: Writer, own: Port, rule: dict[str, Any]) -> Port:
        if canonical_json(own.rule) == canonical_json(rule):
            return own
        return tx.update(replace(own, rule=rule, modified=tx.now))

    def own(self, read: Read, tunnel_uid: str) -> list[Port]:
        return [PORTS.read(row) for row in read(_OF(tunnel_uid))]

    def _own_port(self, read: Read, tunnel_uid: str, port: int) -> Port:
        if is_uid(tunnel_uid) and 1 <= port <= PORT_MAX:
            for row in read(_FIND(port, tunnel_uid)):
                return PORTS.read(row)
        raise NotFoundError(f"port {port} is not allocated to this tunnel")


def _whole(rule: Json, port: int) -> dict[str, Any]:
    try:
        canonical_json(whole := {**rule, "port": port})
    except (TypeError, ValueError, RecursionError):
        raise ValueRefusedError(f"the rule of port {port} is not plain JSON") from None
    return whole
