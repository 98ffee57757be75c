"""Port maps: ports at a client that lead through the server to a service; the key is listening port and transport."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spokes.errors import LimitError, NotFoundError, ValueRefusedError
from spokes.ids import new_uid
from spokes.store.base import Read
from spokes.store.changes import ChangeLog
from spokes.store.db import Database
from spokes.store.logged import PORTMAPS, RowsOfTunnels
from spokes.store.models import PortMapModel, canonical_json
from spokes.store.ports import PORT_MAX
from spokes.store.rows import Json, PortMap
from spokes.store.rulestate import RuleStates
from spokes.store.tunnels import Tunnels

PORTMAP_COUNT_MAX = 1_000                # of one tunnel
TRANSPORTS = ("tcp", "udp")

_OF = RowsOfTunnels(PORTMAPS, PortMapModel.listen_port, PortMapModel.transport)


class PortMaps:
    def __init__(self, db: Database, changes: ChangeLog, tunnels: Tunnels, rules: RuleStates) -> None:
        self._db = db
        self._changes = changes
        self._tunnels = tunnels
        self._rules = rules

    def put(self, tunnel_uid: str, rules: Iterable[Json]) -> list[PortMap]:
        """Add or replace the maps named, all or none; the others stay."""
        wanted = {_key(rule): dict(rule) for rule in rules}
        with self._changes.transaction() as tx:
            self._tunnels.live(tx.rows, tunnel_uid)
            self._rules.managed_or_raise(tx.read, tunnel_uid)
            own = {(old.listen_port, old.transport): old for old in self._own_portmaps(tx.read, tunnel_uid)}
            if len(own.keys() | wanted.keys()) > PORTMAP_COUNT_MAX:
                raise LimitError(f"a tunnel may have {PORTMAP_COUNT_MAX} port maps", hint="remove some first")
            put = []
            for key, rule in wanted.items():
                old = own.get(key)
                if old is None:
                    put.append(tx.insert(PortMap(
                        uid=new_uid(), tunnel_uid=tunnel_uid, listen_port=key[0], transport=key[1], rule=rule,
                        created=tx.now, modified=tx.now,
                    )))
                elif canonical_json(old.rule) == canonical_json(rule):
                    put.append(old)
                else:
                    put.append(tx.update(replace(old, rule=rule, modified=tx.now)))
            self._rules.check_bytes(tunnel_uid)
            return put

    def remove(self, tunnel_uid: str, listen_ports: Iterable[int]) -> None:
        """All or none, of both transports; a port without a map is NotFoundError."""
        wanted = dict.fromkeys(listen_ports)
        with self._changes.transaction() as tx:
            self._tunnels.live(tx.rows, tunnel_uid)
            self._rules.managed_or_raise(tx.read, tunnel_uid)
            own = self._own_portmaps(tx.read, tunnel_uid)
            for port in wanted.keys() - {old.listen_port for old in own}:
                raise NotFoundError(f"this tunnel has no port map that listens on {port}")
            for old in own:
                if old.listen_port in wanted:
                    tx.delete(old)

    def select(self, tunnel_uid: str | None = None) -> list[PortMap]:
        """By listening port."""
        return [PORTMAPS.read(row) for row in self._db.rows(_OF(tunnel_uid))]

    def _own_portmaps(self, read: Read, tunnel_uid: str) -> list[PortMap]:
        return [PORTMAPS.read(row) for row in read(_OF(tunnel_uid))]


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
    return port, transport
