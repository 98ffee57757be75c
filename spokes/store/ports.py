"""Public ports: allocation and forwarding rules. A number belongs to one tunnel, for TCP and UDP alike."""

from __future__ import annotations

from collections.abc import Iterable

import peewee

from spokes.errors import NotFoundError
from spokes.ids import is_uid
from spokes.store.base import View
from spokes.store.db import Database
from spokes.store.logged import PORTS, RowsOfTunnels
from spokes.store.models import PortModel, TunnelModel
from spokes.store.rows import Port
from spokes.store.statement import Statement

PORT_MAX = 65_535

_OF = RowsOfTunnels(PORTS, PortModel.port)
_FIND = PORTS.where(PortModel.port, PortModel.tunnel_uid)
_ALLOCATED = Statement(lambda begin, end: PortModel.select(PortModel.port).where(PortModel.port.between(begin, end)))
_COUNT_OF_USER = Statement(
    lambda uid: PortModel.select(peewee.fn.COUNT(PortModel.uid))
    .join(TunnelModel, on=(TunnelModel.uid == PortModel.tunnel_uid)).where(TunnelModel.user_uid == uid)
)


class Ports:
    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, tunnel_uid: str | Iterable[str] | None = None, view: View | None = None) -> list[Port]:
        """By number: all, a tunnel's, or those of several tunnels."""
        return [PORTS.read(row) for row in (view or self._db).rows(_OF(tunnel_uid))]

    def get(self, view: View, tunnel_uid: str, port: int) -> Port:
        if is_uid(tunnel_uid) and 1 <= port <= PORT_MAX:
            for row in view.rows(_FIND(port, tunnel_uid)):
                return PORTS.read(row)
        raise NotFoundError(f"port {port} is not allocated to this tunnel")

    def allocated(self, view: View, begin: int, end: int) -> set[int]:
        """The numbers of `begin`..`end`, both inclusive, that are some tunnel's."""
        return {port for (port,) in view.rows(_ALLOCATED(begin, end))}

    def count_of_user(self, view: View, user_uid: str) -> int:
        """Over all of the user's tunnels."""
        return int(view.rows(_COUNT_OF_USER(user_uid))[0][0])
